"""Listing: the table that `keyturn tokens list` shows, laid out for where it goes.

A line a name wherever there is room. Into a pipe, and on a wide terminal, a
column says everything; on a narrow one the epoch and the times are shortened,
an error has a line of its own below its name, and so has a name that is
longer than its column. Nothing of a name is ever cut off.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from keyturn.cli.account import AMISS, clock, expiry, failure, relative, saved, stamp, state
from keyturn.client.token_stores.inventory import Item

_GAP = "  "
_HEADS = ("NAME", "STATE", "EPOCH", "GEN", "EXPIRES", "SAVED", "LAST ERROR")
_SHORT_EPOCH = 8
_LEAST_NAME = 12
_RIGHT = {3}  # columns of numbers

Row = list[str]


def draw(items: Sequence[Item], width: int | None) -> list[Text]:
    """Return the table of `items`, line by line; a `width` of None has room for everything."""
    rows = [[*_whole(item), _error(item) or "-"] for item in items]
    widths = _widths([_HEADS, *rows])
    if width is None or _needs(widths) <= width:
        lines = [_colored(item, _line(row, widths)) for item, row in zip(items, rows, strict=True)]
        return [Text(_line(_HEADS, widths), "bold"), *lines]
    return _narrow(items, width)


def _narrow(items: Sequence[Item], width: int) -> list[Text]:
    heads, rows = _HEADS[:-1], [_short(item) for item in items]
    widths = _widths([heads, *rows])
    widths[0] = max(_LEAST_NAME, min(widths[0], width - _needs([0, *widths[1:]])))
    lines = [Text(_line(heads, widths), "bold")]
    for item, row in zip(items, rows, strict=True):
        if cell_len(row[0]) > widths[0]:
            lines.append(Text(row[0]))
            row[0] = ""
        lines.append(_colored(item, _line(row, widths)))
        if error := _error(item):
            wrapped = textwrap.wrap(error, width, initial_indent=_GAP, subsequent_indent=_GAP)
            lines += [Text(line, "red") for line in wrapped]
    return lines


def printable(text: str) -> str:
    """Return text with what would move a terminal's cursor spelled out."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _whole(item: Item) -> Row:
    record, now = item.record, item.now
    if record is None:
        return [printable(item.name), state(item), "-", "-", "-", "-"]
    at = f" ({stamp(record.expires_at)})" if record.ended is None and record.expires_at is not None else ""
    return [
        *(printable(item.name), state(item), printable(record.epoch), str(record.generation)),
        *(expiry(record, now) + at, saved(record, now)),
    ]


def _short(item: Item) -> Row:
    record, now = item.record, item.now
    if record is None:
        return _whole(item)
    at = (
        f", {clock(record.expires_at, now)}" if record.ended is None and record.expires_at is not None else ""
    )
    return [
        *(printable(item.name), state(item), printable(record.epoch[:_SHORT_EPOCH])),
        *(str(record.generation), expiry(record, now) + at, relative(record.saved_at, now)),
    ]


def _error(item: Item) -> str:
    if item.record is None:
        return printable(item.problem or "")
    return printable(failure(item.record, item.now))


def _colored(item: Item, line: str) -> Text:
    said, text = state(item), Text(line)
    if said in AMISS:
        text.highlight_words([f"{_GAP}{said}{_GAP}"], "red")
    return text


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = []
    for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
        space = " " * (width - cell_len(cell))
        cells.append(space + cell if column in _RIGHT else cell + space)
    return _GAP.join(cells).rstrip()


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(cell_len(cell) for cell in column) for column in zip(*rows, strict=True)]


def _needs(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)

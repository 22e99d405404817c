"""Lanes drawn as a browser's network tab draws requests: a pure function of what was recorded.

One row a call, every row of every lane on one time axis. A bar is a request:
its length is its time, the word in it says what it was. Each kind of bar has
its own glyph besides its colour, so that the picture reads the same without
colour. Colours are the terminal's own eight, as backgrounds under black, which
reads the same on a dark and on a light terminal; coloured text is red or none.

The lines are laid out by hand, not by a table: none may be longer than the
terminal is wide, and what does not fit is shortened where that hurts least.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from itertools import groupby

from rich.text import Text

from keyturn.demo.record import Call, Lane, Request

SIDE_BY_SIDE = 110  # columns from which two lanes fit beside each other
_GAP = 4
_MOST_ROWS = 24  # calls drawn in a lane; the rest is counted in one line
_LONGEST_LABEL = 22
_OUTCOME = len(" ✓ 200")
_LEAST_CHART = 8

Cell = tuple[str, str]  # a glyph and its style


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What to draw with. The fields are single characters."""

    refused: str
    refresh: str
    answered: str
    waiting: str
    good: str
    bad: str
    more: str
    tick: str


FINE = Glyphs(refused="×", refresh="~", answered="━", waiting="·", good="✓", bad="✗", more="…", tick="╷")  # noqa: RUF001
PLAIN = Glyphs(refused="x", refresh="~", answered="=", waiting=".", good="+", bad="!", more=">", tick="|")


def glyphs_for(encoding: str) -> Glyphs:
    """Return the glyphs that an output encoding can carry."""
    try:
        "".join(astuple(FINE)).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return PLAIN
    return FINE


def in_words(lane: Lane) -> str:
    """Return what a lane comes to, in one line."""
    refreshes = _counted(lane.refreshes, "refresh", "refreshes")
    fate = "still signed in" if lane.signed_in else "LOGGED OUT"
    return (
        f"{lane.client.partition(':')[0]}: {refreshes}, {lane.answered} of {len(lane.calls)} answered, {fate}"
    )


def draw(lanes: Sequence[Lane], width: int, *, glyphs: Glyphs = FINE, colour: bool = True) -> list[Text]:
    """Return the picture of `lanes`, line by line, none longer than `width` columns.

    Two lanes stand side by side from 110 columns on, else one under the
    other. `colour` says whether bars are told apart by colour too, or by
    their glyphs alone.
    """
    beside = width >= SIDE_BY_SIDE and len(lanes) > 1
    room = (width - _GAP * (len(lanes) - 1)) // len(lanes) if beside else width
    scale = max((lane.end for lane in lanes), default=0.0) or 1.0
    pen = _Pen(glyphs, colour, scale, room)
    lines = (_beside if beside else _under)([pen.lane(lane) for lane in lanes], room)
    lines += [Text(), *_packed(pen.legend(), "   ", width)]
    for line in lines:
        line.truncate(width, overflow="crop")
    return lines


@dataclass(frozen=True, slots=True)
class _Pen:
    """Draws lanes `room` columns wide, the chart in them `scale` milliseconds from edge to edge."""

    glyphs: Glyphs
    colour: bool
    scale: float
    room: int

    @property
    def label(self) -> int:
        """Return how many columns the names get: a third of the room at most."""
        return min(_LONGEST_LABEL, self.room // 3)

    @property
    def chart(self) -> int:
        return max(_LEAST_CHART, self.room - self.label - _OUTCOME)

    def lane(self, lane: Lane) -> list[Text]:
        lines = [
            Text(self.short(lane.client, self.room), "bold"),
            *_packed(self.headline(lane), "   ", self.room),
            self.axis(),
        ]
        shown = len(lane.calls) if len(lane.calls) <= _MOST_ROWS else _MOST_ROWS - 1
        for index, call in enumerate(lane.calls[:shown]):
            lines.append(self.call(call, [one for one in lane.requests if one.call == index]))
        if rest := lane.calls[shown:]:
            answered = sum(call.answered for call in rest)
            lines.append(
                Text(f"{self.glyphs.more} {len(rest)} more calls, {answered} of them answered", "dim")
            )
        lines += [self.shared(request) for request in lane.requests if request.call is None]
        return lines + [Text(line) for line in textwrap.wrap(moral(lane), self.room)]

    def headline(self, lane: Lane) -> list[Text]:
        """Say what a lane comes to: refreshes, calls answered, signed in or not."""
        every = lane.answered == len(lane.calls)
        fate, colour = (" still signed in ", "green") if lane.signed_in else (" LOGGED OUT ", "red")
        return [
            Text(_counted(lane.refreshes, "refresh", "refreshes"), "bold"),
            Text(
                f"{lane.answered} of {_counted(len(lane.calls), 'call', 'calls')} answered",
                "bold" if every else "bold red",
            ),
            Text(fate, self.on(colour, "bold")) if self.colour else Text(fate.strip(), "bold"),
        ]

    def axis(self) -> Text:
        """Draw the ticks, as many as their labels leave room for."""
        step = _step(self.scale, self.chart)
        marks = " " * self.chart
        for number in range(int(self.scale / step) + 1):
            at = self.column(number * step)
            label = f"{self.glyphs.tick}{number * step:g}" + ("" if number else " ms")
            if at + len(label) <= self.chart:
                marks = marks[:at] + label + marks[at + len(label) :]
        return Text(" " * self.label + marks.rstrip(), "dim")

    def call(self, call: Call, requests: Sequence[Request]) -> Text:
        return self.row(call.name, requests, call.status, good=call.answered)

    def shared(self, request: Request) -> Text:
        """Draw a request that was sent for everybody, in a row of its own."""
        return self.row("the refresh", [request], request.status, good=request.answered)

    def row(self, name: str, requests: Sequence[Request], status: int | None, *, good: bool) -> Text:
        line = Text(self.short(name, self.label - 1).ljust(self.label))
        for style, run in groupby(self.bars(requests), key=lambda cell: cell[1]):
            line.append("".join(glyph for glyph, _ in run), style)
        mark = self.glyphs.good if good else self.glyphs.bad
        return line.append(f" {mark} {status or 'err'}", "" if good else "red")

    def bars(self, requests: Sequence[Request]) -> list[Cell]:
        """Draw one row's requests, and the waiting between them."""
        cells: list[Cell] = [(" ", "")] * self.chart
        spans = [(*self.span(request), request) for request in requests]
        if spans:
            first, last = min(span[0] for span in spans), max(span[1] for span in spans)
            cells[first:last] = [(self.glyphs.waiting, "dim")] * (last - first)
        for start, stop, request in spans:
            cells[start:stop] = self.bar(request, stop - start)
        return cells

    def bar(self, request: Request, length: int) -> list[Cell]:
        if request.kind == "refresh":
            end = [] if request.answered else [(self.glyphs.bad, self.on("red", "bold"))]
            return self.filled("refresh", self.glyphs.refresh, "yellow", length - len(end)) + end
        if request.answered:
            return self.filled(str(request.status), self.glyphs.answered, "green", length)
        return self.filled(str(request.status or "err"), self.glyphs.refused, "red", length)

    def filled(self, word: str, glyph: str, colour: str, length: int) -> list[Cell]:
        """Return a bar: its word where there is room for it, else its glyph alone."""
        fill = " " if self.colour and length >= len(word) else glyph
        margin = fill if length >= len(word) + 2 else ""
        text = (margin + word if length >= len(word) else "").ljust(length, fill)
        return [(character, self.on(colour)) for character in text]

    def short(self, words: str, width: int) -> str:
        return words if len(words) <= width else words[: width - 1] + self.glyphs.more

    def on(self, colour: str, weight: str = "") -> str:
        return f"{weight} black on {colour}".strip() if self.colour else weight

    def column(self, at: float) -> int:
        return min(self.chart - 1, int(at / self.scale * self.chart))

    def span(self, request: Request) -> tuple[int, int]:
        """Return the first column of a request and the one after its last: never less than one."""
        start = self.column(request.start)
        return start, max(start + 1, min(self.chart, round(request.end / self.scale * self.chart)))

    def legend(self) -> list[Text]:
        swatches = [
            (self.filled("401", self.glyphs.refused, "red", 5), "access token expired"),
            (self.filled("refresh", self.glyphs.refresh, "yellow", 9), "buys new tokens"),
            ([(self.glyphs.bad, self.on("red", "bold"))], "refresh refused"),
            (self.filled("200", self.glyphs.answered, "green", 5), "answered"),
            ([(self.glyphs.waiting * 3, "dim")], "waiting"),
        ]
        return [Text.assemble(*swatch, f" {words}") for swatch, words in swatches]


def moral(lane: Lane) -> str:
    """Say why a lane ended as it did, as far as the record tells."""
    if "token_reused" in lane.refusals and not lane.signed_in:
        return (
            "A refresh token works once. The second one to come looked stolen, "
            "so the server ended the session (token_reused)."
        )
    if len(lane.calls) == 1 and lane.signed_in:
        return "One call alone is safe. The trouble starts with two."
    if lane.refreshes == 1 and lane.answered == len(lane.calls) > 1:
        return "One refresh for all; each refused call was then sent again with the new token."
    return ""


def _beside(drawn: Sequence[list[Text]], room: int) -> list[Text]:
    lines = []
    for number in range(max(len(lane) for lane in drawn)):
        line = Text()
        for column, lane in enumerate(drawn):
            if number < len(lane):
                line.append(" " * (column * (room + _GAP) - line.cell_len)).append_text(lane[number])
        lines.append(line)
    return lines


def _under(drawn: Sequence[list[Text]], _room: int) -> list[Text]:
    lines: list[Text] = []
    for lane in drawn:
        lines += [Text(), *lane] if lines else lane
    return lines


def _packed(pieces: Iterable[Text], between: str, width: int) -> list[Text]:
    """Return the pieces set in lines of at most `width` columns, as many to a line as fit."""
    lines: list[Text] = []
    for piece in pieces:
        if lines and lines[-1].cell_len + len(between) + piece.cell_len <= width:
            lines[-1].append(between).append_text(piece)
        else:
            lines.append(Text().append_text(piece))
    return lines


def _step(scale: float, columns: int) -> float:
    """Return the distance of the ticks: 1, 2 or 5 times a power of ten, with room for a label between."""
    least = scale * len("|1000 ") / columns
    step = 1.0
    while step < least:
        step *= 2.5 if f"{step:g}".startswith("2") else 2
    return step


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"

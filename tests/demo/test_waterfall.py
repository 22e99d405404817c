"""The picture: a pure function of recorded data, at every width."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
from rich.console import Console
from rich.text import Text

from keyturn.demo import scene
from keyturn.demo.record import Call, Lane, Request
from keyturn.demo.waterfall import FINE, PLAIN, SIDE_BY_SIDE, Glyphs, draw, glyphs_for

WIDTHS = [60, 80, 100, 120, 200]
NUMBERS = [1, 2, 3, 12, 24, 25, 60, 100]


def naive(number: int) -> Lane:
    """Every call refreshes; the second one's refresh wins, unless there is only one."""
    winner = min(1, number - 1)
    requests = []
    for index, name in enumerate(scene.names(number)):
        requests.append(Request(name, "call", 0.2 * index, 31 + 0.3 * index, 401, index))
        status = 200 if index == winner else 401
        requests.append(Request(scene.REFRESH, "refresh", 62, 150 + index, status, index))
        if index == winner:
            requests.append(Request(name, "replay", 152, 230, 200, index))
    calls = [Call(name, 200 if index == winner else 401) for index, name in enumerate(scene.names(number))]
    reused = frozenset({"token_reused", "session_ended"} if number > 1 else ())
    return Lane(
        "Naive: every refused call refreshes for itself", tuple(calls), tuple(requests), number == 1, reused
    )


def together(number: int) -> Lane:
    """All calls wait for one refresh."""
    requests = [Request(scene.REFRESH, "refresh", 62, 150, 200)]
    for index, name in enumerate(scene.names(number)):
        requests.append(Request(name, "call", 0.2 * index, 31 + 0.3 * index, 401, index))
        requests.append(Request(name, "replay", 152, 190 + index * 37 % 60, 200, index))
    calls = tuple(Call(name, 200) for name in scene.names(number))
    return Lane("keyturn: one refresh, the others wait for it", calls, tuple(requests), signed_in=True)


def plain(lines: list[Text]) -> list[str]:
    return [line.plain for line in lines]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("width", [30, 40, *WIDTHS])
@pytest.mark.parametrize("glyphs", [FINE, PLAIN], ids=["fine", "ascii"])
def test_no_line_is_longer_than_the_terminal_is_wide(width: int, number: int, glyphs: Glyphs) -> None:
    lines = draw([naive(number), together(number)], width, glyphs=glyphs)

    assert max(line.cell_len for line in lines) <= width
    assert not any("\n" in line.plain for line in lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_console_prints_each_line_as_one_line(width: int) -> None:
    lines = draw([naive(12), together(12)], width)
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="standard")
    with console.capture() as capture:
        for line in lines:
            console.print(line)

    assert len(capture.get().splitlines()) == len(lines)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("number", NUMBERS)
def test_every_headline_is_whole_and_in_words(width: int, number: int) -> None:
    text = "\n".join(plain(draw([naive(number), together(number)], width)))

    assert f"1 of {number} call{'s' if number > 1 else ''} answered" in text
    assert f"{number} of {number} call{'s' if number > 1 else ''} answered" in text
    assert f"{number} refresh{'es' if number > 1 else ''} " in text
    assert "1 refresh " in text
    assert ("LOGGED OUT" in text) == (number > 1)
    assert "still signed in" in text


@pytest.mark.parametrize(
    ("width", "beside"), [(80, False), (SIDE_BY_SIDE - 1, False), (120, True), (200, True)]
)
def test_lanes_stand_beside_each_other_where_there_is_room(width: int, *, beside: bool) -> None:
    lines = plain(draw([naive(3), together(3)], width))

    assert any("Naive:" in line and "keyturn:" in line for line in lines) == beside


def test_all_lanes_share_one_time_axis() -> None:
    """A lane that was over sooner is drawn shorter, under the same ticks."""
    short = Lane("short", (Call("/a", 200),), (Request("/a", "call", 0, 50, 200, 0),), signed_in=True)
    long = Lane("long", (Call("/a", 200),), (Request("/a", "call", 0, 500, 200, 0),), signed_in=True)
    lines = plain(draw([short, long], 80, colour=False))
    ticks = [line for line in lines if FINE.tick in line]
    bars = [line.count(FINE.answered) + len("200") for line in lines if line.startswith("/a")]

    assert len(ticks) == 2
    assert ticks[0] == ticks[1]
    assert "0 ms" in ticks[0]
    assert bars[1] == pytest.approx(10 * bars[0], abs=10)


@pytest.mark.parametrize("end", [3.0, 40.0, 231.0, 999.0, 5_000.0, 60_000.0])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_axis_has_round_ticks_in_order_and_room_between_them(width: int, end: float) -> None:
    lane = Lane("one", (Call("/a", 200),), (Request("/a", "call", 0, end, 200, 0),), signed_in=True)
    axis = next(line for line in plain(draw([lane], width)) if FINE.tick in line)
    ticks = [float(tick.split()[0]) for tick in axis.split(FINE.tick)[1:]]
    steps = {round(later - sooner, 6) for sooner, later in pairwise(ticks)}

    assert ticks[0] == 0
    assert 2 <= len(ticks) <= width / 8
    assert len(steps) == 1
    assert f"{steps.pop():e}"[0] in "125"


def test_without_colour_every_kind_of_bar_has_its_own_glyph() -> None:
    rows = plain(draw([naive(2), together(2)], 80, colour=False))
    loser, winner, first, _, shared = (
        row for row in rows if row.startswith(("/statistics", "/other-statistics", "the refresh"))
    )

    assert f"{FINE.refused}401" in loser
    assert "~refresh~" in loser
    assert "✗ 401" in loser
    assert "━200━" in winner
    assert "✓ 200" in winner
    assert "~" not in first
    assert "···" in first
    assert "━200━" in first
    assert "~refresh~" in shared


@pytest.mark.parametrize("colour", [True, False])
def test_every_glyph_stands_in_the_legend(*, colour: bool) -> None:
    legend = "\n".join(plain(draw([together(1)], 200, colour=colour))[-1:])

    for words in ("401", "refresh", "refresh refused", "200", "waiting"):
        assert words in legend


def test_colours_are_the_terminals_own_eight() -> None:
    """No truecolor and no bright one, so that they fit a light terminal and a dark one."""
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system="truecolor")
    with console.capture() as capture:
        for line in draw([naive(12), together(12)], 120):
            console.print(line)
    sequences = {part.split("m")[0] for part in capture.get().split("\x1b[")[1:]}
    codes = {int(code) for sequence in sequences for code in sequence.split(";")}

    assert codes <= {0, 1, 2, 30, 31, 41, 42, 43}


def test_without_colour_nothing_is_coloured() -> None:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    with console.capture() as capture:
        for line in draw([naive(12), together(12)], 80, colour=False):
            console.print(line)

    assert "\x1b" not in capture.get()


def test_what_takes_no_time_at_all_is_still_seen() -> None:
    flash = Lane("flash", (Call("/a", 401),), (Request("/a", "call", 0, 0, 401, 0),), signed_in=False)

    assert any(FINE.refused in line for line in plain(draw([flash], 80, colour=False)))


def test_a_request_without_an_answer_is_drawn_as_refused() -> None:
    lost = Lane("lost", (Call("/a", None),), (Request("/a", "call", 0, 90, None, 0),), signed_in=False)

    assert any(
        f"{FINE.refused}err" in line and "✗ err" in line for line in plain(draw([lost], 80, colour=False))
    )


def test_many_calls_are_folded_into_a_line_that_counts_them() -> None:
    lines = plain(draw([naive(100), together(100)], 80))

    assert len(lines) < 70
    assert f"{FINE.more} 77 more calls, 0 of them answered" in lines
    assert f"{FINE.more} 77 more calls, 77 of them answered" in lines


def test_why_the_session_ended_is_said_only_where_the_server_said_so() -> None:
    out = "so the server ended the session"

    assert out in " ".join(plain(draw([naive(2)], 100)))
    assert out not in " ".join(plain(draw([naive(1)], 100)))
    assert out not in " ".join(plain(draw([together(2)], 100)))


@pytest.mark.parametrize(
    ("encoding", "glyphs"), [("utf-8", FINE), ("ascii", PLAIN), ("latin-1", PLAIN), ("unheard-of", PLAIN)]
)
def test_an_encoding_without_our_glyphs_gets_plain_ones(encoding: str, glyphs: Glyphs) -> None:
    assert glyphs_for(encoding) is glyphs


def test_plain_glyphs_are_ascii_throughout() -> None:
    assert all(
        line.plain.isascii() for line in draw([naive(30), together(30)], 60, glyphs=PLAIN, colour=False)
    )

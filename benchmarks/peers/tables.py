"""What was measured, as Markdown, and its place in the documentation."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import client_overhead, client_wall
from benchmarks.client_overhead import Cost
from benchmarks.client_wall import Wall
from benchmarks.peers import cell, rows
from benchmarks.peers.catalogue import modules
from benchmarks.peers.peer import Peer
from benchmarks.peers.rows import ROWS, Result

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- peers:begin -->", "<!-- peers:end -->"
_HOSTS = ("httpx2", "httpx", "requests", "niquests", "aiohttp")
_LEGEND = (
    "A cell is token calls · answered of requested. `ended` is a session that the server has ended, "
    "`stuck` a client that gets no further though its session lives, `hangs` one that did not come to "
    f"an end within {cell.LIMIT:.0f} s. What is done:"
)
Cells = Mapping[tuple[str, str], Result | str]


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *lines])


def _storm(result: Result | str) -> str:
    if isinstance(result, str):
        return result
    session = "" if result.session == "goes on" else f", {result.session}"
    return f"{result.token_calls} · {result.answered}/{result.requests}{session}"


def _failure(result: Result | str) -> str:
    if isinstance(result, str):
        return result
    got = ", ".join(f"{count} {what}" for what, count in sorted(result.outcomes.items()))
    return f"{result.token_calls} · {got} · {result.seconds:.1f} s"


def _storms(peers: Sequence[Peer], cells: Cells) -> str:
    chosen = [name for name, row in ROWS.items() if not row.fails]
    lines = [
        [peer.library, f"{peer.host}, {peer.kind}", *(_storm(cells[peer.name, name]) for name in chosen)]
        for peer in peers
    ]
    return _table(["", "", *(ROWS[name].title for name in chosen)], lines)


def _failures(peers: Sequence[Peer], cells: Cells) -> str:
    chosen = [name for name, row in ROWS.items() if row.fails]
    lines = [
        [peer.library, f"{peer.host}, {peer.kind}", *(_failure(cells[peer.name, name]) for name in chosen)]
        for peer in peers
    ]
    return _table(["", "", *(ROWS[name].title for name in chosen)], lines)


def _overhead(costs: Sequence[Cost]) -> str:
    lines = [
        [cost.host, cost.client, f"{cost.total * 1e6:.1f} µs", f"{cost.over * 1e6:+.1f} µs"] for cost in costs
    ]
    return _table(["", "", "a request", "over the bare client"], lines)


def _walls(walls: Sequence[Wall]) -> str:
    lines = [
        [
            wall.host,
            f"{wall.refresh * 1e3:.0f} ms",
            f"{wall.bare * 1e3:.0f} ms",
            f"{wall.keyturn * 1e3:.0f} ms",
            f"{wall.ratio:.2f}x",
        ]
        for wall in walls
    ]
    return _table(["", "one refresh", "bare batch", "keyturn's batch", "of their sum"], lines)


def _about(module: object) -> str:
    """Return what a module says of itself."""
    return inspect.cleandoc(getattr(module, "__doc__", "") or "")


def page(
    peers: Sequence[Peer], cells: Cells, costs: Sequence[Cost], walls: Sequence[Wall], command: str
) -> str:
    """Return the sections that the command writes."""
    packages = sorted({peer.package for peer in peers} | set(_HOSTS), key=str.lower)
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    today = datetime.now(UTC).date().isoformat()
    wiring = [_about(module) for module in modules() if any(peer in module.PEERS for peer in peers)]
    parts = [
        f"`{command}`, on {today}, Python {platform.python_version()}: {versions}.",
        "## Beside other clients",
        _LEGEND,
        "```text\n" + _about(rows) + "\n```",
        _storms(peers, cells),
        "When there is nothing to be had: token calls · what the callers got · how long that took.",
        _failures(peers, cells),
        "How each was set up:",
        *wiring,
    ]
    for module, lines in (client_overhead, _overhead(costs)), (client_wall, _walls(walls)):
        if costs and walls:
            title, _, about = _about(module).partition("\n\n")
            parts += ["## " + title.rstrip("."), about.partition("\n\n")[2], lines]
    return "\n\n".join(parts)


def enter(text: str) -> None:
    """Put the sections between their markers in the documentation."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")

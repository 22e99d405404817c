"""keyturn beside other clients: one command, one run.

    uv run --group bench python -m benchmarks.peers --write

Every client does every row (see `rows`) in a process of its own, two at a
time; then what the auth layer costs a request and what 1,000 tasks take is
measured, with nothing beside it. `--write` puts the tables into
docs/benchmarks.md; `--quick` does keyturn's rows alone, and measures no time.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

from benchmarks import client_overhead, client_wall
from benchmarks.peers import cell, tables
from benchmarks.peers.catalogue import peers
from benchmarks.peers.peer import Peer
from benchmarks.peers.rows import ROWS, Result

_AT_ONCE = 2
_COMMAND = "uv run --group bench python -m benchmarks.peers --write"


def _cell(peer: Peer, row: str) -> Result | str:
    if ROWS[row].tasks_only and peer.kind != "tasks":
        return "—"
    try:
        result = cell.run(peer.name, row)
    except cell.NoResult as error:
        return str(error)
    sys.stderr.write(f"{peer.name} {row}: {result}\n")
    return result


def main() -> None:
    """Measure, and print or write the tables."""
    parser = argparse.ArgumentParser(description="keyturn beside other clients, on one strict server.")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    parser.add_argument("--quick", action="store_true", help="keyturn's rows alone")
    parser.add_argument("--library", help="the rows of one library alone")
    options = parser.parse_args()
    chosen = peers("keyturn" if options.quick else options.library)
    todo = [(peer, row) for peer in chosen for row in ROWS]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        results = pool.map(lambda one: _cell(*one), todo)
        cells = {(peer.name, row): result for (peer, row), result in zip(todo, results, strict=True)}
    whole = not options.quick and options.library is None
    costs, walls = (client_overhead.measure(), client_wall.measure()) if whole else ([], [])
    text = tables.page(chosen, cells, costs, walls, _COMMAND)
    if options.write:
        tables.enter(text)
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()

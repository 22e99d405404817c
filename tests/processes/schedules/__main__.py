"""The command: `python -m tests.processes.schedules --store file --schedules 1000`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time

from tests.processes.schedules.lanes import Played, Result, run
from tests.processes.schedules.steps import STORE_FAULTS
from tests.processes.stores import KINDS

_STRIKES = ("kill", "stop", "caught", "hold", "drop", "fail", "delay", *sorted(STORE_FAULTS))
_PEOPLE = ("sign_in", "sign_out", "revoke", "close", "start", "expire")


def main(arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    first = options.first if options.seed is None else options.seed
    seeds = [first] * options.repeat if options.seed is not None else range(first, first + options.schedules)
    began, done = time.monotonic(), 0

    def told(one: Played) -> None:
        nonlocal done
        done += 1
        if one.broken:
            replay = f"python -m tests.processes.schedules --store {options.store} --seed {one.seed}"
            _say(f"\n{'=' * 78}\n{one.report}\n\nreplay: {replay} --repeat 10\n{'=' * 78}")
        elif options.verbose:
            _say(f"\n{one.report}")
        if done % options.every == 0 or one.broken:
            _say(f"{done} of {len(seeds)}, {time.monotonic() - began:.0f} s")

    result = run(
        options.store,
        seeds,
        lanes=options.lanes,
        address=options.address,
        told=told,
        stop_after=options.stop_after,
    )
    _say(_table(options.store, result, time.monotonic() - began))
    return 1 if result.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.processes.schedules", description=__doc__)
    parser.add_argument("--store", choices=KINDS, required=True)
    parser.add_argument("--schedules", type=int, default=25, help="how many, with consecutive seeds")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--repeat", type=int, default=1, help="how often to replay it")
    parser.add_argument("--lanes", type=int, default=4, help="how many at a time")
    parser.add_argument("--every", type=int, default=25, help="print a running count after so many")
    parser.add_argument("--stop-after", type=int, default=10, help="give up after so many failures")
    parser.add_argument("--verbose", action="store_true", help="print each schedule, and what happened")
    parser.add_argument(
        "--address",
        default=os.environ.get("KEYTURN_SCHEDULES_STORE"),
        help="the URL of a shared store, which is then not restarted; by default each lane starts one",
    )
    return parser


def _table(store: str, result: Result, seconds: float) -> str:
    counts = result.counts
    rows = [
        ("schedules", counts["schedules"]),
        ("  strict, window 30 s, window 4 s", " + ".join(str(counts[f"window {w}"]) for w in (0, 30, 4))),
        ("steps", counts["steps"]),
        *[(f"  {verb}", counts[verb]) for verb in (*_STRIKES, *_PEOPLE) if counts[verb]],
        ("processes", counts["processes"]),
        ("exchanges", counts["exchanges"]),
        ("requests answered 200", counts["answered"]),
        ("signed in at the end", counts["signed in at the end"]),
        ("failures", len(result.failures)),
        ("failed seeds", " ".join(str(one.seed) for one in result.failures) or "-"),
        ("seconds", f"{seconds:.0f}"),
    ]
    return "\n".join([f"\n{store}", *(f"{name:40} {value:>14}" for name, value in rows)])


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - this is a command


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends the servers as well
    sys.exit(main(sys.argv[1:]))

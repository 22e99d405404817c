"""One client, one row, in a process of its own that ends within a hard limit.

python -m benchmarks.peers.cell keyturn/httpx2/tasks expired-50
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import subprocess
import sys

from benchmarks.peers.catalogue import peer
from benchmarks.peers.rows import Result, measure

LIMIT = 30.0  # seconds


class NoResult(Exception):
    """A client did not come to an end; the message says how."""


def run(name: str, row: str) -> Result:
    """Measure in a new process. Raises NoResult where it hangs or dies."""
    command = [sys.executable, "-m", "benchmarks.peers.cell", name, row]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, errors = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()  # its server ends with it
            process.communicate()
            raise NoResult("hangs") from None
    if process.returncode:
        raise NoResult("dies: " + (errors.strip().splitlines() or ["without a word"])[-1])
    return Result(**json.loads(out.splitlines()[-1]))


def main() -> None:
    """Measure what the command line names, and print it as JSON."""
    logging.disable(logging.CRITICAL)
    _, name, row = sys.argv
    sys.stdout.write(json.dumps(dataclasses.asdict(measure(peer(name), row))) + "\n")
    sys.stdout.flush()
    os._exit(0)  # some leave threads behind that nobody waits for


if __name__ == "__main__":
    main()

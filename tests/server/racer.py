"""One of several processes that race to advance one session: python racer.py FILE SID ROUNDS.

It says when it is ready, waits for a line, tries every counter in turn, and
prints those that it won.
"""

from __future__ import annotations

import sys

from keyturn.server.session_stores.sqlite import SQLiteStore


def main(path: str, sid: str, rounds: int) -> None:
    store = SQLiteStore(path, timeout=30)
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    for counter in range(rounds):
        if store.advance(sid, read=counter, to=counter + 1):
            print(counter)  # noqa: T201
    store.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

"""Start a flight and leave, in one way or another."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from keyturn.client import events
from keyturn.errors import RefreshTimeout
from tests.scenarios.programs import after_keyturn, credentials, given, outcome, say, told


def landed(event: events.Event) -> None:
    """Say how a flight ended."""
    if isinstance(event, events.Landing):
        say(f"event: {type(event).__name__}")


mine = credentials(url=given.get("token_url", given["url"]), on_event=landed)


def look_up(*_: object, **__: object) -> Any:
    """Stand in for a resolver that hangs."""
    say("looking up a name")
    while True:
        time.sleep(60)


def take_off(timeout: float | None) -> None:
    """Start a flight, or wait for it."""
    with contextlib.suppress(RefreshTimeout):
        mine.get_tokens(min_ttl=timedelta(hours=1), timeout=timeout)


def end() -> None:
    """Fall off the end."""


def leave() -> None:
    """Leave with a code of one's own."""
    sys.exit(3)


def fail() -> None:
    """Leave by an exception that nobody catches."""
    raise ZeroDivisionError


def leave_threads_waiting() -> None:
    """Leave with 10 threads waiting whom the interpreter waits for, and 10 whom it does not."""
    for i in range(20):
        threading.Thread(target=lambda: say(outcome(mine.get_tokens)), daemon=i % 2 == 0).start()
    sys.exit(3)


def leave_daemons_waiting() -> None:
    """Leave with 10 daemon threads waiting."""
    for _ in range(10):
        threading.Thread(target=lambda: outcome(mine.get_tokens), daemon=True).start()
    sys.exit(3)


def leave_tasks_waiting() -> None:
    """Leave a loop whose tasks wait."""

    async def main() -> None:
        waiting = [asyncio.create_task(mine.aget_tokens()) for _ in range(10)]
        await asyncio.sleep(0)
        assert not any(one.done() for one in waiting)
        sys.exit(3)

    asyncio.run(main())


def close() -> None:
    """Close, and use what is closed."""
    mine.close()
    say(f"closed: {outcome(mine.get_tokens)}")


ENDINGS: dict[str, Callable[[], None]] = {
    one.__name__: one
    for one in (end, leave, fail, leave_threads_waiting, leave_daemons_waiting, leave_tasks_waiting, close)
}

if "resolver" in given:
    socket.getaddrinfo = look_up
take_off(0.0)
if told() == "once stalled":
    take_off(None)  # which a token that is still good does no longer than to the first failure
    say("stalled")
atexit.register(lambda: say("leaving"))
after_keyturn.append("the interpreter goes on with its exit")
ENDINGS[given["ending"]]()

"""Leave with requests, not mere calls, under way: in daemon threads, at exit, in a pool."""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.scenarios.programs import after_keyturn, credentials, given, outcome, say, told

mine = credentials(
    on_event=lambda event: say("event: Refreshed") if type(event).__name__ == "Refreshed" else None
)


def request(name: str) -> None:
    """Send a request by a client of its own."""
    import httpx2

    from keyturn.client.httpx2 import Auth

    with httpx2.Client(base_url=given["url"], auth=Auth(mine), verify=False, trust_env=False) as api:
        say(f"{name}: {outcome(lambda: api.get('/x', timeout=60))}")


def in_daemon_threads() -> None:
    """Fall off the end while daemon threads wait."""
    for i in range(3):
        threading.Thread(target=request, args=[f"thread {i}"], daemon=True).start()
    told()


def at_exit() -> None:
    """Send the first request at exit, where no thread of Python's may have begun before."""
    atexit.register(lambda: request("at exit"))


def exit_in_a_pool() -> None:
    """Exit in a thread of a pool, which is an exception like any other there, while others wait."""

    def leave() -> None:
        sys.exit(3)

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(request, f"pool {i}") for i in range(3)]
        told()
        say(f"exit: {type(pool.submit(leave).exception()).__name__}")
        say("waiting" if not any(one.done() for one in waiting) else "too early")


WAYS: dict[str, Callable[[], None]] = {
    one.__name__: one for one in (in_daemon_threads, at_exit, exit_in_a_pool)
}
atexit.register(lambda: say("leaving"))
after_keyturn.append("the interpreter goes on with its exit")
WAYS[given["way"]]()

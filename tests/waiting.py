"""What tests of concurrency wait with: for a thread's result, for a condition, for company on a flight."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import keyturn

T = TypeVar("T")

WITHIN = 30.0


def start(work: Callable[[], T]) -> Future[T]:
    """Run `work` on a thread of its own."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again by `result`
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def until(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds; fail rather than hang."""
    ends = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < ends, "it never came to that"
        time.sleep(0.001)


def aboard(credentials: keyturn.Credentials) -> int:
    """Return how many callers wait for the flight in the air."""
    flight = credentials._flight
    return 0 if flight is None else flight.figures()["waiters"]

"""What tests of concurrency wait with: for a thread's result, for a condition, for company on a flight."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from typing import TypeVar

import keyturn
from keyturn.client import grants
from keyturn.testing import StrictServer

T = TypeVar("T")

WITHIN = 50.0  # seconds, after which a test has failed; nothing waits that long on purpose


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


def patient_oauth2(server: StrictServer) -> grants.OAuth2:
    """Return a grant for the strict server that outlasts whatever a test does while its exchange is held."""
    return grants.OAuth2(server.url + "/token", client_id="tests", timeout=timedelta(seconds=2 * WITHIN))


def aboard(credentials: keyturn.Credentials) -> int:
    """Return how many callers wait for the flight in the air."""
    flight = credentials._flight
    return 0 if flight is None else flight.figures()["waiters"]

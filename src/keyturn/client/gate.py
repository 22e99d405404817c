"""Gate: one event that threads, asyncio tasks of any loop, and trio tasks can all wait for.

A gate opens once. Who waits for it is woken in one go per event loop; a loop
that has closed in the meantime strands nobody else; a waiter that is
cancelled or times out leaves without a trace. Where gevent has patched
threads, those who block are greenlets, and are woken in one go per hub.

Turnstile is the lock that is built from gates: one caller at a time, in order
of arrival, across threads and loops.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from keyturn.client import native

if TYPE_CHECKING:
    import trio


class Gate:
    """A one-shot event. All methods may be called from any thread."""

    __slots__ = ("_lock", "_loops", "_open", "_signals", "_trios", "waiters")

    def __init__(self) -> None:
        self._lock = native.lock()
        self._open = False
        self._signals: dict[object, native.Signal] = {}
        self._loops: dict[asyncio.AbstractEventLoop, dict[asyncio.Future[None], None]] = {}
        self._trios: dict[trio.lowlevel.TrioToken, trio.Event] = {}
        self.waiters = 0

    @property
    def is_open(self) -> bool:
        """Tell whether the gate has opened."""
        return self._open

    def open(self) -> None:
        """Open the gate and wake everyone, once per loop. Opening it again does nothing."""
        with self._lock:
            if self._open:
                return
            self._open = True
            signals, loops, trios = self._signals, self._loops, self._trios
            self._signals, self._loops, self._trios = {}, {}, {}
        for signal in signals.values():
            signal.set()
        for loop, futures in loops.items():
            with contextlib.suppress(RuntimeError):  # that loop has closed
                loop.call_soon_threadsafe(_wake, futures)
        for token, event in trios.items():
            with contextlib.suppress(sys.modules["trio"].RunFinishedError):
                token.run_sync_soon(event.set)

    def wait(self, timeout: float | None = None) -> bool:
        """Block this thread until the gate opens, at most `timeout` seconds; tell whether it is open."""
        reached, make = native.signal()
        with self._lock:
            if self._open:
                return True
            if reached not in self._signals:
                self._signals[reached] = make()
            signal = self._signals[reached]
            self.waiters += 1
        try:
            return signal.wait(timeout)
        finally:
            self._leave()

    async def wait_async(self, timeout: float | None = None) -> bool:
        """Suspend this task until the gate opens, at most `timeout` seconds; tell whether it is open."""
        if _in_trio():
            await self._wait_in_trio(timeout)
        else:
            await self._wait_in_asyncio(timeout)
        return self._open

    async def _wait_in_asyncio(self, timeout: float | None) -> None:
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._open:
                return
            future: asyncio.Future[None] = loop.create_future()
            self._loops.setdefault(loop, {})[future] = None
            self.waiters += 1
        try:
            if timeout is None:
                await future
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await future
        finally:
            if not self._open:  # gave up; an open gate has forgotten everyone already, and is crowded
                with self._lock:
                    futures = self._loops.get(loop, {})
                    futures.pop(future, None)
                    if not futures:
                        self._loops.pop(loop, None)
                self._leave()

    async def _wait_in_trio(self, timeout: float | None) -> None:
        import trio

        with self._lock:
            if self._open:
                return
            token = trio.lowlevel.current_trio_token()
            event = self._trios.setdefault(token, trio.Event())
            self.waiters += 1
        try:
            with trio.move_on_after(float("inf") if timeout is None else timeout):
                await event.wait()
        finally:
            with self._lock:
                if not event.statistics().tasks_waiting:
                    self._trios.pop(token, None)
            self._leave()

    def _leave(self) -> None:
        if self._open:
            return
        with self._lock:
            if not self._open:  # an open gate keeps the count of those whom it woke
                self.waiters -= 1


class Patience:
    """A gate that nobody waits for longer than so many seconds, whether it opens or not."""

    __slots__ = ("_gate", "_seconds")

    def __init__(self, gate: Gate, seconds: float) -> None:
        self._gate, self._seconds = gate, seconds

    def wait(self) -> bool:
        """Block as `Gate.wait` does."""
        return self._gate.wait(self._seconds)

    async def wait_async(self) -> bool:
        """Suspend as `Gate.wait_async` does."""
        return await self._gate.wait_async(self._seconds)


def _wake(futures: Iterable[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def _in_trio() -> bool:
    in_trio_task = getattr(sys.modules.get("trio.lowlevel"), "in_trio_task", None)
    return in_trio_task is not None and in_trio_task()  # None also while another thread is importing it


class Turnstile:
    """Let one caller through at a time, in order of arrival.

    `enter` returns the gate to wait for, which is open if the way is free;
    `leave` must follow, also for a caller who gave up waiting.
    """

    __slots__ = ("_lock", "_queue")

    def __init__(self) -> None:
        self._lock = native.lock()
        self._queue: deque[Gate] = deque()

    @property
    def crowded(self) -> bool:
        """Tell whether anyone is in it, or waits for it."""
        return bool(self._queue)

    def enter(self) -> Gate:
        """Queue up and return this caller's gate."""
        gate = Gate()
        with self._lock:
            self._queue.append(gate)
            first = self._queue[0]
        first.open()
        return gate

    def leave(self, gate: Gate) -> None:
        """Let the next caller through, or give up one's place in the queue."""
        with self._lock:
            self._queue.remove(gate)
            first = self._queue[0] if self._queue else None
        if first is not None:
            first.open()

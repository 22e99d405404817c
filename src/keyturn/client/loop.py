"""The loop that every exchange runs on: one a process, keyturn's own.

An exchange must not depend on any caller: a caller's loop may be closed, its
task cancelled, its thread gone, while what is on the wire has already rotated
the token. So it runs on an asyncio loop of keyturn's, on a daemon thread that
is started on first use. It is a selector loop whatever the event loop policy
says, and it is never closed: it lives as long as the process, whatever a
callback raises.

At exit an exchange that was already sent is waited for, bounded by its own
time-out, and one that was not is given up; so nothing here runs on a thread
that the interpreter joins, as asyncio's own are. In a forked child the
parent's loop is left alone (its selector is shared with the parent; closing
it there would deafen the parent) and a new one is built on first use.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import functools
import logging
import os
import socket
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar, cast

from keyturn.client import native
from keyturn.clocks import monotonic
from keyturn.errors import RefreshError, RefreshUnavailable

T = TypeVar("T")
_LONGEST_END = 5.0  # seconds, which only a callback that blocks can take
logger = logging.getLogger("keyturn.client")


class Airborne(Protocol):
    """What is in the air: a flight, as the exit sees it."""

    @property
    def longest(self) -> float:
        """Return for how many seconds the exit waits for it."""
        ...

    def settle(self, timeout: float | None = None) -> bool:
        """Wait until it has landed, if it was sent; tell whether nothing is left in the air."""


class _Loop(asyncio.SelectorEventLoop):
    def __del__(self) -> None:
        """Say nothing: the loop lives as long as the process, and a child only inherits it."""

    def time(self) -> float:
        """Return seconds of a clock that nobody freezes: no wait would end by one that stands still."""
        return monotonic()

    async def getaddrinfo(self, *args: Any, **options: Any) -> Any:
        """Resolve a name on a daemon thread: a resolver that hangs must not hold the process at exit."""
        return await on_thread(functools.partial(socket.getaddrinfo, *args, **options), "keyturn-resolver")


_guard = native.lock()
_loop: _Loop | None = None
_thread: threading.Thread | None = None
_thread_ident: int | None = None
_ended = False
_in_air: dict[Airborne, asyncio.Task[None] | None] = {}
_last: list[Callable[[], None]] = []
_inherited: list[object] = []  # kept alive in a child, so that nothing of the parent's is finalized there
_reset_in_child: weakref.WeakSet[Forkable] = weakref.WeakSet()


class Forkable(Protocol):
    """What has locks and waiters that a forked child must not inherit."""

    def reset_after_fork(self) -> None:
        """Start anew in the child."""


def launch(
    flight: Airborne, coroutine: Callable[[], Coroutine[object, object, None]], context: contextvars.Context
) -> None:
    """Run `coroutine()` on keyturn's loop, in `context`, and keep `flight` in the air until it ends.

    Raises RefreshUnsupported or RefreshUnavailable where there is no thread for it.
    """
    loop = _running()
    _in_air[flight] = None

    def start() -> None:
        task = loop.create_task(coroutine(), context=context)
        _in_air[flight] = task
        task.add_done_callback(lambda _: _in_air.pop(flight, None))

    loop.call_soon_threadsafe(start, context=context)


def call(function: Callable[[], None]) -> None:
    """Call `function()` on keyturn's loop soon."""
    _running().call_soon_threadsafe(function, context=contextvars.Context())


async def on_thread(function: Callable[[], T], name: str) -> T:
    """Run `function()` on a daemon thread called `name`, in the current context; return what it returns.

    Raises what it raises, and RefreshUnsupported or RefreshUnavailable where no thread can be started.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[tuple[T | None, BaseException | None]] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: T | None, error: BaseException | None) -> None:
        if not outcome.done():  # timed out in the meantime
            outcome.set_result((result, error))

    def run() -> None:
        result, error = None, None
        try:
            result = context.run(function)
        except BaseException as raised:  # noqa: BLE001 - raised again below
            error = raised
        loop.call_soon_threadsafe(settle, result, error)

    native.start(run, name)
    result, raised = await outcome
    if raised is not None:
        raise raised
    return cast(T, result)


def is_started() -> bool:
    """Tell whether keyturn's loop runs."""
    return _loop is not None


def is_current() -> bool:
    """Tell whether this is keyturn's own thread, where nobody may block."""
    return _thread_ident == threading.get_ident()


def on_fork(what: Forkable) -> None:
    """Have `what.reset_after_fork()` called in every forked child for as long as it lives."""
    _reset_in_child.add(what)


def on_exit(last: Callable[[], None]) -> None:
    """Have `last()` called at exit, after what is in the air has landed, if the loop was ever started."""
    _last.append(last)


def _running() -> _Loop:
    global _loop, _thread
    if _loop is None:
        with _guard:
            if _ended:
                raise RefreshUnavailable("the interpreter is shutting down: no refresh any more", attempts=0)
            if _loop is None:
                loop = _Loop(native.selector())
                try:
                    _thread = native.start(functools.partial(_run_for_ever, loop), "keyturn")
                except RefreshError:
                    loop.close()
                    raise
                _loop = loop
    return _loop


def _run_for_ever(loop: _Loop) -> None:
    global _thread_ident
    _thread_ident = threading.get_ident()
    while not _ended:
        try:
            native.run(loop)
        except native.Copied:
            return
        except BaseException:  # asyncio lets SystemExit and KeyboardInterrupt through
            logger.exception("a callback tried to stop keyturn's loop")


def _settle_at_exit() -> None:
    flights = list(_in_air)
    for flight in flights:
        flight.settle(0.0)  # gives up what is not sent before anything is waited for
    began = monotonic()
    for flight in flights:  # all of them together as long as one alone
        flight.settle(max(0.0, flight.longest - (monotonic() - began)))
    if _loop is not None:
        for last in _last:
            last()
    if not native.in_main_interpreter():
        _end()


def _end() -> None:
    """Stop the loop and its thread: a subinterpreter that ended beside it would abort the process."""
    global _loop, _ended
    with _guard:
        _ended, loop, _loop = True, _loop, None
    if loop is not None and _thread is not None:
        loop.call_soon_threadsafe(loop.stop)
        _thread.join(_LONGEST_END)
        if not loop.is_running():
            loop.close()


def _start_anew_in_child() -> None:
    global _guard, _loop, _thread, _thread_ident, _in_air
    _inherited.append((_loop, _thread, _in_air))
    native.start_anew_in_child()
    _guard = native.lock()
    _loop = _thread = _thread_ident = None
    _in_air = {}
    for what in list(_reset_in_child):
        what.reset_after_fork()


atexit.register(_settle_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew_in_child)

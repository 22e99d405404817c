"""What keyturn runs on: threads, or greenlets where gevent has patched threads.

Under gevent everything of a thread shares its hub, and a lock of gevent's
that two threads contend for, as any logging handler has one, can hang both.
So keyturn's loop is a greenlet there, beside those of the application, in the
hub of the main thread, which outlasts the others. Three things need care:

- asyncio notes which loop is running once for the whole thread. keyturn's
  loop takes its note away whenever it lets others run, or every other greenlet
  would seem to be running inside of it.
- gevent copies all greenlets into a forked child, where they would go on with
  the exchange of the parent. There they end.
- A greenlet that waits for a refresh lets its hub go on, and can be woken from
  another thread. keyturn's own locks are the platform's, since nothing that
  holds one ever switches.

gevent is never imported here unless it has been already, and has patched.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import os
import selectors
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

from keyturn.errors import RefreshUnavailable, RefreshUnsupported

if TYPE_CHECKING:
    import gevent
    import gevent.hub

# What may have no threads at all: WebAssembly, in browsers and elsewhere.
_MAY_HAVE_NO_THREADS = {"emscripten", "wasi"}
_WAY_OUT = "sign in with tokens that were refreshed elsewhere (Credentials.sign_in)"

Hook = Callable[[AsyncGenerator[Any, Any]], None] | None
Notes = tuple[asyncio.AbstractEventLoop | None, tuple[Hook, Hook]]

_NOTHING: Notes = (None, (None, None))
_greenlets: weakref.WeakSet[gevent.Greenlet] = weakref.WeakSet()


class Signal(Protocol):
    """What a thread or greenlet waits for: the part of `threading.Event` that a gate needs."""

    def set(self) -> None:
        """Let go of everyone who waits; may be called from any thread."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most `timeout` seconds; tell whether it is set."""


def lock() -> threading.Lock:
    """Return a lock of the platform's. Hold it only where nothing can switch greenlets."""
    if not _patched():
        return threading.Lock()
    return cast("threading.Lock", sys.modules["gevent.monkey"].get_original("threading", "Lock")())


def signal() -> tuple[object, Callable[[], Signal]]:
    """Return whom a signal reaches that this caller can wait for, and how to make one.

    Callers to whom the same is returned can share a signal.
    """
    if not _patched():
        return None, threading.Event
    from gevent import get_hub

    hub = get_hub()
    return hub, lambda: _HubSignal(hub)


def start(function: Callable[[], None], name: str) -> threading.Thread | None:
    """Run `function()` on a daemon thread called `name`; return it, None where it is a greenlet.

    Raises RefreshUnsupported where none can ever be started, and
    RefreshUnavailable where none can be just now.
    """
    if _patched():
        _spawn(function)
        return None
    try:
        thread = threading.Thread(target=function, name=name, daemon=True)
        thread.start()
    except RuntimeError as error:
        raise _refusal(str(error)) from error
    return thread


class Copied(BaseException):
    """This greenlet is a copy that gevent has made in a forked child: it must not go on."""


def selector() -> selectors.BaseSelector:
    """Return a selector for keyturn's loop. Waiting with it raises Copied in a forked child."""
    return _selector_of_greenlets() if _patched() else selectors.DefaultSelector()


def run(loop: asyncio.SelectorEventLoop) -> None:
    """Run keyturn's loop until a callback ends it, which raises what the callback raised."""
    loop.run_forever()


def start_anew_in_child() -> None:
    """End, in a forked child, the greenlets that were copied from the parent."""
    for greenlet in list(_greenlets):
        greenlet.kill(block=False)
    _greenlets.clear()


def in_main_interpreter() -> bool:
    """Tell whether this is not a subinterpreter, which may not end while a thread of it runs."""
    for name in ("_interpreters", "_xxsubinterpreters"):
        with contextlib.suppress(ImportError):
            interpreters = importlib.import_module(name)
            return bool(interpreters.get_current() == interpreters.get_main())
    return True


def _refusal(said: str) -> RefreshUnavailable | RefreshUnsupported:
    """Return what it means that Python started no thread, and said so."""
    if "isolated" in said or "daemon threads are disabled" in said:
        return RefreshUnsupported(
            f"an isolated subinterpreter starts no thread of the kind that a refresh runs on: {_WAY_OUT}"
        )
    if sys.platform in _MAY_HAVE_NO_THREADS:
        return RefreshUnsupported(f"this Python starts no thread, which a refresh runs on: {_WAY_OUT}")
    if "shutdown" in said:
        return RefreshUnavailable("the interpreter is shutting down: no thread for a refresh", attempts=0)
    return RefreshUnavailable(
        "no thread can be started for a refresh just now, by a limit of the system's (ulimit -u, or the"
        " container's pids): raise it or run fewer threads; the next call tries again",
        attempts=0,
    )


# Where gevent has patched threads


def _patched() -> bool:
    is_patched = getattr(sys.modules.get("gevent.monkey"), "is_module_patched", None)
    return is_patched is not None and is_patched(
        "threading"
    )  # None also while another thread is importing it


def _spawn(function: Callable[[], None]) -> None:
    import gevent

    if not gevent.get_hub().main_hub:
        raise RefreshUnsupported(
            "under gevent refreshes run in the hub of the main thread: call get_tokens() there first"
        )
    greenlet = _greenlet()(function)  # not by threading, which would wait for it to have started
    _greenlets.add(greenlet)
    greenlet.start()


def _selector_of_greenlets() -> selectors.BaseSelector:
    from gevent.selectors import GeventSelector

    chosen: selectors.BaseSelector = GeventSelector()
    wait, process = chosen.select, os.getpid()

    def select(timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        try:
            return wait(timeout)
        finally:
            if os.getpid() != process:
                raise Copied

    chosen.select = select  # type: ignore[method-assign]  # the class is gevent's
    return chosen


@functools.cache
def _greenlet() -> type[gevent.Greenlet]:
    """Return the greenlets that keep asyncio's notes to themselves, wherever they switch to others."""
    import gevent

    class Noting(gevent.Greenlet):  # type: ignore[misc]  # gevent has no types
        notes = _NOTHING  # ours while others run, theirs while we do

        def switch(self, *args: Any) -> Any:
            self.notes = _swap(self.notes)
            return super().switch(*args)

        def throw(self, *args: Any) -> Any:
            self.notes = _swap(self.notes)
            return super().throw(*args)

        def switch_out(self) -> None:
            self.notes = _swap(self.notes)

        def run(self) -> None:
            try:
                super().run()
            finally:
                _swap(self.notes)

    return Noting


def _swap(notes: Notes) -> Notes:
    """Have asyncio's notes for this thread say something else; return what they said."""
    hooks = sys.get_asyncgen_hooks()
    before = asyncio._get_running_loop(), (hooks.firstiter, hooks.finalizer)
    asyncio._set_running_loop(notes[0])
    sys.set_asyncgen_hooks(*notes[1])
    return before


class _HubSignal:
    """A signal for the greenlets of one hub.

    Its watcher wakes the hub from another thread, and tells the hub that there
    is somebody to wake: it would otherwise take a lone waiter for a dead-lock.
    """

    def __init__(self, hub: gevent.hub.Hub) -> None:
        from gevent.event import Event

        self._loop = hub.loop
        self._event = Event()
        self._lock = lock()
        self._is_set = False
        self._waiting = 0

    def set(self) -> None:
        with self._lock:
            self._is_set = True
            if self._waiting:
                with contextlib.suppress(ValueError):  # that hub was destroyed
                    self._watcher.send()

    def wait(self, timeout: float | None = None) -> bool:
        with self._lock:
            if self._is_set:
                return True
            if not self._waiting:
                self._watcher = self._loop.async_()
                self._watcher.start(self._event.set)
            self._waiting += 1
        try:
            self._event.wait(None if timeout is None else max(0.0, timeout))
        finally:
            with self._lock:
                self._waiting -= 1
                if not self._waiting:
                    self._watcher.stop()
                    self._watcher.close()
        return self._is_set

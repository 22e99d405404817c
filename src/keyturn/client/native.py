"""Threads, locks and signals of the platform, whatever gevent has put in their place.

Where gevent has patched the standard library, a `threading.Thread` is a
greenlet of the thread that starts it. What keyturn runs must not be one:
asyncio notes which loop is running once for the whole thread, so every other
greenlet would seem to be inside keyturn's loop; a blocking call of the
application would stop a refresh in the middle; and a forked child, into which
gevent copies all greenlets, would go on with the exchange of its parent. So
keyturn's own threads are real ones, its locks, which are never held across
I/O, are real ones too, and who waits for a refresh waits as a greenlet does:
its hub goes on.

gevent is never imported here unless it is there already, and patched in.
"""

from __future__ import annotations

import contextlib
import importlib
import selectors
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

from keyturn.errors import RefreshUnavailable, RefreshUnsupported

if TYPE_CHECKING:
    import gevent.hub

# What may have no threads at all: WebAssembly, in browsers and elsewhere.
_MAY_HAVE_NO_THREADS = {"emscripten", "wasi"}
_WAY_OUT = "sign in with tokens that were refreshed elsewhere (Credentials.sign_in)"


class Signal(Protocol):
    """What a thread or greenlet waits for: the part of `threading.Event` that a gate needs."""

    def set(self) -> None:
        """Let go of everyone who waits; may be called from any thread."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most `timeout` seconds; tell whether it is set."""


def lock() -> threading.Lock:
    """Return a lock of the platform's. Hold it only where nothing can switch greenlets."""
    return cast("Callable[[], threading.Lock]", _original("threading", "Lock"))()


def thread_ident() -> int:
    """Return what tells this thread from all others, the same for all of its greenlets."""
    return cast("Callable[[], int]", _original("threading", "get_ident"))()


def selector() -> selectors.BaseSelector:
    """Return a selector that blocks its thread, not one that waits in a hub."""
    return cast("Callable[[], selectors.BaseSelector]", _original("selectors", "DefaultSelector"))()


def resolver() -> Callable[..., object]:
    """Return the `getaddrinfo` that blocks its thread."""
    return cast("Callable[..., object]", _original("socket", "getaddrinfo"))


def start(function: Callable[[], None], name: str) -> threading.Thread | None:
    """Run `function()` on a daemon thread called `name`; return the thread where it can be joined.

    Raises RefreshUnsupported where this interpreter starts no such thread,
    and RefreshUnavailable where it starts none just now.
    """
    try:
        if _patched("threading"):
            _start_beside_hubs(function)
            return None
        thread = threading.Thread(target=function, name=name, daemon=True)
        thread.start()
    except RuntimeError as error:
        raise _refusal(str(error)) from error
    return thread


def in_main_interpreter() -> bool:
    """Tell whether this is not a subinterpreter, which may not end while a thread of it runs."""
    for name in ("_interpreters", "_xxsubinterpreters"):
        with contextlib.suppress(ImportError):
            interpreters = importlib.import_module(name)
            return bool(interpreters.get_current() == interpreters.get_main())
    return True


def signal() -> tuple[object, Callable[[], Signal]]:
    """Return whom a signal reaches that this caller can wait for, and how to make one.

    Callers to whom the same is returned can share a signal.
    """
    if not _patched("threading"):
        return None, threading.Event
    from gevent import get_hub

    hub = get_hub()
    return hub, lambda: _HubSignal(hub)


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


def _start_beside_hubs(function: Callable[[], None]) -> None:
    from gevent import get_hub

    def run() -> None:
        try:
            function()
        finally:
            get_hub().destroy(destroy_loop=True)  # what blocked on this thread has made it one

    get_hub()  # the first of a process imports modules, and hangs if a second one does at the same time
    cast("Callable[..., int]", _original("_thread", "start_new_thread"))(run, ())


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


def _patched(module: str) -> bool:
    is_patched = getattr(sys.modules.get("gevent.monkey"), "is_module_patched", None)
    return is_patched is not None and is_patched(module)  # None also while another thread is importing it


def _original(module: str, name: str) -> object:
    if not _patched(module):
        return getattr(sys.modules[module], name)
    original: object = sys.modules["gevent.monkey"].get_original(module, name)
    return original

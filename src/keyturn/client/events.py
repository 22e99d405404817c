"""Events: what happened to credentials, as typed records without a secret in them.

They go to the callback that `Credentials(on_event=…)` was given, and to the
logger `keyturn.client`.

    SignedIn, SignedOut       an epoch begins, or ends on this side
    Refreshing                a flight takes off; exactly one landing follows
    ├── Refreshed             it brought a new pair
    ├── Loaded                it was the first, and looked for the tokens to begin with
    ├── Found                 another process had refreshed: the newer pair was in the store
    ├── Overtaken             it landed when nobody needed what it might bring
    ├── Ended                 the server refused the refresh token for good
    └── Failed                it brought nothing this time
    Waiting, Waited           one caller waits for a flight, and what came of that
    Adopted                   a newer pair came with a response, or another process saved one
    SaveFailed                a new pair could not be saved yet
    Replayed                  a refused request is sent again
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from keyturn.client import loop
from keyturn.errors import ConfigurationError, KeyturnError

logger = logging.getLogger("keyturn.client")

Result = Literal["renewed", "kept", "failed", "timed_out", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happened to the credentials called `name`, in which epoch, at which generation of it."""

    name: str | None
    epoch: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn(Event):
    """Somebody signed in, here or in another process: this epoch begins, and an earlier one is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedOut(Event):
    """This epoch is over: somebody signed out, or another process saw its end in a shared store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshing(Event):
    """A flight takes off to replace the tokens of this generation.

    `flight` is its number, unique in this process. Told on keyturn's thread,
    in the context of the flight: a context variable that the callback sets is
    seen by the exchange, and again by the callback when the flight lands.
    """

    flight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Landing(Event):
    """How a flight ended, the base of four events: each flight that took off is told by one of them.

    `waiters` counts the callers whom it woke, `duration` is in seconds,
    `attempts` counts the exchanges.
    """

    flight: int
    waiters: int
    duration: float
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed(Landing):
    """A flight brought a new pair; `generation` is the new one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded(Landing):
    """The first use loaded the tokens to begin with; `found` tells whether there were any."""

    found: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Landing):
    """Another process had refreshed: the newer pair, of this `generation`, was in the token store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overtaken(Landing):
    """A flight landed late: a newer pair, a sign-in, a sign-out or `close` was there before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(Landing):
    """The session is over; told once. `cause` is what every waiter was told."""

    cause: KeyturnError


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Landing):
    """A flight brought nothing; `cause` is what those of the `waiters` were told who could not go on."""

    cause: KeyturnError


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting(Event):
    """A caller who holds these tokens begins to wait for `flight`; told in his own thread and context."""

    flight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited(Event):
    """A caller's wait for `flight` is over after `duration` seconds; told where `Waiting` was.

    `result` is "renewed" (he has newer tokens), "kept" (he goes on with those
    that he held, as they are still valid), "failed", "timed_out" or
    "cancelled". `cause` is what the flight ended with, unless it brought
    something, and the RefreshTimeout where his own time ran out.
    """

    flight: int
    duration: float
    result: Result
    cause: KeyturnError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted(Event):
    """A newer pair was taken over: from a response, from whoever called `adopt`, or from another process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveFailed(Event):
    """A new pair could not be saved, for the `attempts`-th time.

    It is used here, kept in memory together with the lease, and saved as soon
    as the token store lets us. A process that ends before that loses it.
    """

    attempts: int
    cause: KeyturnError


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed(Event):
    """A refused request is sent again; `replays` counts how often by now."""

    replays: int


Callback = Callable[[Event], None]

# What comes once a request is for debugging, not for the log of a busy day.
_LEVELS = {
    SignedIn: logging.INFO,
    SignedOut: logging.INFO,
    Refreshing: logging.DEBUG,
    Refreshed: logging.INFO,
    Loaded: logging.DEBUG,
    Found: logging.INFO,
    Overtaken: logging.INFO,
    Ended: logging.WARNING,
    Failed: logging.WARNING,
    Waiting: logging.DEBUG,
    Waited: logging.DEBUG,
    Adopted: logging.DEBUG,
    SaveFailed: logging.WARNING,
    Replayed: logging.DEBUG,
}


class _Inside(threading.local):
    """Whether this thread is inside a callback."""

    callback = False


_inside = _Inside()


def check_callback(callback: object) -> None:
    """Raise ConfigurationError for what cannot be called with an event, or would have to be awaited."""
    if callback is None:
        return
    if isinstance(callback, type) or not callable(callback):
        raise ConfigurationError("on_event takes a callable, called with each event: on_event=Telemetry()")
    if any(map(inspect.iscoroutinefunction, (callback, type(callback).__call__))):
        raise ConfigurationError("on_event is called, not awaited: give it a plain function")


def heard(kind: type[Event], callback: Callback | None) -> bool:
    """Tell whether anybody would notice an event of this kind.

    How a callback itself waits is not told: it would be told of that, and wait again.
    """
    if callback is None and not logger.isEnabledFor(_LEVELS[kind]):
        return False
    return not _inside.callback or (kind is not Waiting and kind is not Waited)


def announce(event: Event, callback: Callback | None) -> None:
    """Log an event and hand it to the callback, whose exceptions are logged and go no further."""
    level = _LEVELS[type(event)]
    if logger.isEnabledFor(level):
        logger.log(level, "keyturn: %s", _sentence(event), extra={"event": event})
    if callback is not None:
        _hand(event, callback)


def to_all(*callbacks: Callback) -> Callback:
    """Return a callback that hands each event to all of `callbacks`, in this order, whichever fails."""

    def callback(event: Event) -> None:
        for one in callbacks:
            _hand(event, one)

    return callback


def _hand(event: Event, callback: Callback) -> None:
    outermost, _inside.callback = not _inside.callback, True
    try:
        callback(event)
    except BaseException as error:  # an exit would end keyturn's thread, not the process
        if not isinstance(error, Exception | SystemExit) and not loop.is_current():
            raise
        logger.exception("the on_event callback failed on %s", type(event).__name__)
    finally:
        _inside.callback = not outermost


def _sentence(event: Event) -> str:
    """Return "alice refreshed: epoch 00ff, generation 3, …: its cause"."""
    facts = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
    name, cause = facts.pop("name"), facts.pop("cause", None)
    told = ", ".join(
        f"{key} {round(value, 3) if isinstance(value, float) else value}" for key, value in facts.items()
    )
    verb = re.sub(r"\B(?=[A-Z])", " ", type(event).__name__).lower()
    return f"{'' if name is None else f'{name} '}{verb}: {told}{'' if cause is None else f': {_told(cause)}'}"


def _told(cause: KeyturnError) -> str:
    """Return what an error says, and where: the notes on it name the grant."""
    return " ".join([str(cause), *(f"({note})" for note in getattr(cause, "__notes__", ()))])

"""Events: what happened to credentials, as typed records without a secret in them.

They go to the callback that `Credentials(on_event=…)` was given, and to the
logger `keyturn.client`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from keyturn.errors import KeyturnError

logger = logging.getLogger("keyturn.client")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happened to the credentials called `name`, in which epoch, at which generation of it."""

    name: str | None
    epoch: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed(Event):
    """A flight brought a new pair to `waiters` callers after `duration` seconds and `attempts` requests."""

    waiters: int
    duration: float
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted(Event):
    """A newer pair was taken over from a response, or from whoever called `adopt`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed(Event):
    """A refused request is sent again; `replays` counts how often by now."""

    replays: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(Event):
    """The session is over; sent once. `cause` is what every waiter was told."""

    cause: KeyturnError


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Event):
    """A flight brought nothing; `cause` is what those of the `waiters` were told who could not go on."""

    cause: KeyturnError
    waiters: int
    duration: float
    attempts: int


Callback = Callable[[Event], None]

# A storm replays once a request: that is for debugging, not for the log of a busy day.
_LEVELS = {
    Refreshed: logging.INFO,
    Adopted: logging.DEBUG,
    Replayed: logging.DEBUG,
    Ended: logging.WARNING,
    Failed: logging.WARNING,
}


def announce(event: Event, callback: Callback | None) -> None:
    """Log an event and hand it to the callback, whose exceptions are logged and go no further."""
    level = _LEVELS[type(event)]
    if logger.isEnabledFor(level):
        cause = getattr(event, "cause", None)
        logger.log(
            level,
            "keyturn: %s%s: epoch %s, generation %d%s",
            "" if event.name is None else f"{event.name} ",
            type(event).__name__.lower(),
            event.epoch,
            event.generation,
            "" if cause is None else f": {cause}",
            extra={"event": event},
        )
    if callback is not None:
        try:
            callback(event)
        except (Exception, SystemExit):  # an exit would end keyturn's thread, not the process
            logger.exception("the on_event callback failed on %s", type(event).__name__)

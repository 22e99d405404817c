"""What happened to a session, as frozen records: for a callback, and for the log.

None of them holds a token, a secret or a claim.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from keyturn.server.session import EndedWhy

_log = logging.getLogger("keyturn.server")


@dataclass(frozen=True, slots=True)
class Started:
    """Somebody signed in."""

    sid: str
    subject: str
    client: str | None


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The session was rotated to `generation`."""

    sid: str
    subject: str
    generation: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """A refresh was answered without a rotation.

    With `successor` the token was the one before, shown by somebody who was
    late or lost an answer; `recovered` tells that it took the recovery lease.
    Without, it was the current one, younger than the window.
    """

    sid: str
    subject: str
    generation: int
    successor: bool
    recovered: bool


@dataclass(frozen=True, slots=True)
class Reused:
    """A superseded refresh token came back, `behind` rotations old: theft, or a client that forgets."""

    sid: str
    subject: str
    generation: int
    behind: int


@dataclass(frozen=True, slots=True)
class MovedForward:
    """A genuine token was ahead of the store, which must have lost `lost` rotations."""

    sid: str
    subject: str
    generation: int
    lost: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over."""

    sid: str
    subject: str
    why: EndedWhy


Event: TypeAlias = Started | Refreshed | Replayed | Reused | MovedForward | Ended

_LEVELS: dict[type[Event], int] = {
    Started: logging.INFO,
    Refreshed: logging.DEBUG,
    Replayed: logging.DEBUG,
    Reused: logging.WARNING,
    MovedForward: logging.WARNING,
    Ended: logging.INFO,
}


class Announcer:
    """Tells a callback and the log. A callback that fails is logged and disturbs nobody."""

    def __init__(self, callback: Callable[[Event], None] | None) -> None:
        self._callback = callback

    def tell(self, event: Event) -> None:
        """Announce `event` to the log and to the callback."""
        level = _LEVELS[type(event)]
        if _log.isEnabledFor(level):
            _log.log(level, "%s", event)
        if self._callback is None:
            return
        try:
            self._callback(event)
        except Exception:  # noqa: BLE001 - whatever it is, it is theirs and not the session's
            _log.exception("on_event failed for a %s", type(event).__name__)

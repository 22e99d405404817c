"""The rules of refresh, as one pure decision: (session, token, now, policy) -> verdict.

Rule 1: every rule about when a refresh token is good stands in this file.
Whoever asks only carries the verdict out.

Rule 2: nothing here reads a clock, a store or a key. The token is known to
be genuine before it gets here, and `now` is the store's.

In this order, and the first that holds decides:

    there is no such session                      refuse: unknown
    it was ended                                  refuse: ended
    it is at or past its absolute limit           refuse: expired
    it was not rotated for its idle limit         refuse: idle
    it belongs to another client                  refuse: wrong client
    it is bound to another key                    refuse: wrong key

and then the counter. W is the window, and the age is the time since the last
rotation, never below 0 (clocks step back). A window is fixed from the
rotation: using it does not prolong it. With W = 0 nothing is ever younger
than W, so that the current token always advances and any other is reuse.

    the token's counter is
    the row's, no rotation younger than W         advance by one
    the row's, and a rotation younger than W      the same again: at most one rotation a window,
                                                  or a thief who rotates often enough stays for ever
    one behind, a rotation younger than W         replay: the same successor
    one behind, inside the recovery lease         replay: a lost answer costs nobody a session
    behind otherwise                              reuse: this session, and only it, is ended
    ahead, by at most `max_ahead`                 move forward: the store lost its last writes
    ahead otherwise                               refuse: too far ahead

The recovery lease is for clients that can prove who they are. It is over
when its time is, when the successor was itself refreshed (then the token is
two behind), or when an access token of the successor's generation was seen:
each shows that the answer was not lost.

Every verdict but a refusal names the counter that was read. It may be
carried out only if the row still has that counter and is not ended; if not,
somebody else was faster: read again and decide again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeAlias

from keyturn.errors import ConfigurationError
from keyturn.server.session import Session


@dataclass(frozen=True, slots=True)
class Rotation:
    """The policy of a rotation.

    `window` is how long after a rotation the token that it replaced is
    answered with the same successor; 0 is strict single use. `recovery` is
    how long a lost answer can be asked for again, None for never; it must be
    longer than the window. `max_ahead` is how many rotations a store may
    have lost.

    Raises ConfigurationError for arguments that cannot work.
    """

    window: timedelta = timedelta(seconds=10)
    recovery: timedelta | None = None
    max_ahead: int = 32

    def __post_init__(self) -> None:
        if not _span(self.window) or self.window < timedelta(0):
            raise ConfigurationError("Rotation.window must be a timedelta, 0 or longer")
        if self.recovery is not None and (not _span(self.recovery) or self.recovery <= self.window):
            raise ConfigurationError("Rotation.recovery must be None or a timedelta longer than the window")
        if type(self.max_ahead) is not int or self.max_ahead < 0:
            raise ConfigurationError("Rotation.max_ahead must be an int, 0 or more")


def _span(value: object) -> bool:
    return isinstance(value, timedelta)


@dataclass(frozen=True, slots=True)
class Presented:
    """What a genuine refresh token says, and who shows it.

    `authenticated` tells that the client proved to be `client`. `key` is the
    thumbprint of the DPoP key that was proved (RFC 9449 §5).
    """

    counter: int
    client: str | None = None
    authenticated: bool = False
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Advance:
    """Move the row from `read` to `to`, one further; its token is the new one."""

    read: int
    to: int


@dataclass(frozen=True, slots=True)
class MoveForward:
    """Move the row from `read` to `to`, past the writes that the store lost."""

    read: int
    to: int


@dataclass(frozen=True, slots=True)
class SameAgain:
    """Hand out the row's own token again, with a new access token."""

    read: int


@dataclass(frozen=True, slots=True)
class Replay:
    """Hand out the row's own token to one who shows its predecessor."""

    read: int
    recovered: bool = False


@dataclass(frozen=True, slots=True)
class Reuse:
    """End this session, and only it: a superseded token came back, `behind` rotations old."""

    read: int
    behind: int


Reason: TypeAlias = Literal[
    "unknown", "ended", "expired", "idle", "wrong_client", "wrong_key", "too_far_ahead"
]


@dataclass(frozen=True, slots=True)
class Refuse:
    """Refuse, and change nothing."""

    reason: Reason


Verdict: TypeAlias = Advance | MoveForward | SameAgain | Replay | Reuse | Refuse


def decide(session: Session | None, token: Presented, now: float, policy: Rotation) -> Verdict:
    """Return what is to be done with a genuine refresh token (RFC 6749 §6, RFC 9700 §4.14.2).

    `session` is the row as read, `now` the store's time in POSIX seconds.
    """
    if session is None:
        return Refuse("unknown")
    if session.ended_at is not None:
        return Refuse("ended")
    if now >= session.expires_at:
        return Refuse("expired")
    if now >= session.limit:
        return Refuse("idle")
    if session.client is not None and token.client != session.client:
        return Refuse("wrong_client")
    if session.key is not None and token.key != session.key:
        return Refuse("wrong_key")

    read = session.counter
    ahead = token.counter - read
    in_window = _younger(session, now, policy.window)
    if ahead == 0:
        return SameAgain(read) if in_window else Advance(read, read + 1)
    if ahead == -1 and in_window:
        return Replay(read)
    if ahead == -1 and _recoverable(session, token, now, policy):
        return Replay(read, recovered=True)
    if ahead < 0:
        return Reuse(read, behind=-ahead)
    if ahead <= policy.max_ahead:
        return MoveForward(read, token.counter + 1)
    return Refuse("too_far_ahead")


def _younger(session: Session, now: float, than: timedelta) -> bool:
    if session.rotated_at is None:
        return False
    return max(0.0, now - session.rotated_at) < than.total_seconds()


def _recoverable(session: Session, token: Presented, now: float, policy: Rotation) -> bool:
    if policy.recovery is None or not _younger(session, now, policy.recovery):
        return False
    if session.seen_generation >= session.counter:
        return False
    return session.key is not None or (session.client is not None and token.authenticated)

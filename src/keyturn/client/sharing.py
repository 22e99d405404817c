"""What the holder of a lease does about a record: a pure decision.

    there is no record                              ABSENT: the seed's turn, or the store has lost it
    a tombstone                                     OVER
    another version than ours, its token is valid   ADOPT
    a marker that counts, inside the replay window  SPEND again what was first sent then
    a marker that counts, later, or nobody's guess  UNKNOWN, unless somebody insists
    otherwise                                       SPEND

A marker counts while epoch, generation and fingerprint are the record's: then
a holder has sent this very refresh token, or was about to, and nobody wrote
down what came of it. Where a refresh token can be used again, none is left.
All times are in seconds of the store's clock.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from keyturn.client.record import Marker, Record, Version

_BACKWARDS = 1.0  # a clock that goes back further cannot tell how old a marker is


class Move(enum.Enum):
    """What to do."""

    ABSENT = "absent"
    OVER = "over"
    ADOPT = "adopt"
    SPEND = "spend"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A move; `first_sent` is when an earlier holder sent the token that is to be spent, None if none did.

    `doubt` is the marker of that sending, also where it is passed over
    because somebody insists. It stands again if nothing is sent in the end.
    """

    move: Move
    first_sent: float | None = None
    doubt: Marker | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What a grant says of its server: whether it rotates, and for how long it answers a retry."""

    rotates: bool
    window: float

    @property
    def margin(self) -> float:
        """Return the end of the window that is left unused: a retry must also arrive inside it."""
        return min(1.0, self.window / 10)

    def is_open(self, first_sent: float, now: float) -> bool:
        """Tell whether the server still answers what was first sent then."""
        age = now - first_sent
        return self.window > 0 and age >= -_BACKWARDS and max(0.0, age) + self.margin <= self.window

    def lease(self, timeout: float) -> float:
        """Return for how long a lease lasts that does not die with its holder.

        It outlasts an exchange; where there is a window it ends well inside
        it, so that whoever finds the marker can still save the session.
        """
        return min(timeout + 5.0, self.window * 0.6) if self.window else timeout + 5.0


def decide(
    record: Record | None,
    *,
    held: Version | None,
    spends: str | None,
    now: float,
    rules: Rules,
    insists: bool = False,
    unsent: Marker | None = None,
) -> Verdict:
    """Return what whoever holds the lease does.

    `held` is the version of the tokens that are to be renewed, None before
    the first use; `spends` the fingerprint of the record's refresh token;
    `insists` says that somebody asked for a retry whatever it may cost;
    `unsent` is a marker of this process's own, after which it sent nothing.
    """
    if record is None:
        return Verdict(Move.ABSENT)
    if record.ended is not None:
        return Verdict(Move.OVER)
    if record.version != held and is_valid(record, now):
        return Verdict(Move.ADOPT)
    marker = record.marker
    if marker is None or not rules.rotates or not counts(marker, record, spends):
        return Verdict(Move.SPEND)
    if marker == unsent and not rules.window:  # with one, a later holder may have sent under the same marker
        return Verdict(Move.SPEND)
    if rules.is_open(marker.at, now):
        return Verdict(Move.SPEND, marker.at, marker)
    return Verdict(Move.SPEND, doubt=marker) if insists else Verdict(Move.UNKNOWN)


def counts(marker: Marker, record: Record, spends: str | None) -> bool:
    """Tell whether a marker is about the pair that the record holds."""
    return (marker.epoch, marker.generation, marker.fingerprint) == (*record.version, spends)


def is_valid(record: Record, now: float) -> bool:
    """Tell whether the record's access token has not expired."""
    return record.expires_at is None or record.expires_at > now

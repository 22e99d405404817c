"""When to refresh: pure functions of time.

From what is left of a token's life it lies in one of three zones.

    fresh       attach and go: no lock, no waiting
    advisory    attach and go, while one refresh runs in the background
    mandatory   everyone waits for the one refresh

The windows scale with the lifetime, are stretched by a jitter that is drawn
once per token (so that a fleet that signed in together does not refresh
together), and never reach back past half of the lifetime. A token that nobody
gave an expiry is always fresh: the server's refusal is what tells.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_ADVISORY_SHARE, _ADVISORY_MOST = 0.2, 300.0
_MANDATORY_SHARE, _MANDATORY_MOST = 0.05, 30.0
_STRETCH = 0.5
_BACKOFF_FIRST, _BACKOFF_MOST = 0.25, 30.0
_LONGEST_RETRY_AFTER = 3600.0


class Zone(enum.Enum):
    """What is left of a token's life, as a rule of conduct."""

    FRESH = "fresh"
    ADVISORY = "advisory"
    MANDATORY = "mandatory"


@dataclass(frozen=True, slots=True)
class Plan:
    """When a token's zones begin, in POSIX seconds; infinity for never."""

    advisory_at: float
    mandatory_at: float
    expires_at: float

    def zone(self, now: float, min_ttl: float = 0.0) -> Zone:
        """Return the zone at `now` for a caller who needs at least `min_ttl` seconds of life."""
        if now >= self.mandatory_at or self.expires_at - now < min_ttl:
            return Zone.MANDATORY
        return Zone.ADVISORY if now >= self.advisory_at else Zone.FRESH


def plan(expires_at: float | None, lifetime: float | None, now: float, jitter: float) -> Plan:
    """Return the plan of a token that is taken up at `now`; `jitter` is in [0, 1).

    Without a known lifetime (a seed), what is left at `now` stands in for it.
    """
    if expires_at is None:
        return Plan(math.inf, math.inf, math.inf)
    life = max(0.0, expires_at - now if lifetime is None else lifetime)
    stretch = 1.0 + _STRETCH * jitter
    advisory = min(min(life * _ADVISORY_SHARE, _ADVISORY_MOST) * stretch, life / 2)
    mandatory = min(min(life * _MANDATORY_SHARE, _MANDATORY_MOST) * stretch, advisory)
    return Plan(expires_at - advisory, expires_at - mandatory, expires_at)


def backoff(failures: int, jitter: float) -> float:
    """Return how many seconds to wait after the given count of failures in a row; `jitter` is in [0, 1)."""
    ceiling = min(_BACKOFF_MOST, _BACKOFF_FIRST * 2.0 ** min(failures - 1, 16))
    return ceiling * (0.5 + 0.5 * jitter)


def retry_after(value: str | None, date: str | None, now: float) -> float | None:
    """Return the seconds that a `Retry-After` header asks for (RFC 9110 §10.2.3), None where it says nothing.

    A date is taken relative to the answer's own `Date`, so that a wrong clock
    does no harm. What asks for more than an hour is taken as an hour.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value), _LONGEST_RETRY_AFTER)
    until = _http_date(value)
    if until is None:
        return None
    base = _http_date(date) if date is not None else None
    return min(max(0.0, until - (now if base is None else base)), _LONGEST_RETRY_AFTER)


def _http_date(value: str) -> float | None:
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return datetime.timestamp(moment)
    except (ValueError, OverflowError):
        return None

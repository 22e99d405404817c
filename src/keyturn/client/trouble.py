"""Trouble: what failed refreshes mean for the callers to come."""

from __future__ import annotations

from keyturn.client.schedule import backoff
from keyturn.errors import KeyturnError, OutcomeUnknown, RefreshMisconfigured, RefreshUnavailable


class Trouble:
    """The failures since the last success, without I/O; times are in POSIX seconds.

    An unknown outcome stands until somebody overrides it. A refusal of our
    configuration is repeated without a request for a while. `Retry-After` is
    honoured by every later refresh; a short silence is kept beyond that as
    long as there are tokens to go on with.
    """

    __slots__ = ("_failures", "_misconfigured", "_not_before", "_quiet_until", "unknown")

    def __init__(self) -> None:
        self.unknown: OutcomeUnknown | None = None
        self._misconfigured: RefreshMisconfigured | None = None
        self._failures = 0
        self._not_before = self._quiet_until = 0.0

    def note(self, error: KeyturnError, now: float) -> None:
        """Remember a failure."""
        self._failures += 1
        self._quiet_until = now + backoff(self._failures, 1.0)
        if isinstance(error, OutcomeUnknown):
            self.unknown = error
        elif isinstance(error, RefreshMisconfigured):
            self._misconfigured = error
        elif isinstance(error, RefreshUnavailable) and error.retry_after is not None:
            self._not_before = now + error.retry_after

    def is_recent(self, now: float) -> bool:
        """Tell whether a failure is so recent that whoever can do without a refresh should."""
        return now < self._quiet_until

    def is_over(self, now: float) -> bool:
        """Tell whether there is nothing to remember: no unknown outcome, nobody to be left alone."""
        return self.unknown is None and now >= self._quiet_until and now >= self._not_before

    def obstacle(self, now: float, patience: float) -> KeyturnError | None:
        """Return what a refresh would end with if it were tried now, None where it is worth trying."""
        if self.unknown is not None:
            return self.unknown
        if self._misconfigured is not None and now < self._quiet_until:
            return self._misconfigured
        if self._not_before - now > patience:
            return RefreshUnavailable(
                "the refresh end point asked to be left alone", retry_after=self._not_before - now, attempts=0
            )
        return None

    def pause(self, now: float) -> float:
        """Return the seconds that the next refresh must wait first."""
        return max(0.0, self._not_before - now)

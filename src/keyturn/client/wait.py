"""Wait: how long one flight waits, for a token store that is down, or for whoever holds the lease."""

from __future__ import annotations

import asyncio
import random

from keyturn.client import schedule
from keyturn.clocks import monotonic
from keyturn.errors import TokenStoreUnavailable

TRIES = 10


class Wait:
    """The waiting of one flight.

    `since` is when the wait for a holder began, by the store's clock.
    """

    def __init__(self, patience: float, timeout: float) -> None:
        self._began, self._patience, self._timeout = monotonic(), patience, timeout
        self._failures = self._turns = 0
        self.since: float | None = None

    @property
    def is_long(self) -> bool:
        """Tell whether an exchange would have ended by now."""
        return monotonic() - self._began > self._timeout

    def count(self, found: object) -> None:
        """Note how a turn with the lease ended. Raises TokenStoreUnavailable after too many."""
        self._turns += 1
        if found is None and self._turns > TRIES:
            raise TokenStoreUnavailable("the token store's record changes faster than it can be read")

    async def out(self, error: TokenStoreUnavailable) -> None:
        """Wait before the store is asked again. Raises the error once patience has run out."""
        self._failures += 1
        wait = schedule.backoff(self._failures, random.random())  # noqa: S311 - spreads load, guards nothing
        if monotonic() + wait - self._began > self._patience:
            raise error
        await asyncio.sleep(wait)

    def check(self) -> None:
        """Raise TokenStoreUnavailable where a holder takes longer than a refresh can."""
        if monotonic() - self._began > self._patience + self._timeout:
            raise TokenStoreUnavailable("another process holds the lease for longer than a refresh takes")

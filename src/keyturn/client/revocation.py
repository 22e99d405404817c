"""Revocation: the token store and the server are told of a sign-out (RFC 7009).

As a flight it belongs to nobody and runs on keyturn's loop. A refresh that
was on its way when somebody signed out is waited for: the pair that it brings
is the one to revoke. Nothing here can undo the sign-out in this process; what
the server fails at is logged, what the store fails at is raised.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable

from keyturn.client import events, loop
from keyturn.client.flight import Flight, aboard
from keyturn.client.gate import Gate
from keyturn.client.grants.grant import Revoking
from keyturn.errors import KeyturnError, RefreshTimeout
from keyturn.tokens import Tokens

_LONGEST_BURIAL = 10.0  # seconds, beside waiting for an exchange


class Revocation:
    """One sign-out that others are told of.

    `bury` leaves a tombstone in the token store, and returns the tokens that
    were there, which may be newer than ours.
    """

    def __init__(
        self,
        grant: Revoking | None,
        tokens: Tokens | None,
        flight: Flight | None,
        *,
        bury: Callable[[], Awaitable[Tokens | None]] | None,
        name: str | None,
        timeout: float,
    ) -> None:
        self._grant, self._tokens, self._flight, self._name = grant, tokens, flight, name
        self._timeout, self._bury = timeout, bury
        self._error: KeyturnError | None = None
        self._over = Gate()

    def take_off(self) -> None:
        """Start, on keyturn's loop."""
        loop.launch(self, self._run, contextvars.Context())

    def settle(self, timeout: float | None = None) -> bool:
        """Wait for both to be told, by default as long as that can take; tell whether that is over.

        Nobody waits where that would be for oneself: on keyturn's thread, and in the grant.
        """
        if self._is_own_wait():
            return self._over.is_open
        return self._over.wait(self.longest if timeout is None else timeout)

    async def settle_async(self, timeout: float | None = None) -> bool:
        """Await what `settle` does."""
        if self._flight in aboard.get():
            return self._over.is_open
        return await self._over.wait_async(self.longest if timeout is None else timeout)

    def raise_for_store(self) -> None:
        """Raise what kept the token store from being told, RefreshTimeout where it is still being told."""
        if self._error is not None:
            raise self._error.again()
        if self._bury is not None and not self._over.is_open and not self._is_own_wait():
            raise RefreshTimeout("signed out here; telling the others took too long, and goes on")

    def _is_own_wait(self) -> bool:
        """Tell whether whoever waited would wait for himself: on keyturn's thread, or in the grant."""
        return loop.is_current() or self._flight in aboard.get()

    @property
    def longest(self) -> float:
        """Return how many seconds it can take."""
        told = self._timeout + (0.0 if self._flight is None else self._flight.longest)
        return told if self._bury is None else told + self._timeout + _LONGEST_BURIAL

    async def _run(self) -> None:
        tokens = self._tokens
        try:
            if self._flight is not None:
                await self._flight.settle_async()
                tokens = self._flight.brought or tokens
            if self._bury is not None:
                tokens = await self._buried(self._bury) or tokens
            if self._grant is not None and tokens is not None:
                async with asyncio.timeout(self._timeout):
                    await self._grant.revoke(tokens)
        except Exception as error:  # noqa: BLE001 - a grant of the user's own raises what it likes
            what = (
                f"{type(error).__name__}: {error}"
                if isinstance(error, KeyturnError)
                else type(error).__name__
            )
            events.logger.warning(
                "keyturn: %ssigned out here, but not at the server: %s", self._prefix(), what
            )
        finally:
            self._over.open()

    async def _buried(self, bury: Callable[[], Awaitable[Tokens | None]]) -> Tokens | None:
        try:
            return await bury()
        except KeyturnError as error:
            self._error = error
            return None

    def _prefix(self) -> str:
        return "" if self._name is None else f"{self._name} "

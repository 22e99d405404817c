"""Revocation: the server is told of a sign-out (RFC 7009).

As a flight it belongs to nobody and runs on keyturn's loop. A refresh that
was on its way when somebody signed out is waited for: the pair that it brings
is the one to revoke. Nothing here can undo the sign-out; what fails is logged.
"""

from __future__ import annotations

import asyncio
import contextvars

from keyturn.client import events, loop
from keyturn.client.flight import Flight, aboard
from keyturn.client.gate import Gate
from keyturn.client.grants.grant import Revoking
from keyturn.errors import KeyturnError
from keyturn.tokens import Tokens


class Revocation:
    """One sign-out that the server is told of."""

    def __init__(
        self,
        grant: Revoking,
        tokens: Tokens | None,
        flight: Flight | None,
        *,
        name: str | None,
        timeout: float,
    ) -> None:
        self._grant, self._tokens, self._flight, self._name = grant, tokens, flight, name
        self._timeout = timeout
        self._over = Gate()

    def take_off(self) -> None:
        """Start, on keyturn's loop."""
        loop.launch(self, self._run, contextvars.Context())

    def settle(self, timeout: float | None = None) -> bool:
        """Wait for the server to be told, by default as long as that can take; tell whether that is over.

        Nobody waits where that would be for oneself: on keyturn's thread, and in the grant.
        """
        if loop.is_current() or self._flight in aboard.get():
            return self._over.is_open
        return self._over.wait(self._longest if timeout is None else timeout)

    async def settle_async(self, timeout: float | None = None) -> bool:
        """Await what `settle` does."""
        if self._flight in aboard.get():
            return self._over.is_open
        return await self._over.wait_async(self._longest if timeout is None else timeout)

    @property
    def _longest(self) -> float:
        return self._timeout + (0.0 if self._flight is None else self._flight.longest)

    async def _run(self) -> None:
        tokens = self._tokens
        try:
            if self._flight is not None:
                await self._flight.settle_async()
                tokens = self._flight.brought or tokens
            if tokens is not None:
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

    def _prefix(self) -> str:
        return "" if self._name is None else f"{self._name} "

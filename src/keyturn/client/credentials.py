"""Credentials: one signed-in principal's tokens, kept fresh.

The public face: each call takes a ticket, which says what there is to wait
for, and ends in a driver, one blocking and one awaiting. Who is given what is
decided in `keyturn.client.state`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta
from types import TracebackType
from typing import Self

from keyturn.client import events
from keyturn.client.carriers import Carrier
from keyturn.client.flight import Clock
from keyturn.client.grants import Function, Grant, grant_of
from keyturn.client.origins import Origin, parse_origins, spelled
from keyturn.client.snapshot import Snapshot
from keyturn.client.state import REPLACED, State
from keyturn.client.token_stores import check_store
from keyturn.errors import ConfigurationError, CredentialsClosed, SessionEnded
from keyturn.tokens import Tokens

_MOST_STRAYS = 32


class Credentials(State):
    """One principal's tokens, refreshed once however many callers need them.

    All methods may be called from any thread, task, asyncio or trio loop; an
    `a…` twin awaits where the plain method blocks. `timeout` is in seconds
    and bounds this caller's wait only.

    Args:
        grant: how a new pair is bought: one of `keyturn.client.grants`, or a
            callable `(tokens, http) -> Tokens`.
        tokens: the pair to start with; without one, `sign_in` first.
        origins: where the tokens may go, as in `["https://api.example"]`.
        carrier: how they ride on a request; the grant's own unless given.
        store: where they are kept; `memory://` keeps them in this process.
        name: what events and logs call these credentials.
        on_event: called with each event (`keyturn.client.events`), on
            keyturn's thread or on that of the request that it is about, after
            those who waited were woken; it must not block.
        retry_for: how long a refresh that cannot be sent is tried again.
        clock: POSIX seconds, for tests.

    Raises ConfigurationError for arguments that cannot work.
    """

    def __init__(
        self,
        grant: Grant | Function,
        *,
        origins: Iterable[str],
        tokens: Tokens | None = None,
        carrier: Carrier | None = None,
        store: str = "memory://",
        name: str | None = None,
        on_event: events.Callback | None = None,
        retry_for: timedelta = timedelta(seconds=30),
        clock: Clock = time.time,
    ) -> None:
        check_store(store)
        if tokens is not None and not isinstance(tokens, Tokens):
            raise ConfigurationError("tokens must be a keyturn.Tokens(access=…, refresh=…, expires_at=…)")
        if not isinstance(retry_for, timedelta):
            raise ConfigurationError("retry_for must be a datetime.timedelta")
        if carrier is not None and not hasattr(carrier, "attach"):
            raise ConfigurationError(
                "carrier must be one of keyturn.client.Bearer and Cookies, or of their shape"
            )
        chosen = grant_of(grant)
        self.origins: frozenset[Origin] = parse_origins(origins)
        self._strays: set[str] = set()
        super().__init__(
            chosen,
            chosen.carrier if carrier is None else carrier,
            tokens,
            name=name,
            on_event=on_event,
            patience=retry_for.total_seconds(),
            clock=clock,
        )

    def __repr__(self) -> str:
        current = self._current
        state = (
            "not signed in" if current is None else f"epoch {current.epoch}, generation {current.generation}"
        )
        return f"<Credentials {self.name or ''}{' ' if self.name else ''}{self._grant!r}, {state}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("Credentials cannot be pickled: create them in the process that uses them")

    def strayed(self, destination: str) -> None:
        """Warn, once an origin, of a request without tokens: a wrong `origins` shows in nothing else."""
        if destination not in self._strays and len(self._strays) < _MOST_STRAYS:
            self._strays.add(destination)
            ours = spelled(self.origins)
            events.logger.warning("keyturn: no token goes to %s: origins=%s", destination, ours)

    def get_tokens(self, min_ttl: timedelta | None = None, timeout: float | None = None) -> Snapshot:
        """Return tokens that live for at least `min_ttl` more, after one refresh if need be.

        A server that grants less than `min_ttl` costs one refresh and is then
        taken at its word. Raises NotSignedIn, SessionEnded, or a RefreshError
        where the tokens at hand have expired; RefreshTimeout after `timeout`.
        """
        return self.ticket(min_ttl).wait(timeout)

    async def aget_tokens(self, min_ttl: timedelta | None = None, timeout: float | None = None) -> Snapshot:
        """Await what `get_tokens` returns."""
        return await self.ticket(min_ttl).wait_async(timeout)

    def renew(self, rejected: Snapshot, timeout: float | None = None) -> Snapshot:
        """Report that a server refused `rejected`; return what takes its place.

        If newer tokens of the same sign-in are here already, they are the
        answer; otherwise the one refresh is started or joined. Raises as
        `get_tokens`, and SessionEnded for tokens of an earlier sign-in.
        """
        return self.refusal_ticket(rejected).wait(timeout)

    async def arenew(self, rejected: Snapshot, timeout: float | None = None) -> Snapshot:
        """Await what `renew` returns."""
        return await self.refusal_ticket(rejected).wait_async(timeout)

    def retry_unknown(self, timeout: float | None = None) -> Snapshot:
        """Send the refresh token again after an OutcomeUnknown, though the server may take it for theft."""
        return self.retry_ticket().wait(timeout)

    async def aretry_unknown(self, timeout: float | None = None) -> Snapshot:
        """Await what `retry_unknown` returns."""
        return await self.retry_ticket().wait_async(timeout)

    def sign_in(self, tokens: Tokens) -> None:
        """Start a new epoch with `tokens`. Who waited under the old one gets SessionEnded, "replaced"."""
        if not isinstance(tokens, Tokens):
            raise ConfigurationError("sign_in takes a keyturn.Tokens(access=…, refresh=…, expires_at=…)")
        self.begin_epoch(Snapshot.first(tokens, self._clock()), SessionEnded(REPLACED, reason="replaced"))

    async def asign_in(self, tokens: Tokens) -> None:
        """Await what `sign_in` does."""
        self.sign_in(tokens)

    def sign_out(self) -> None:
        """Forget the tokens. Callers get SessionEnded, reason "signed_out", until the next sign-in."""
        self.begin_epoch(None, SessionEnded("signed out: sign in again", reason="signed_out"))

    async def asign_out(self) -> None:
        """Await what `sign_out` does."""
        self.sign_out()

    async def aadopt(self, tokens: Tokens, carried: Snapshot) -> bool:
        """Await what `adopt` does."""
        return self.adopt(tokens, carried)

    def close(self, timeout: float | None = None) -> None:
        """Wait for an exchange that was sent (by default as long as it can take), then refuse further use.

        Raises ReentrantRefresh where nobody may wait: in the grant, and on keyturn's own thread.
        """
        flight = self.closing(blocking=True)
        try:
            if flight is not None:
                flight.settle(timeout)
        finally:
            self.begin_epoch(None, CredentialsClosed("these credentials are closed"))

    async def aclose(self, timeout: float | None = None) -> None:
        """Await what `close` does."""
        flight = self.closing(blocking=False)
        try:
            if flight is not None:
                await flight.settle_async(timeout)
        finally:
            self.begin_epoch(None, CredentialsClosed("these credentials are closed"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.aclose()

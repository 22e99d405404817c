"""Credentials: one signed-in principal's tokens, kept fresh.

The public face: each call takes a ticket, which says what there is to wait
for, and ends in a driver, one blocking and one awaiting. Who is given what is
decided in `keyturn.client.state`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import cast

from keyturn.client import events, loop
from keyturn.client.carriers import Carrier
from keyturn.client.closing import Closing
from keyturn.client.entry import Entry
from keyturn.client.errand import Errand
from keyturn.client.flight import Clock, aboard
from keyturn.client.grants import Function, Grant, grant_of
from keyturn.client.grants.grant import Revoking
from keyturn.client.keeper import Keeper
from keyturn.client.origins import parse_origins
from keyturn.client.revocation import Revocation
from keyturn.client.sealing import Sealing
from keyturn.client.seed import Seed, Seeded, check_loader
from keyturn.client.snapshot import Snapshot
from keyturn.client.state import REPLACED
from keyturn.client.token_stores import MEMORY, check_shared
from keyturn.client.traffic import Traffic
from keyturn.clocks import monotonic, now
from keyturn.errors import ConfigurationError, CredentialsClosed, SessionEnded
from keyturn.tokens import Tokens


class Credentials(Traffic, Closing):
    """One principal's tokens, refreshed once however many callers need them.

    All methods may be called from any thread, task, asyncio or trio loop; an
    `a…` twin awaits where the plain method blocks. `timeout` is in seconds
    and bounds this caller's wait only.

    Args:
        grant: how a new pair is bought: one of `keyturn.client.grants`, or a
            callable `(tokens, http) -> Tokens`.
        tokens: the pair to start with, or a callable without arguments that
            loads it at the first use: `() -> Tokens | None`, plain (on a thread
            of keyturn's) or async (on keyturn's loop). Without one, `sign_in`
            first; a grant that signs in by itself (`ClientCredentials`) needs
            none.
        origins: where the tokens may go, as in `["https://api.example"]`.
        carrier: how they ride on a request; the grant's own unless given.
        store: where they are kept; `memory://` keeps them in this process, any
            other URL of `keyturn.client.token_stores` shares them with all
            processes that use the same `name` there. `tokens` are a seed then:
            used if the store has no record of that name.
        name: what events and logs call these credentials, and what a shared
            store knows them by: one refresh token has one name.
        reseed: whether a seed that differs from the one which the name began
            with takes the place of what the store has.
        encryption_keys: Fernet keys, oldest to newest, for a shared store.
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
        tokens: Tokens | Seed | None = None,
        carrier: Carrier | None = None,
        store: str = "memory://",
        name: str | None = None,
        reseed: bool = False,
        encryption_keys: Sequence[str | bytes] | None = None,
        on_event: events.Callback | None = None,
        retry_for: timedelta = timedelta(seconds=30),
        clock: Clock = now,
    ) -> None:
        shared = store != MEMORY
        check_shared(store, name, reseed=reseed, keys=encryption_keys)
        if not isinstance(tokens, Tokens | None):
            if not callable(tokens):
                raise ConfigurationError(
                    "tokens must be a keyturn.Tokens(access=…, refresh=…, expires_at=…), or what loads one"
                )
            check_loader(tokens)
        if not isinstance(retry_for, timedelta):
            raise ConfigurationError("retry_for must be a datetime.timedelta")
        events.check_callback(on_event)
        if carrier is not None and (isinstance(carrier, type) or not hasattr(carrier, "attach")):
            raise ConfigurationError(
                "carrier must be one of keyturn.client.Bearer and Cookies, or of their shape"
            )
        chosen = grant_of(grant)
        opening = None if shared else _opening(chosen, tokens)
        first = Snapshot.awaited() if shared or opening is not None else None
        if isinstance(tokens, Tokens) and not shared:
            first = Snapshot.first(tokens, clock())
        self.origins, self._strays = parse_origins(origins), set()
        super().__init__(
            chosen,
            chosen.carrier if carrier is None else carrier,
            first,
            opening=opening,
            name=name,
            on_event=on_event,
            patience=retry_for.total_seconds(),
            clock=clock,
        )
        if name is not None and shared:
            self._keeper = Keeper(
                Entry(store, name, Sealing.of(() if encryption_keys is None else encryption_keys), clock),
                chosen,
                self,
                seed=tokens if isinstance(tokens, Tokens | None) else Seeded(chosen, tokens),
                reseed=reseed,
                patience=self._patience,
            )

    def __repr__(self) -> str:
        current = self._current
        if current is None:
            state = "not signed in"
        elif current.is_awaited:
            state = "not used yet"
        else:
            state = f"epoch {current.epoch}, generation {current.generation}"
        return f"<Credentials {self.name or ''}{' ' if self.name else ''}{self._grant!r}, {state}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("Credentials cannot be pickled: create them in the process that uses them")

    def get_tokens(self, min_ttl: timedelta | None = None, timeout: float | None = None) -> Snapshot:
        """Return tokens that live for at least `min_ttl` more, after one refresh if need be.

        A server that grants less than `min_ttl` costs one refresh and is then
        taken at its word. Raises NotSignedIn, SessionEnded, or a RefreshError
        where the tokens at hand have expired; RefreshTimeout after `timeout`.
        """
        began, ticket = monotonic(), self.ticket(min_ttl)
        found = ticket.wait(timeout)
        if min_ttl is None or not ticket.is_looked_up:
            return found
        return self.ticket(min_ttl).wait(_left(timeout, began))

    async def aget_tokens(self, min_ttl: timedelta | None = None, timeout: float | None = None) -> Snapshot:
        """Await what `get_tokens` returns."""
        began, ticket = monotonic(), self.ticket(min_ttl)
        found = await ticket.wait_async(timeout)
        if min_ttl is None or not ticket.is_looked_up:
            return found
        return await self.ticket(min_ttl).wait_async(_left(timeout, began))

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

    def sign_in(self, tokens: Tokens, timeout: float | None = None) -> None:
        """Start a new epoch with `tokens`. Who waited under the old one gets SessionEnded, "replaced".

        In a shared store it is a sign-in for every process, which waits for a
        refresh that is on its way. Raises TokenStoreUnavailable where the
        store cannot be told; then nothing has changed.
        """
        signing_in = self._signing_in(tokens)
        if signing_in is not None:
            signing_in.result(timeout)

    async def asign_in(self, tokens: Tokens, timeout: float | None = None) -> None:
        """Await what `sign_in` does."""
        signing_in = self._signing_in(tokens)
        if signing_in is not None:
            await signing_in.result_async(timeout)

    def _signing_in(self, tokens: Tokens) -> Errand[None] | None:
        if not isinstance(tokens, Tokens):
            raise ConfigurationError("sign_in takes a keyturn.Tokens(access=…, refresh=…, expires_at=…)")
        first = Snapshot.first(tokens, self._clock())
        keeper, flight = self._keeper, self.in_the_air()
        if keeper is None:
            self.begin_epoch(first, SessionEnded(REPLACED, reason="replaced"))
            return None
        own = flight is not None and flight in aboard.get()
        if flight is not None and not own:
            flight.give_way()
        errand = Errand(functools.partial(keeper.sign_in, first, may_wait=not own), longest=keeper.longest)
        errand.take_off()
        return errand

    def sign_out(self, timeout: float | None = None) -> None:
        """Forget the tokens. Callers get SessionEnded, reason "signed_out", until the next sign-in.

        A grant with a `revoke_url` also tells the server (RFC 7009), which is
        waited for, by default as long as it can take; a failure is logged and
        changes nothing here. In a shared store it is a sign-out for every
        process. Raises TokenStoreUnavailable where the store cannot be told:
        then this process alone is signed out, and goes on trying to tell it.
        """
        revocation = self._signing_out()
        if revocation is not None:
            revocation.settle(timeout)
            revocation.raise_for_store()

    async def asign_out(self, timeout: float | None = None) -> None:
        """Await what `sign_out` does."""
        revocation = self._signing_out()
        if revocation is not None:
            await revocation.settle_async(timeout)
            revocation.raise_for_store()

    def _signing_out(self) -> Revocation | None:
        over = SessionEnded("signed out: sign in again", reason="signed_out")
        old, flight = self.begin_epoch(None, over, leaves=True)
        keeper, given = self._keeper, self._grant
        grant = given if isinstance(given, Revoking) and given.revokes else None
        nothing_to_revoke = grant is None or (old is None and flight is None)
        if isinstance(self._absence, CredentialsClosed) or (nothing_to_revoke and keeper is None):
            return None
        bury = None
        if keeper is not None:
            may_wait = flight is None or flight not in aboard.get()
            bury = functools.partial(keeper.end, None if old is None else old.epoch, may_wait=may_wait)
        revocation = Revocation(grant, old, flight, bury=bury, name=self.name, timeout=given.timeout)
        revocation.take_off()
        return revocation

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
            leaving = self._leaving()
            if leaving is not None and not loop.is_current():
                leaving.settle(timeout)

    async def aclose(self, timeout: float | None = None) -> None:
        """Await what `close` does."""
        flight = self.closing(blocking=False)
        try:
            if flight is not None:
                await flight.settle_async(timeout)
        finally:
            leaving = self._leaving()
            if leaving is not None:
                await leaving.settle_async(timeout)

    def _leaving(self) -> Errand[None] | None:
        self.begin_epoch(None, CredentialsClosed("these credentials are closed"))
        return None if self._keeper is None else self._keeper.close()


def _left(timeout: float | None, began: float) -> float | None:
    return None if timeout is None else max(0.0, timeout - (monotonic() - began))


def _opening(grant: Grant, tokens: object) -> Grant | None:
    """Return the grant of the first flight, where credentials begin without tokens."""
    if isinstance(tokens, Tokens):
        return None
    if tokens is not None:
        return Seeded(grant, cast(Seed, tokens))
    return grant if getattr(grant, "signs_in", False) else None

"""Keeper: one refresh across processes and hosts, by a record and a lease.

A flight of credentials in a shared store goes through here:

    take the lease          or wait until somebody else has saved, or failed
    read the record again   what is newer is adopted, and nothing is sent
    write the marker        found later, it tells of a holder that died
    exchange
    save                    by compare-and-set on epoch and generation
    release                 which wakes the others

What the record means is decided in `keyturn.client.sharing`. A save that
fails keeps the pair in memory and the lease, and is tried again for as long
as the process lives. A refusal ends the session only if the record still
holds the token that was refused.
"""

from __future__ import annotations

import asyncio
import functools
import random
from contextlib import suppress

from keyturn.client import events, schedule
from keyturn.client.entry import Entry, Seen, failure_of, is_behind, over, spends
from keyturn.client.errand import Errand, unforeseen
from keyturn.client.flight import Flight
from keyturn.client.grants import Grant
from keyturn.client.lookout import Holder, Lookout
from keyturn.client.record import Version, fingerprint
from keyturn.client.seed import Seeded
from keyturn.client.sharing import Move, decide, is_valid
from keyturn.client.snapshot import Snapshot
from keyturn.client.token_stores import Lease
from keyturn.clocks import monotonic
from keyturn.errors import KeyturnError, NotSignedIn, OutcomeUnknown, SessionEnded, TokenStoreUnavailable
from keyturn.tokens import Tokens

_TRIES = 10
_AFTER_LOSS = 0.3  # seconds, for others to write back what they have that is newer
_LONGEST_NOTE, _LONGEST_SAVE = 3.0, 5.0


class Keeper(Lookout):
    """One name in a shared store, for one `Credentials`. Its coroutines run on keyturn's loop."""

    def __init__(
        self,
        entry: Entry,
        grant: Grant,
        holder: Holder,
        *,
        seed: Tokens | Seeded | None,
        reseed: bool,
        patience: float,
    ) -> None:
        self._seed, self._reseed, self._patience = seed, reseed, patience
        self._signs_in = bool(getattr(grant, "signs_in", False))
        self._starts = True  # nothing was found out about this name yet
        super().__init__(entry, grant, holder)

    def reset_after_fork(self) -> None:
        """Start anew in a forked child: the leases, the saves and the watching are the parent's."""
        super().reset_after_fork()
        self._saving: Errand[None] | None = None
        self._hurry = asyncio.Event()

    async def _settle(self) -> None:
        """Wait for what is to be saved, as long as that may take."""
        if self._saving is not None:
            self._hurry.set()
            await self._saving.settle_async()

    @property
    def is_settled(self) -> bool:
        """Tell whether all that is held here is in the store as well."""
        return self._saving is None

    # A flight

    async def renew(self, flight: Flight) -> Snapshot | None:
        """Return newer tokens than the flight carries, from the store or bought; None once nobody needs them.

        Raises what stands in the way: SessionEnded, NotSignedIn, or a RefreshError.
        """
        began, failures, turns = monotonic(), 0, 0
        waiting_since: float | None = None  # by the store's clock
        self._watch()
        while flight.needed():
            try:
                await self._let_a_save_end(flight)
                turns += 1
                found, seen = await self._turn(flight, waiting_since)
                if found is not None:
                    self._starts = False
                    return found
                if seen is not None:
                    waiting_since = seen.store_now if waiting_since is None else waiting_since
                    _raise_failure(seen, waiting_since)
                elif turns < _TRIES:  # it was our turn, and the record had changed
                    continue
                await self._pause()
            except TokenStoreUnavailable:
                failures += 1
                wait = schedule.backoff(failures, random.random())  # noqa: S311 - spreads load, guards nothing
                if monotonic() + wait - began > self._patience:
                    raise
                flight.stalled.open()
                await asyncio.sleep(wait)
            except (KeyturnError, asyncio.CancelledError):
                raise
            except Exception as error:  # noqa: BLE001 - a driver raises what it likes, and a flight must land
                raise unforeseen(error) from None
            waited = monotonic() - began
            if waited > self._grant.timeout:
                flight.stalled.open()
            if waited > self._patience + self._grant.timeout:
                raise TokenStoreUnavailable("another process holds the lease for longer than a refresh takes")
        return None

    async def _turn(self, flight: Flight, since: float | None) -> tuple[Snapshot | None, Seen | None]:
        """Try once. Return what was found or bought; else what was seen while another holds the lease.

        `since` is when the wait for that other began, by the store's clock.
        """
        self._changed.clear()
        if self._starts and flight.carried.is_awaited and not self._reseed:
            found = self._newer(await self._read(), flight.carried)
            if found is not None:
                return found, None
        lease = await self._lease()
        if lease is None:
            seen = await self._read()
            return self._newer(seen, flight.carried), seen
        try:
            return await self._holding(lease, flight, since), None
        finally:
            if self._saving is None:  # which releases it when it is done
                await asyncio.shield(lease.release())

    def _newer(self, seen: Seen, carried: Snapshot) -> Snapshot | None:
        """Return what was seen if it can take the place of what is carried. Raises SessionEnded."""
        record = seen.record
        if (
            record is None
            or (self._starts and self._signs_in and record.ended)
            or record.epoch == self._ended
        ):
            return None
        if record.ended is not None:
            self._starts = False
            raise over(record)
        return seen.tokens if record.version != _version(carried) and is_valid(record, seen.now()) else None

    async def _holding(self, lease: Lease, flight: Flight, since: float | None) -> Snapshot | None:
        """Do what whoever holds the lease does; None if the record has changed since it was read."""
        seen = await self._agreed(flight)
        if since is not None:
            _raise_failure(seen, since)
        verdict = decide(
            seen.record,
            held=_version(flight.carried),
            spends=spends(seen),
            now=seen.now(),
            rules=self._rules,
            insists=flight.insists,
        )
        record = seen.record
        if record is None or (verdict.move is Move.OVER and self._starts and self._signs_in):
            return await self._begin(seen, lease, flight)
        if record.ended is not None:
            self._starts = False
            raise over(record)
        if verdict.move is Move.UNKNOWN:
            raise OutcomeUnknown(
                "a process sent the refresh token, or was about to, and did not live to tell what came of it;"
                " it is not sent again unasked: sign in, or retry_unknown()"
            )
        if verdict.move is Move.ADOPT:
            return seen.tokens
        return await self._spend(seen, verdict.first_sent, lease, flight)

    async def _agreed(self, flight: Flight) -> Seen:
        """Return the record, once what is held here, a seed included, stands in it where it should."""
        for _ in range(_TRIES):
            seen, own = await self._read(), self._own()
            record = seen.record
            if record is not None and not record.ended and record.epoch == self._ended:
                await self._entry.bury("signed_out", seen)
            elif own is not None and record is None:
                if self._rules.rotates and not self._entry.store.notifies and not flight.insists:
                    raise OutcomeUnknown(
                        "the token store has lost the record, and another process may have spent this"
                        " refresh token; it is not sent unasked: sign in, or retry_unknown()"
                    )
                if await self._entry.save(own, seen) and self._rules.rotates:
                    await asyncio.sleep(_AFTER_LOSS)
            elif own is not None and record is not None and is_behind(record, own):
                await self._entry.save(own, seen)
            elif not await self._plant(seen):
                return seen
        raise TokenStoreUnavailable("the token store's record changes faster than it can be read")

    async def _plant(self, seen: Seen) -> bool:
        """Write the seed, if it is its turn; tell whether the record has to be read again."""
        record = seen.record
        if not self._starts or self._seed is None or not (record is None or self._reseed):
            return False
        seed = await self._seed.load() if isinstance(self._seed, Seeded) else self._seed
        mark = fingerprint(seed.refresh or seed.access)
        if record is not None and record.seed == mark:
            return False
        await self._entry.save(Snapshot.first(seed, self._entry.clock()), seen, seed=mark)
        self._starts = False
        return True

    async def _begin(self, seen: Seen, lease: Lease, flight: Flight) -> Snapshot | None:
        """Buy the first pair of all, where the grant can."""
        if not self._signs_in:
            self._starts = False
            raise NotSignedIn("the token store knows of no tokens: sign in first")
        pair = await flight.buy(flight.carried)
        return (
            None if pair is None else await self._save(Snapshot.first(pair, self._entry.clock()), seen, lease)
        )

    async def _spend(
        self, seen: Seen, first_sent: float | None, lease: Lease, flight: Flight
    ) -> Snapshot | None:
        """Exchange the record's tokens for the next ones, and save these."""
        tokens = seen.tokens
        if tokens is None or (self._grant.needs_refresh_token and tokens.refresh is None):
            raise NotSignedIn("there is no refresh token: sign in again")
        marked = await self._entry.mark(seen, first_sent, lease) if self._rules.rotates else seen
        if marked is None or not lease.held:
            return None
        age = None if first_sent is None else max(0.0, seen.now() - first_sent)
        try:
            pair = await flight.buy(tokens, sent_ago=age)
        except SessionEnded as error:
            if await self._is_refused(marked):
                raise
            events.logger.info("keyturn: %s, but another process has newer tokens", error)
            return None
        except BaseException as error:
            await self._note(marked, error, lease, spent=flight.sent or isinstance(error, OutcomeUnknown))
            raise
        if pair is None:
            await self._note(marked, None, lease, spent=age is not None)
            return None
        return await self._save(tokens.next(pair, self._entry.clock()), marked, lease)

    async def _is_refused(self, sent: Seen) -> bool:
        """End the session if the record still holds the token that was refused; tell whether it does."""
        seen = await self._read()
        return (
            seen.version == sent.version
            and spends(seen) == spends(sent)
            and await self._entry.bury("refused", seen)
        )

    async def _note(self, marked: Seen, error: BaseException | None, lease: Lease, *, spent: bool) -> None:
        """Write down how an exchange failed, as far as the store lets us."""
        told = error if isinstance(error, KeyturnError) else None
        if not self._rules.rotates and told is None:
            return
        with suppress(KeyturnError, TimeoutError):
            async with asyncio.timeout(_LONGEST_NOTE):
                await self._entry.fail(marked, told, lease, spent=spent)

    # Saving

    async def _save(self, tokens: Snapshot, over: Seen, lease: Lease) -> Snapshot | None:
        """Save a pair; None if the record is newer by now. A save that fails goes on, with the lease."""
        try:
            return tokens if await self._entry.save(tokens, over) else None
        except KeyturnError as error:
            self._told_of(error, tokens, 1)
            work = functools.partial(self._save_at_last, tokens, over, lease)
            self._saving = Errand(work, longest=_LONGEST_SAVE)
            self._saving.take_off()
            return tokens

    async def _save_at_last(self, tokens: Snapshot, over: Seen, lease: Lease) -> None:
        attempts = 1
        try:
            while True:
                self._hurry.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(schedule.backoff(attempts, random.random())):  # noqa: S311
                        await self._hurry.wait()
                attempts += 1
                try:
                    await self._entry.save(tokens, over)
                    break
                except KeyturnError as error:
                    self._told_of(error, tokens, attempts)
        finally:
            self._saving = None
            await asyncio.shield(lease.release())
        await self.look()

    async def _let_a_save_end(self, flight: Flight) -> None:
        """Wait for an earlier pair to be saved: until then the record is behind, and the lease taken."""
        saving = self._saving
        if saving is not None:
            self._hurry.set()
            flight.stalled.open()
            if not await saving.settle_async(1.0):
                raise TokenStoreUnavailable("the last tokens could not be saved yet")

    def _told_of(self, error: KeyturnError, tokens: Snapshot, attempts: int) -> None:
        holder = self._holder()
        if holder is not None:
            holder.announce(events.SaveFailed, tokens, cause=error, attempts=attempts)


def _version(carried: Snapshot) -> Version | None:
    return None if carried.is_awaited else (carried.epoch, carried.generation)


def _raise_failure(seen: Seen, since: float) -> None:
    """Raise what the refresh came to that was waited for, if it came to nothing."""
    failure = None if seen.record is None else seen.record.failure
    if failure is not None and failure.at >= since:
        raise failure_of(failure, seen.now())

"""Keeper: one refresh across processes and hosts, by a record and a lease.

A flight of credentials in a shared store goes through here:

    take the lease          or wait until somebody else has saved, or failed
    read the record again   what is newer is adopted, and nothing is sent
    write the marker        found later, it tells of a holder that died
    exchange
    save                    by compare-and-set on epoch and generation
    release                 which wakes the others

What the record means is decided in `keyturn.client.sharing`. A refusal ends
the session only if the record still holds the token that was refused.
"""

from __future__ import annotations

import asyncio

from keyturn.client import events
from keyturn.client.entry import Entry, Seen, failure_of, is_behind, over, spends
from keyturn.client.errand import unforeseen
from keyturn.client.flight import Flight
from keyturn.client.grants import Grant
from keyturn.client.lookout import Holder
from keyturn.client.record import Marker, Record, Version, fingerprint
from keyturn.client.saver import Saver
from keyturn.client.seed import Seeded
from keyturn.client.sharing import Move, Verdict, decide, is_valid
from keyturn.client.snapshot import Snapshot
from keyturn.client.token_stores import Lease
from keyturn.client.wait import TRIES, Wait
from keyturn.errors import KeyturnError, NotSignedIn, OutcomeUnknown, SessionEnded, TokenStoreUnavailable
from keyturn.tokens import Tokens

_AFTER_LOSS = 0.3  # seconds, for others to write back what they have that is newer
_LONGEST_NOTE = 3.0


class Keeper(Saver):
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
        super().__init__(entry, grant, holder)

    async def look(self) -> None:
        """Do as any lookout, but not while the seed is to take the place of what it would find."""
        if not (self._starts and (self._reseed or self._signs_in)):
            await super().look()

    # A flight

    async def renew(self, flight: Flight) -> Snapshot | None:
        """Return newer tokens than the flight carries, from the store or bought; None once nobody needs them.

        Raises what stands in the way: SessionEnded, NotSignedIn, or a RefreshError.
        """
        self._watch()
        wait = Wait(self._patience, self._grant.timeout)
        try:
            while flight.needed():
                try:
                    async with self._place.open():  # though it is closed meanwhile
                        found = await self._turn(flight, wait)
                except TokenStoreUnavailable as error:
                    flight.stalled.open()
                    await wait.out(error)
                else:
                    if found is not None:
                        self._starts = False
                        return found
                    if wait.is_long:
                        flight.stalled.open()
        except (KeyturnError, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - nothing is foreseen, and a flight must land
            raise unforeseen(error) from None
        finally:
            self._waits -= wait.since is not None
        return None

    async def _turn(self, flight: Flight, wait: Wait) -> Snapshot | None:
        """Try once. Return what was found or bought; None, after a pause, while another holds the lease."""
        await self._let_a_save_end(flight)
        self._changed.clear()
        seen = await self._read()
        found = self._newer(seen, flight.carried)
        if found is not None:
            return found
        if wait.since is not None:
            _raise_failure(seen, wait.since)
        await self._heed(seen, flight)
        lease = await self._lease()
        if lease is None:
            if wait.since is None:
                wait.since = seen.store_now
                self._waits += 1
            wait.check()
            await self._pause()
            return None
        try:
            found = await self._holding(lease, flight, wait.since)
            wait.count(found)
            return found
        finally:
            if self._kept is not lease:
                await asyncio.shield(lease.release())

    def _newer(self, seen: Seen, carried: Snapshot) -> Snapshot | None:
        """Return what was seen if it can take the place of what is carried. Raises SessionEnded."""
        record = seen.record
        if record is None or self._is_left(seen) or is_behind(record, carried):
            return None
        if self._starts and (self._reseed or (self._signs_in and record.ended)):
            return None
        if record.ended is not None:
            raise self._over(record)
        return seen.tokens if record.version != _version(carried) and is_valid(record, seen.now()) else None

    def _over(self, record: Record) -> SessionEnded:
        """Return what a tombstone means to who finds it, and to who came with a seed."""
        unused, self._starts = self._starts and self._seed is not None, False
        return over(record, unused=unused)

    async def _heed(self, seen: Seen, flight: Flight) -> None:
        """Leave the end point alone for as long as it asked another process for that."""
        failure = None if seen.record is None else seen.record.failure
        if failure is None or failure.not_before is None:
            return
        pause = failure.not_before - seen.now()
        if pause > self._patience:
            raise failure_of(failure, seen.now())
        if pause > 0:
            flight.stalled.open()
            await asyncio.sleep(pause)

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
            unsent=self._unsent,
        )
        record = seen.record
        if record is None or (verdict.move is Move.OVER and self._starts and self._signs_in):
            return await self._begin(seen, lease, flight)
        if record.ended is not None:
            raise self._over(record)
        if verdict.move is Move.UNKNOWN:
            raise OutcomeUnknown(
                "a process sent the refresh token, or was about to, and nobody has written down what came of"
                " it; it is not sent again unasked: sign in, or retry_unknown()"
            )
        if verdict.move is Move.ADOPT:
            return seen.tokens
        return await self._spend(seen, verdict, lease, flight)

    async def _agreed(self, flight: Flight) -> Seen:
        """Return the record, once what is held here, a seed included, stands in it where it should."""
        for _ in range(TRIES):
            seen, own = await self._read(), self._own()
            record = seen.record
            if self._is_left(seen):
                await self._bury(seen)
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
            self._reseed = False  # it was used before
            return False
        await self._entry.save(Snapshot.first(seed, self._entry.clock()), seen, seed=mark)
        self._starts = False
        return True

    async def _begin(self, seen: Seen, lease: Lease, flight: Flight) -> Snapshot | None:
        """Buy the first pair of all, where the grant can."""
        if not self._signs_in:
            self._starts = False
            if self._untold is not None:
                raise over(None)
            raise NotSignedIn("the token store knows of no tokens: sign in first")
        pair = await flight.buy(flight.carried)
        return (
            None if pair is None else await self._save(Snapshot.first(pair, self._entry.clock()), seen, lease)
        )

    async def _spend(self, seen: Seen, verdict: Verdict, lease: Lease, flight: Flight) -> Snapshot | None:
        """Exchange the record's tokens for the next ones, and save these."""
        tokens, first_sent, doubt = seen.tokens, verdict.first_sent, verdict.doubt
        if tokens is None or (self._grant.needs_refresh_token and tokens.refresh is None):
            raise NotSignedIn("there is no refresh token: sign in again")
        marked = self._entry.marked(seen, first_sent) if self._rules.rotates else seen
        if self._rules.rotates:
            if not await self._mark(marked, lease, doubt):
                return None
            if first_sent is not None and not self._rules.is_open(first_sent, seen.now()):
                return None  # marking took too long
            self._sending, self._unsent = marked, None
        age = None if first_sent is None else max(0.0, seen.now() - first_sent)
        spent, failed, flight.insists = True, None, False  # once is what was asked for
        try:
            pair = await flight.buy(tokens, sent_ago=age, may=lambda: lease.held)
            if pair is not None:
                self._sending = None  # what is told from here on is told of the save
                return await self._save(tokens.next(pair, self._entry.clock()), marked, lease)
            spent = flight.sent
        except SessionEnded as error:
            self._sending = None  # what we write now is no news to us
            if await self._is_refused(marked):
                raise
            events.logger.info("keyturn: %s, but another process has newer tokens", error)
        except BaseException as error:
            spent, failed = flight.sent or isinstance(error, OutcomeUnknown), error
            raise
        finally:
            self._sending = None
            if failed is not None or not spent:
                await self._note(marked, failed, lease, marked.marker if spent else doubt)
        return None

    async def _mark(self, marked: Seen, lease: Lease, doubt: Marker | None) -> bool:
        """Write the marker; tell whether to go on. Who cannot leaves what was there, if he can."""
        self._unsent = marked.marker
        marking = asyncio.ensure_future(self._entry.mark(marked, lease))
        try:
            return await asyncio.shield(marking) and lease.held
        except (KeyturnError, asyncio.CancelledError):
            await asyncio.wait([marking], timeout=_LONGEST_NOTE)
            marking.cancel()
            await self._note(marked, None, lease, doubt)
            raise

    async def _is_refused(self, sent: Seen) -> bool:
        """End the session if the record still holds the token that was refused; tell whether it does."""
        seen = await self._read()
        return (
            seen.version == sent.version
            and spends(seen) == spends(sent)
            and await self._entry.bury("refused", seen)
        )

    async def _note(
        self, marked: Seen, error: BaseException | None, lease: Lease, marker: Marker | None
    ) -> None:
        """Write down how an exchange failed, and the marker that stays, as far as the store lets us."""
        told = error if isinstance(error, KeyturnError) else None
        if not self._rules.rotates and told is None:
            return
        self._unsent = None if marker == marked.marker else marked.marker
        try:
            async with asyncio.timeout(_LONGEST_NOTE):
                await self._entry.fail(marked, told, lease, marker=marker)
        except (KeyturnError, TimeoutError) as failed:  # what the exchange came to is not lost over it
            events.logger.debug("keyturn: %s: a failure was not noted: %s", self._entry.name, failed)


def _version(carried: Snapshot) -> Version | None:
    return None if carried.is_awaited else (carried.epoch, carried.generation)


def _raise_failure(seen: Seen, since: float) -> None:
    """Raise what the refresh came to that was waited for, if it came to nothing."""
    failure = None if seen.record is None else seen.record.failure
    if failure is not None and failure.at >= since:
        raise failure_of(failure, seen.now())

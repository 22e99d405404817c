"""Lookout: what is heard of a record that others change too, and the changes that people make to it.

Where a store tells of changes, they are taken over at once; where it does
not, a record is looked at before each refresh, by whoever waits for one, and
now and then by whoever has nothing. Either way the older of the two, the
record or what is held here, is brought up to date.

A sign-in and a sign-out take the lease, so that a refresh on its way is over
before them. They do not insist on it: they spend nothing, and a late save of
a holder that hangs loses the compare-and-set.
"""

from __future__ import annotations

import asyncio
import math
import random
import weakref
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from keyturn.client import events, loop
from keyturn.client.entry import Entry, Seen, is_behind, over
from keyturn.client.errand import Errand
from keyturn.client.grants import Grant
from keyturn.client.place import LONGEST_CLOSING, Place, give_back
from keyturn.client.record import Marker, Version
from keyturn.client.sharing import Rules
from keyturn.client.shelf import shelf
from keyturn.client.snapshot import Snapshot
from keyturn.client.token_stores import RELEASED, Changed, Lease
from keyturn.client.wait import TRIES
from keyturn.clocks import monotonic
from keyturn.errors import (
    CredentialsClosed,
    KeyturnError,
    RefreshMisconfigured,
    SessionEnded,
    TokenStoreUnavailable,
)
from keyturn.tokens import Tokens

_POLL, _POLL_EACH = 0.02, 0.001  # seconds: the least, and what each further waiter of this process adds
_POLL_IF_TOLD, _POLL_IF_TOLD_EACH = 0.3, 0.01  # a holder that dies tells nobody
_LOOK_AGAIN = 1.0
_BLUR = 0.05  # seconds, within which nobody can tell what was first: asking for the time takes time


class Holder(Protocol):
    """Whose record it is: what the lookout asks of the credentials, and tells them."""

    @property
    def tokens(self) -> Snapshot | None:
        """Return what is held."""
        ...

    def learn(self, found: Snapshot | SessionEnded, held: Snapshot | None) -> bool:
        """Take over what the store holds; False, and nothing done, if `held` is no longer what is held."""
        ...

    def signed_in(self, first: Snapshot) -> None:
        """Begin an epoch."""
        ...

    def announce(self, kind: type[events.Event], snapshot: Snapshot, **facts: object) -> None:
        """Tell what happened."""
        ...


class Lookout:
    """One name in a shared store, watched for one `Credentials`. Its coroutines run on keyturn's loop."""

    _polling = 0  # of this process: the more there are, the less often each may

    def __init__(self, entry: Entry, grant: Grant, holder: Holder) -> None:
        self._entry, self._grant = entry, grant
        self._place = Place(entry)
        self._leave = weakref.finalize(self, self._place.leave)
        self._leave.atexit = False
        self._holder = weakref.ref(holder)
        self._rules = Rules(grant.rotates, grant.replay_window)
        self._starts = True  # nothing was found out about this name yet, and nobody has signed in or out here
        self._ended: str | None = None  # the epoch that somebody signed out of here; it never comes back
        self._untold: float | None = None  # when that was, until the store has been told
        self._looked_at = -math.inf
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Start anew in a forked child: the leases and the watching are the parent's."""
        Lookout._polling = 0
        self._changed = asyncio.Event()
        self._waits = 0
        self._sending: Seen | None = None  # what an exchange of ours is about, as it was marked
        self._unsent: Marker | None = None  # a marker of ours, after which nothing was sent
        self._looking: asyncio.Task[None] | None = None
        self._look_once_more = False
        self._place.watched = None

    def may_look(self) -> bool:
        """Tell whether it is worth asking the store again, though nothing was heard of it."""
        return monotonic() - self._looked_at > _LOOK_AGAIN

    @property
    def longest(self) -> float:
        """Return for how many seconds a sign-in or a sign-out can take, where the store answers."""
        return self._grant.timeout + self._grant.replay_window + LONGEST_CLOSING

    # People

    async def sign_in(self, first: Snapshot, *, may_wait: bool) -> None:
        """Begin the epoch of `first`, for everyone."""
        if not self._leave.alive:
            raise CredentialsClosed("these credentials are closed")
        self._watch()
        async with self._place.open(), self._lease_if_it_comes(may_wait=may_wait):
            for _ in range(TRIES):
                if await self._entry.save(first, await self._read(opened=False)):
                    break
            else:
                raise TokenStoreUnavailable("the token store's record changes faster than it can be written")
            self._starts, self._untold = False, None
            holder = self._holder()
            if holder is not None:  # before anybody else has the lease, and the next word
                holder.signed_in(first)

    def leaves(self, epoch: str | None) -> None:
        """Know that somebody signs out here, where `epoch` was held; may be called from any thread."""
        self._starts, self._ended, self._untold = False, epoch, monotonic()

    async def end(self, epoch: str | None, *, may_wait: bool) -> Tokens | None:
        """Leave a tombstone, for everyone, after `leaves(epoch)`; return the tokens that were there.

        The record's epoch ends if it began before that, whether it was held here or not.
        """
        self._watch()
        async with self._place.open(), self._lease_if_it_comes(may_wait=may_wait):
            for _ in range(TRIES):
                seen = await self._seen_or_sealed()
                if seen.record is not None and not self._is_left(seen):
                    self._untold = None
                    return None
                if await self._bury(seen, epoch):
                    return seen.tokens
        raise TokenStoreUnavailable("the token store's record changes faster than it can be written")

    def _is_left(self, seen: Seen) -> bool:
        """Tell whether the record holds what somebody signed out of here."""
        record, since = seen.record, self._untold
        if record is None or record.ended is not None:
            return False
        is_older = since is not None and record.began_at <= seen.now() - (monotonic() - since) + _BLUR
        return is_older or record.epoch == self._ended

    async def _bury(self, seen: Seen, held: str | None = None) -> bool:
        """Write the tombstone of a sign-out over what was seen; tell whether that was still there."""
        if not await self._entry.bury("signed_out", seen, held=held):
            return False
        self._ended, self._untold = held if seen.record is None else seen.record.epoch, None
        return True

    async def _seen_or_sealed(self) -> Seen:
        try:
            return await self._read()
        except RefreshMisconfigured:  # no key opens it: it can be ended all the same
            return await self._read(opened=False)

    # What is heard

    def close(self) -> Errand[None] | None:
        """Let go of the store, and return the work of it; the last user closes it."""
        if self._leave.detach() is None:
            return None
        if not loop.is_started():
            shelf.put_back(self._entry.url)
            return None
        closing = Errand(self._close, longest=self.longest)
        closing.take_off()
        return closing

    async def _close(self) -> None:
        await self._settle()
        await self._place.give_back()

    async def _settle(self) -> None:
        """Wait for what is to be saved."""

    def _watch(self) -> None:
        """Have changes told, from the first use on."""
        if self._place.watched is None and self._leave.alive:
            self._place.watched = _weakly(self)
            self._entry.store.watch(self._entry.name, self._place.watched)

    def heard_of(self, version: Version | None) -> None:
        """Take note of a change: `version` is what the record has now, None if nobody knows."""
        self._changed.set()
        own = self._own()
        if version == RELEASED:
            return
        known = self._entry.wrote, None if own is None else (own.epoch, own.generation)
        is_news = version is None or version not in known
        if (is_news or self._sending) and not self._waits:
            self._look_soon()

    def look_soon(self) -> None:
        """Have what is held here compared with the record; may be called from any thread."""
        loop.call(self._look_soon)

    def _look_soon(self) -> None:
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self.look())
            self._looking.add_done_callback(self._looked)
        else:
            self._look_once_more = True

    def _looked(self, _: object) -> None:
        self._looking = None
        if self._look_once_more:
            self._look_once_more = False
            self._look_soon()

    async def look(self) -> None:
        """Compare the record with what is held here, and bring the older of the two up to date."""
        try:
            for _ in range(TRIES):
                if await self._is_agreed():
                    return
        except KeyturnError as error:
            events.logger.debug("keyturn: %s: the record was not looked at: %s", self._entry.name, error)

    async def _is_agreed(self) -> bool:
        own = self._own()
        seen = await self._read()
        record, holder = seen.record, self._holder()
        if self._own() is not own:
            return False  # and what was read may be older
        if self._is_left(seen):
            return await self._bury(seen)
        sending = self._sending
        if sending is not None and (
            record is None or (seen.version == sending.version and not record.marker)
        ):
            marked = await self._entry.mark_again(sending, seen)
            if self._sending is not sending:
                self._unsent = None  # this marker may have come after another's, and over it
            return marked
        if own is not None and (record is None or is_behind(record, own)):
            return await self._entry.save(own, seen)
        if record is not None and holder is not None:
            return holder.learn(over(record) if seen.tokens is None else seen.tokens, own)
        return True

    async def _read(self, *, opened: bool = True) -> Seen:
        seen = await self._entry.read(opened=opened)
        self._looked_at = monotonic()
        return seen

    def _own(self) -> Snapshot | None:
        holder = self._holder()
        return None if holder is None else holder.tokens

    # Waiting

    async def _lease(self) -> Lease | None:
        """Return the lease if it is free. Who is cancelled while asking does not keep it."""
        seconds = self._rules.lease(self._grant.timeout)
        asking = asyncio.ensure_future(self._entry.lease(seconds))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(give_back)
            raise

    async def _pause(self) -> None:
        """Wait until something is heard of the record, or it is time to look again."""
        told = self._entry.store.notifies
        least, each = (_POLL_IF_TOLD, _POLL_IF_TOLD_EACH) if told else (_POLL, _POLL_EACH)
        wait = least + each * Lookout._polling
        self._waits += 1
        Lookout._polling += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait * random.uniform(0.5, 1.5)):  # noqa: S311 - spreads load
                    await self._changed.wait()
        finally:
            self._waits -= 1
            Lookout._polling -= 1

    @asynccontextmanager
    async def _lease_if_it_comes(self, *, may_wait: bool) -> AsyncGenerator[None]:
        """Hold the lease, or go on without it when it takes longer than an exchange can."""
        until = monotonic() + (self._grant.timeout + self._grant.replay_window + 1.0 if may_wait else 0.0)
        while (lease := await self._lease()) is None and monotonic() < until:
            self._changed.clear()
            await self._pause()
        try:
            yield
        finally:
            if lease is not None:
                await asyncio.shield(lease.release())


def _weakly(lookout: Lookout) -> Changed:
    """Return a callback that does not keep the lookout alive."""
    there = weakref.ref(lookout)

    def changed(version: Version | None) -> None:
        one = there()
        if one is not None:
            one.heard_of(version)

    return changed

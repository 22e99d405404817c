"""Saver: what was bought is saved, however long that takes.

A save that fails keeps the pair in memory and the lease, so that nobody
spends the token that it came from again, and is tried again for as long as
the process lives. Its callers have the pair meanwhile.
"""

from __future__ import annotations

import asyncio
import functools

from keyturn.client import events
from keyturn.client.entry import Seen, is_behind
from keyturn.client.errand import Errand, Persistent
from keyturn.client.flight import Flight
from keyturn.client.lookout import Lookout
from keyturn.client.snapshot import Snapshot
from keyturn.client.token_stores import Lease
from keyturn.client.wait import TRIES
from keyturn.errors import KeyturnError, TokenStoreUnavailable
from keyturn.tokens import Tokens

_LONGEST_SAVE = 5.0  # seconds, at exit and at `close`


class Saver(Lookout):
    """One name in a shared store, with what could not be saved there yet."""

    def reset_after_fork(self) -> None:
        """Start anew in a forked child: the leases, the saves and the watching are the parent's."""
        super().reset_after_fork()
        self._saving: Errand[None] | None = None
        self._kept: Lease | None = None  # for what is saved, which releases it when it is done
        self._telling: Errand[None] | None = None

    async def end(self, epoch: str | None, *, may_wait: bool) -> Tokens | None:
        """Do as any lookout; what cannot be told now is told later, as long as the process lives."""
        try:
            return await super().end(epoch, may_wait=may_wait)
        except KeyturnError:
            if self._telling is None and self._untold is not None:
                self._telling = Persistent(self._tell_at_last, longest=_LONGEST_SAVE)
                self._telling.take_off()
            raise

    async def _tell_at_last(self, _: int) -> bool:
        """Write the tombstone of a sign-out here, unless somebody has signed in since."""
        try:
            async with self._place.open():
                while self._untold is not None:
                    if await self._is_agreed():
                        self._untold = None
        except KeyturnError as error:
            events.logger.info("keyturn: %s: the sign-out could not be told yet: %s", self._entry.name, error)
            return False
        self._telling = None
        return True

    async def _settle(self) -> None:
        """Wait for what is to be saved, and to be told, as long as that may take."""
        for work in (self._saving, self._telling):
            if work is not None:
                await work.settle_async()

    @property
    def is_settled(self) -> bool:
        """Tell whether all that is held and known here is in the store as well."""
        return self._saving is None and self._untold is None

    async def _save(self, tokens: Snapshot, over: Seen, lease: Lease) -> Snapshot | None:
        """Save a pair; None if the record is newer by now. A save that fails goes on, with the lease."""
        try:
            return tokens if await self._store(tokens, over) else None
        except KeyturnError as error:
            self._told_of(error, tokens, 1)
            work = functools.partial(self._save_at_last, tokens, over, lease)
            self._saving, self._kept = Persistent(work, longest=_LONGEST_SAVE), lease
            self._place.hold()
            self._saving.take_off()
            return tokens

    async def _store(self, tokens: Snapshot, seen: Seen) -> bool:
        """Write a pair over what was seen, or over what is older still; tell whether it stands there."""
        for _ in range(TRIES):
            if await self._entry.save(tokens, seen):
                return True
            seen = await self._read(opened=False)  # whatever keys open what has come in between
            if seen.record is not None and not is_behind(seen.record, tokens):
                break
        return False

    async def _save_at_last(self, tokens: Snapshot, over: Seen, lease: Lease, attempts: int) -> bool:
        try:
            await self._store(tokens, over)
        except KeyturnError as error:
            self._told_of(error, tokens, attempts)
            return False
        if self._kept is lease:
            self._saving = self._kept = None
        await asyncio.shield(lease.release())
        await self.look()
        await self._place.let_go()
        return True

    async def _let_a_save_end(self, flight: Flight) -> None:
        """Wait for an earlier pair to be saved: until then the record is behind, and the lease taken."""
        saving = self._saving
        if saving is not None:
            flight.stalled.open()
            if not await saving.settle_async(1.0):
                raise TokenStoreUnavailable("the last tokens could not be saved yet")

    def _told_of(self, error: KeyturnError, tokens: Snapshot, attempts: int) -> None:
        holder = self._holder()
        if holder is not None:
            holder.announce(events.SaveFailed, tokens, cause=error, attempts=attempts)

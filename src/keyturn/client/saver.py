"""Saver: what was bought is saved, however long that takes.

A save that fails keeps the pair in memory and the lease, so that nobody
spends the token that it came from again, and is tried again for as long as
the process lives. Its callers have the pair meanwhile.
"""

from __future__ import annotations

import asyncio
import functools
import random
from contextlib import suppress

from keyturn.client import events, schedule
from keyturn.client.entry import Seen, is_behind
from keyturn.client.errand import Errand
from keyturn.client.flight import Flight
from keyturn.client.lookout import Lookout
from keyturn.client.record import Marker, Version
from keyturn.client.snapshot import Snapshot
from keyturn.client.token_stores import Lease
from keyturn.errors import KeyturnError, TokenStoreUnavailable

_TRIES = 10
_LONGEST_SAVE = 5.0  # seconds, at exit and at `close`


class Saver(Lookout):
    """One name in a shared store, with what could not be saved there yet."""

    def reset_after_fork(self) -> None:
        """Start anew in a forked child: the leases, the saves and the watching are the parent's."""
        super().reset_after_fork()
        self._saving: Errand[None] | None = None
        self._hurry = asyncio.Event()
        self._unsent: Marker | None = None  # a marker of ours, after which nothing was sent

    async def _settle(self) -> None:
        """Wait for what is to be saved, as long as that may take."""
        if self._saving is not None:
            self._hurry.set()
            await self._saving.settle_async()

    @property
    def is_settled(self) -> bool:
        """Tell whether all that is held here is in the store as well."""
        return self._saving is None

    async def _save(self, tokens: Snapshot, over: Seen, lease: Lease) -> Snapshot | None:
        """Save a pair; None if the record is newer by now. A save that fails goes on, with the lease."""
        try:
            return tokens if await self._store(tokens, over) else None
        except KeyturnError as error:
            self._told_of(error, tokens, 1)
            work = functools.partial(self._save_at_last, tokens, over, lease)
            self._saving = Errand(work, longest=_LONGEST_SAVE)
            self._saving.take_off()
            return tokens

    async def _store(self, tokens: Snapshot, seen: Seen) -> bool:
        """Write a pair over what was seen, or over what is older still; tell whether it stands there."""
        for _ in range(_TRIES):
            if await self._entry.save(tokens, seen):
                return True
            seen = await self._read()
            if seen.tokens is not None and (seen.version, seen.tokens.access) == (
                _version(tokens),
                tokens.access,
            ):
                return True  # an earlier attempt was written, and its answer lost
            if seen.record is not None and not is_behind(seen.record, tokens):
                break
        return False

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
                    await self._store(tokens, over)
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


def _version(tokens: Snapshot) -> Version:
    return tokens.epoch, tokens.generation

"""Place: what one user of a token store has there, and gives back when he closes or is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from keyturn.client import loop
from keyturn.client.entry import Entry
from keyturn.client.errand import Errand
from keyturn.client.shelf import shelf
from keyturn.client.token_stores import Changed, Lease

LONGEST_CLOSING = 3.0  # seconds


class Place:
    """What one user of a store has to give back, whether he closes or is forgotten."""

    def __init__(self, entry: Entry) -> None:
        self._url, self._name = entry.url, entry.name
        self.hold()
        self.watched: Changed | None = None

    def leave(self) -> Errand[None] | None:
        """Give it back. May be called by the garbage collector: takes no lock, and waits for nothing."""
        if not loop.is_started():
            return None
        leaving = Errand(self.give_back, longest=LONGEST_CLOSING)
        leaving.take_off()
        return leaving

    async def give_back(self) -> None:
        """Give it back, and close the store where this was its last user."""
        if self.watched is not None:
            shelf[self._url].unwatch(self._name, self.watched)
        await self.let_go()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Keep the store open for work that began before it was given back, or that outlives that."""
        self.hold()
        try:
            yield
        finally:
            await self.let_go()

    def hold(self) -> None:
        """Keep the store open until `let_go`."""
        shelf.take(self._url)

    async def let_go(self) -> None:
        """Undo one `hold`, and close the store where that was its last user."""
        store = shelf.put_back(self._url)
        if store is not None:
            await store.aclose()


_giving_back: set[asyncio.Task[None]] = set()


def give_back(asked: asyncio.Future[Lease | None]) -> None:
    """Release a lease that came to somebody who had stopped asking."""
    if not asked.cancelled() and asked.exception() is None and (lease := asked.result()) is not None:
        task = asyncio.get_running_loop().create_task(_release(lease))
        _giving_back.add(task)
        task.add_done_callback(_giving_back.discard)


async def _release(lease: Lease) -> None:
    await lease.release()

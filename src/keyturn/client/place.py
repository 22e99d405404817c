"""Place: what one user of a token store has there, and gives back when he closes or is forgotten."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from keyturn.client import loop
from keyturn.client.entry import Entry
from keyturn.client.errand import Errand
from keyturn.client.token_stores import Changed, shelf

LONGEST_CLOSING = 3.0  # seconds


class Place:
    """What one user of a store has to give back, whether he closes or is forgotten."""

    def __init__(self, entry: Entry) -> None:
        shelf.take(entry.url)
        self._url, self._name = entry.url, entry.name
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
        store = shelf.put_back(self._url)
        if store is not None:
            await store.aclose()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Keep the store open for work that began before it was given back, or that outlives that."""
        shelf.take(self._url)
        try:
            yield
        finally:
            store = shelf.put_back(self._url)
            if store is not None:
                await store.aclose()

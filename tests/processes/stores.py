"""Stores: the token stores that the fleets share, one name in one of them for each test."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from keyturn.client.record import Record
from keyturn.client.token_stores import TokenStore, new_store
from tests.client.token_stores.kit import on_loop

T = TypeVar("T")

KINDS = ("file", "sqlite", "postgresql", "redis")
NOTIFYING = ("postgresql", "redis")
TIMED = ("redis",)  # whose leases end with time, and not only with their holder


@dataclass(frozen=True)
class Shared:
    """A name in the store at `url`, which is of one of KINDS."""

    url: str
    name: str = field(default_factory=lambda: f"alice-{uuid.uuid4().hex[:12]}")

    @property
    def kind(self) -> str:
        """Return which store this is."""
        return self.url.partition("://")[0]

    @property
    def notifies(self) -> bool:
        """Tell whether other processes learn of a change at once."""
        return self.kind in NOTIFYING

    @property
    def lease_is_timed(self) -> bool:
        """Tell whether a lease ends although its holder lives."""
        return self.kind in TIMED

    def record(self) -> Record:
        """Return the record as it lies in the store."""
        record = self._with_store(lambda store: store.read(self.name)).record
        assert record is not None, "there is no record"
        return record

    def put(self, record: Record) -> None:
        """Write a record over the one that is there, as another process would."""

        async def write(store: TokenStore) -> bool:
            before = (await store.read(self.name)).record
            return await store.write(self.name, record, over=None if before is None else before.version)

        assert self._with_store(write)

    def remove(self) -> None:
        """Forget the name."""
        self._with_store(lambda store: store.remove(self.name))

    def is_leased(self) -> bool:
        """Tell whether anybody holds the lease."""

        async def look(store: TokenStore) -> bool:
            lease = await store.try_lease(self.name, 5.0)
            if lease is None:
                return True
            await lease.release()
            return False

        return self._with_store(look)

    def _with_store(self, use: Callable[[TokenStore], Awaitable[T]]) -> T:
        async def main() -> T:
            store = new_store(self.url)
            try:
                return await use(store)
            finally:
                await asyncio.shield(store.aclose())

        return on_loop(main)

"""Stores: the token stores that the fleets share, one name in one of them for each test."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import psycopg
import redis
from psycopg import sql

from keyturn.client.record import Record
from keyturn.client.token_stores import TokenStore, new_store
from tests.client.token_stores.kit import on_loop

T = TypeVar("T")

KINDS = ("file", "sqlite", "postgresql", "redis")
EVERY_KIND = (*KINDS, "keyring")
NOTIFYING = ("postgresql", "redis")
TIMED = ("redis",)  # whose leases end with time, and not only with their holder


@contextmanager
def a_table(url: str) -> Iterator[str]:
    """Have a table in a PostgreSQL database, which the first who needs it makes; yield the store's URL.

    Connections are called as the table is, so that a test can tell which are its own.
    """
    table = f"keyturn_{uuid.uuid4().hex[:12]}"
    yield f"{url}{'&' if '?' in url else '?'}keyturn_table={table}&application_name={table}"
    with psycopg.connect(url) as connection:
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(table)))


@contextmanager
def a_prefix(url: str) -> Iterator[str]:
    """Have keys of one's own in a Redis database; yield the store's URL."""
    prefix = f"keyturn-{uuid.uuid4().hex[:12]}"
    yield f"{url}{'&' if '?' in url else '?'}prefix={prefix}"
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(f"*{prefix}*"):
            client.delete(key)


def connections_of(url: str) -> list[tuple[int, bool]]:
    """Return the connections of a table's store: what the server calls each, and whether it holds a lease."""
    query = """
        SELECT pid, EXISTS (SELECT FROM pg_locks AS held WHERE held.pid = there.pid AND locktype = 'advisory')
        FROM pg_stat_activity AS there WHERE application_name = %s
    """
    table = url.rpartition("=")[2]
    with psycopg.connect(url.partition("?")[0]) as connection:
        return [(int(pid), bool(holds)) for pid, holds in connection.execute(query, [table]).fetchall()]


def terminate(url: str, connection: int) -> None:
    """Have PostgreSQL end one of its connections, and return when it has ended."""
    with psycopg.connect(url.partition("?")[0]) as operator:
        ended = operator.execute("SELECT pg_terminate_backend(%s, 10000)", [connection]).fetchone()
        assert ended == (True,)


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

    def found(self) -> Record | None:
        """Return the record as it lies in the store, None where there is none."""
        return self._with_store(lambda store: store.read(self.name)).record

    def record(self) -> Record:
        """Return the record as it lies in the store."""
        record = self.found()
        assert record is not None, "there is no record"
        return record

    def now(self) -> float:
        """Return what the store's clock shows."""
        return self._with_store(lambda store: store.read(self.name)).now

    def put(self, record: Record) -> None:
        """Write a record over the one that is there, as another process would."""

        async def write(store: TokenStore) -> bool:
            before = (await store.read(self.name)).record
            return await store.write(self.name, record, over=None if before is None else before.version)

        assert self._with_store(write)

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

"""PostgresStore: records are rows, leases are the locks of a session, changes are told by NOTIFY.

    postgresql://user:password@host:port/database?sslmode=verify-full

Any URL of libpq, and one option of keyturn's own: `keyturn_table=name`, which
may have a schema before it. The table is made on first use; where the role
may not, somebody who may runs

    CREATE TABLE keyturn_tokens (
        name text COLLATE "C" PRIMARY KEY,
        epoch text NOT NULL,
        generation bigint NOT NULL,
        record text NOT NULL,
        changed timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    GRANT SELECT, INSERT, UPDATE, DELETE ON keyturn_tokens TO the_role;

A process has up to four connections: one that all its leases are locks of,
one that listens, and up to two for everything else. The lock dies with its
connection, so a marker is written over that very connection, and a save over
any.
"""

from __future__ import annotations

import asyncio
import json
from typing import Self

from keyturn.client.record import Record, Version
from keyturn.client.token_stores import RELEASED, Changed, Lease, Reading
from keyturn.client.token_stores.postgres_errors import POOLED
from keyturn.client.token_stores.postgres_link import Broken, Gone, Link, begin, kept
from keyturn.client.token_stores.postgres_listener import Listener
from keyturn.client.token_stores.postgres_session import Opener, Row, Session, Values, keep_for_ever
from keyturn.client.token_stores.postgres_url import Place
from keyturn.client.token_stores.watchers import news
from keyturn.errors import RefreshError, RefreshMisconfigured, TokenStoreUnavailable

_LINKS, _OPENING_TAKES = 2, 16
_DAMAGED = "a row in the token store's table is damaged: its columns and its record are not of one version"
_LOST = "the connection to PostgreSQL was lost"

_READ = """
    SELECT extract(epoch FROM clock_timestamp())::float8, there.epoch, there.generation, there.record
    FROM (SELECT) AS one LEFT JOIN {table} AS there ON there.name = %(name)s
"""
# Written or not, one row comes back: whether, who answered, and what was there instead.
_WRITE = """
    WITH written AS ({change} RETURNING 1)
    SELECT told.times > 0, pg_backend_pid(), there.epoch, there.generation, there.record
    FROM (SELECT count({told}) AS times FROM written) AS told
    LEFT JOIN {table} AS there ON told.times = 0 AND there.name = %(name)s
"""
_INSERT = """
    INSERT INTO {table} (name, epoch, generation, record, changed)
    SELECT %(name)s::text, %(epoch)s::text, %(generation)s::bigint, %(record)s::text, clock_timestamp()
    WHERE pg_backend_pid() = %(pid)s
    ON CONFLICT (name) DO NOTHING
"""
_UPDATE = """
    UPDATE {table}
    SET epoch = %(epoch)s, generation = %(generation)s, record = %(record)s, changed = clock_timestamp()
    WHERE name = %(name)s AND epoch = %(was_epoch)s AND generation = %(was_generation)s
    AND strpos(record, %(says_epoch)s) > 0 AND strpos(record, %(says_generation)s) > 0
    AND pg_backend_pid() = %(pid)s
"""
_REMOVE = """
    WITH gone AS (DELETE FROM {table} WHERE name = %(name)s RETURNING 1)
    SELECT pg_notify(%(channel)s, %(payload)s) FROM gone
"""
_NAMES = "SELECT name FROM {table}"
_TELL = "pg_notify(%(channel)s, %(payload)s)"
_TRY = "SELECT pg_try_advisory_lock(%(key)s), pg_backend_pid()"
# What is told must be committed, and there is nothing in it that the disk has to be waited for.
_RELEASE = """
    SELECT set_config('synchronous_commit', 'off', true), pg_advisory_unlock(%(key)s),
    pg_notify(%(channel)s, %(payload)s)
"""
_UNLOCK = "SELECT pg_advisory_unlock(%(key)s)"


class PostgresLease:
    """The lock of one name, on the connection that it was taken over."""

    def __init__(self, name: str, link: Link, session: Session, leases: dict[str, PostgresLease]) -> None:
        self.name = name
        self.session: Session | None = session
        self._link = link
        self._leases = leases
        self._is_over = False

    def __repr__(self) -> str:
        return f"<PostgresLease {self.name!r}>"

    @property
    def held(self) -> bool:
        """Tell whether the connection that it was taken over still stands; waits for nothing."""
        return not self._is_over and self.stands

    @property
    def stands(self) -> bool:
        """Tell whether the server may still have the lock, even if it is being given up."""
        return self.session is not None and self._link.is_current(self.session)

    async def release(self) -> None:
        """Unlock, and tell who watches. Goes on to its end though the caller be cancelled."""
        session, was_over, self._is_over = self.session, self._is_over, True
        if session is not None and not was_over:
            await kept(self._release(session))

    async def _release(self, session: Session) -> None:
        values = {"name": self.name, "payload": news(self.name, RELEASED)}
        for statement in (_RELEASE, _UNLOCK):
            try:
                await self._link.run(statement, values, on=session)
            except (Broken, Gone):
                break  # the lock went with its connection
            except RefreshError:
                continue
            break
        else:  # what cannot be given up must not be kept, at the price of the others
            self._link.drop(session)
        self.session = None
        if self._leases.get(self.name) is self:
            del self._leases[self.name]


class PostgresStore:
    """A table of records."""

    notifies = True

    def __init__(self, place: Place) -> None:
        opener = Opener(place)
        self._place = place
        self._lease_link = Link(opener)
        self._links = [Link(opener) for _ in range(_LINKS)]
        self._listener = Listener(Link(opener))
        self._leases: dict[str, PostgresLease] = {}
        self._tried: set[str] = set()

    def __repr__(self) -> str:
        return f"<PostgresStore {self._place.table}>"

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return a store for a postgresql:// URL. Raises ConfigurationError for one that cannot work."""
        return cls(Place.from_url(url))

    async def read(self, name: str) -> Reading:
        """Return the record and the server's time, read in one statement."""
        ((now, *there),) = await self._ask(_READ, {"name": name}, again=True)
        return Reading(_record(name, *there), float(str(now)))

    async def names(self) -> list[str]:
        """Return the names that have a row."""
        return sorted(str(name) for (name,) in await self._ask(_NAMES, {}, again=True))

    async def remove(self, name: str) -> bool:
        """Delete a name's row, and tell who watches."""
        return bool(await self._ask(_REMOVE, {"name": name, "payload": news(name, None)}))

    async def write(
        self, name: str, record: Record, *, over: Version | None, under: Lease | None = None
    ) -> bool:
        """Write the row and tell who watches, in one statement; with `under` over the lease's connection."""
        if under is not None and not isinstance(under, PostgresLease):
            raise TypeError("the lease is another store's")
        if under is not None and not under.held:
            return False
        return await kept(self._write(name, record, over, under))

    async def try_lease(self, name: str, seconds: float) -> PostgresLease | None:
        """Try for the lock of a name. It dies with its connection, and so with this process."""
        earlier = self._leases.get(name)
        if name in self._tried or (earlier is not None and earlier.stands):
            return None
        self._tried.add(name)
        trying = begin(self._try(name))
        try:
            await asyncio.wait([trying])
        except asyncio.CancelledError:
            trying.add_done_callback(_give_back)
            raise
        return trying.result()

    def watch(self, name: str, changed: Changed) -> None:
        """Have `changed` called for every change of a name that the server tells of."""
        self._listener.watch(name, changed)

    def unwatch(self, name: str, changed: Changed) -> None:
        """Undo one `watch`."""
        self._listener.unwatch(name, changed)

    async def aclose(self) -> None:
        """Give up the leases and close the connections."""
        await asyncio.gather(*(lease.release() for lease in list(self._leases.values())))
        await asyncio.gather(
            self._listener.aclose(), self._lease_link.aclose(), *(link.aclose() for link in self._links)
        )

    def abandon(self) -> None:
        """In a forked child: let go of the parent's connections, and of nothing that they stand for."""
        keep_for_ever(self)
        self._listener.abandon()
        for link in (self._lease_link, *self._links):
            link.abandon()

    async def _ask(self, statement: str, values: Values, *, again: bool = False) -> list[Row]:
        return await kept(self._rows(statement, values, again))

    async def _rows(self, statement: str, values: Values, again: bool) -> list[Row]:
        try:
            return (await self._free_link().run(self._on_table(statement), values, again=again))[1]
        except Broken:
            raise TokenStoreUnavailable(_LOST) from None

    async def _write(
        self, name: str, record: Record, over: Version | None, under: PostgresLease | None
    ) -> bool:
        values: dict[str, object] = {
            "name": name,
            "epoch": record.epoch,
            "generation": record.generation,
            "record": record.to_json(),
            "payload": news(name, record.version),
        }
        if over is not None:
            values |= {
                "was_epoch": over[0],
                "was_generation": over[1],
                "says_epoch": f'"epoch":{json.dumps(over[0])},',
                "says_generation": f'"generation":{over[1]},',
            }
        # What notifies waits for all others that do until it is on disk. A marker is news to nobody, and what
        # else is written over its own version the release tells of.
        told = "*" if over == record.version else _TELL
        change = _INSERT if over is None else _UPDATE
        statement = self._on_table(_WRITE.replace("{change}", change).replace("{told}", told))
        link, on = (self._free_link(), None) if under is None else (self._lease_link, under.session)
        if under is not None and on is None:
            return False
        try:
            session, ((written, pid, *there),) = await link.run(statement, values, on=on)
        except Gone:
            return False
        except Broken:
            return await self._has_been_written(name, record, over)
        if pid != session.pid:
            raise RefreshMisconfigured(POOLED)
        if not written:
            _record(name, *there)  # says so if it is damaged
        return bool(written)

    async def _has_been_written(self, name: str, record: Record, over: Version | None) -> bool:
        """Find out what came of a write whose answer was lost."""
        ((_, *there),) = await self._rows(_READ, {"name": name}, True)
        found = _record(name, *there)
        if found == record:
            return True
        if (None if found is None else found.version) != over:
            return False
        raise TokenStoreUnavailable(_LOST)

    async def _try(self, name: str) -> PostgresLease | None:
        try:
            session, ((taken, pid),) = await self._lease_link.run(_TRY, {"name": name}, again=True)
        except Broken:
            raise TokenStoreUnavailable(_LOST) from None
        finally:
            self._tried.discard(name)
        if pid != session.pid:
            self._lease_link.drop(session)
            raise RefreshMisconfigured(POOLED)
        if not taken:
            return None
        lease = self._leases[name] = PostgresLease(name, self._lease_link, session, self._leases)
        return lease

    def _free_link(self) -> Link:
        """Return the link with the shortest queue; opening one more takes as long as some statements."""
        return min(self._links, key=lambda link: link.waiting + (0 if link.session else _OPENING_TAKES))

    def _on_table(self, statement: str) -> str:
        return statement.replace("{table}", self._place.quoted)


def _give_back(trying: asyncio.Task[PostgresLease | None]) -> None:
    """Release what was taken for a caller who has left."""
    if not trying.cancelled() and trying.exception() is None and (lease := trying.result()) is not None:
        begin(lease.release())


def _record(name: str, epoch: object, generation: object, text: object) -> Record | None:
    if text is None:
        return None
    record = Record.from_json(str(text), name)
    if record.version != (epoch, generation):
        raise RefreshMisconfigured(_DAMAGED)
    return record

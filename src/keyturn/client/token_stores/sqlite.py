"""Tokens in one SQLite file, for the processes of one machine.

    tokens.db          one row a name: its record, as JSON
    tokens.db-wal      what was written last; SQLite's own, as tokens.db-shm is
    tokens.db.leases/  a file a name, locked by who refreshes (`file_lease`)

Reads and writes have a lane each, so that a writer in another process stops
no reader. What waits for a lane goes together into one transaction, in which
each write is judged by the record that it finds: a thousand names that are
refreshed at once cost a few dozen flushes of the disk.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from keyturn import clocks
from keyturn.client.record import Record, Version
from keyturn.client.token_stores import Changed, Lease, Reading
from keyturn.client.token_stores.file_lease import FileLease, FileLeases, is_held
from keyturn.client.token_stores.sqlite_file import Connection
from keyturn.client.token_stores.sqlite_lane import Lane
from keyturn.errors import ConfigurationError

_WAITS_FOR_OTHERS: Final = 3.0  # seconds


class SQLiteStore:
    """Keeps records in the SQLite file at `path`. See `TokenStore` for what its methods promise.

    `timeout` is for how many seconds a call waits for other processes.
    """

    notifies = False

    def __init__(self, path: Path, *, timeout: float = _WAITS_FOR_OTHERS) -> None:
        self._reads = Lane(path, "BEGIN", timeout)
        self._writes = Lane(path, "BEGIN IMMEDIATE", timeout)
        self._leases = FileLeases(path.with_name(f"{path.name}.leases"))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return the store of sqlite:///relative/path or sqlite:////absolute/path, without I/O.

        Raises ConfigurationError for anything else: a database in memory
        would be another one in each process.
        """
        return cls(_path(url))

    async def read(self, name: str) -> Reading:
        """Return the record as it was last written."""
        record = await self._reads.run(partial(_read, name))
        return Reading(record, clocks.now())

    async def write(
        self, name: str, record: Record, *, over: Version | None, under: Lease | None = None
    ) -> bool:
        """Write the record if what is there now has the version `over`."""
        return await self._writes.run(partial(_write, name, record, over, under))

    async def try_lease(self, name: str, seconds: float) -> FileLease | None:
        """Return the lease of a name, None if anybody holds it. It ends with this process, not with time."""
        return await self._leases.try_lease(name)

    def watch(self, name: str, changed: Changed) -> None:
        """Do nothing: a file notifies nobody."""

    def unwatch(self, name: str, changed: Changed) -> None:
        """Do nothing."""

    async def names(self) -> list[str]:
        """Return the names that have a record, sorted, damaged ones included."""
        return await self._reads.run(_names)

    async def remove(self, name: str) -> bool:
        """Forget a name; tell whether there was a record."""
        return await self._writes.run(partial(_remove, name))

    async def aclose(self) -> None:
        """Release all leases and close the connections."""
        await self._leases.release_all()
        for lane in (self._reads, self._writes):
            await lane.aclose()

    def abandon(self) -> None:
        """Close, in a forked child, the lock files that were inherited; it has inherited no connection."""
        self._leases.abandon()


# What is done in a transaction, on a thread


def _read(name: str, connection: Connection) -> Record | None:
    row = connection.execute("SELECT record FROM tokens WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    return Record.from_json(row[0], name)


def _write(
    name: str, record: Record, over: Version | None, under: Lease | None, connection: Connection
) -> bool:
    there = _read(name, connection)
    if (there and there.version) != over or not is_held(under):
        return False
    connection.execute(
        "INSERT INTO tokens VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET record = excluded.record",
        (name, record.to_json()),
    )
    return True


def _names(connection: Connection) -> list[str]:
    return sorted(name.decode(errors="replace") for (name,) in connection.execute("SELECT name FROM tokens"))


def _remove(name: str, connection: Connection) -> bool:
    return connection.execute("DELETE FROM tokens WHERE name = ?", (name,)).rowcount == 1


def _path(url: str) -> Path:
    try:
        parts = urlsplit(url)
        path = unquote(parts.path)[1:]
        is_one = not (parts.netloc or parts.query or parts.fragment or "?" in url or "#" in url)
    except ValueError:
        path, is_one = "", False
    if not is_one or not path or path.endswith("/") or path == ":memory:" or "\0" in path:
        raise ConfigurationError(
            "a SQLite token store's URL is sqlite:///tokens.db, or sqlite:////var/lib/app/tokens.db for an"
            " absolute path; it has no host, no query and no fragment. For tokens in memory use memory://"
        )
    return Path(path).absolute()

"""Sessions in one SQLite file: the default, for one machine and many processes.

Write-ahead logging, one row a session, and every change a single statement
with its condition in it. So nothing reads first and writes later, which is
where "database is locked" comes from, and a race has one winner.

How far a commit goes: an advance is written but not flushed (synchronous
NORMAL), because the next refresh heals one that a power cut took away. A
sign-in and an end are flushed before they are acknowledged (FULL).

Connections belong to one process. A forked child opens its own and leaves
those that it inherited alone, unclosed: SQLite wants them neither used nor
closed there. Within a process, writers queue at a lock of ours, which is
fair and wakes at once, and only other processes are waited for by SQLite's
sleeping.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from keyturn.errors import ConfigurationError, StoreUnavailable
from keyturn.server.session import EndedWhy, Session

_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS sessions (
    sid             TEXT PRIMARY KEY,
    subject         TEXT NOT NULL,
    started_at      REAL NOT NULL,
    expires_at      REAL NOT NULL,
    counter         INTEGER NOT NULL,
    rotated_at      REAL,
    idle_limit      REAL,
    ended_at        REAL,
    ended_why       TEXT,
    seen_generation INTEGER NOT NULL,
    client          TEXT,
    key             TEXT,
    claims          TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sessions_by_subject ON sessions (subject);
"""
_COLUMNS: Final = (
    "sid, subject, started_at, expires_at, counter, rotated_at, idle_limit,"
    " ended_at, ended_why, seen_generation, client, key, claims"
)
_LIVES: Final = (
    "ended_at IS NULL AND :now < expires_at"
    " AND (idle_limit IS NULL OR :now < coalesce(rotated_at, started_at) + idle_limit)"
)

_Row = tuple[
    str, str, float, float, int, float | None, float | None, float | None, EndedWhy | None, int, str | None,
    str | None, str,
]  # fmt: skip

_Rows = list[_Row]
_Values = tuple[object, ...] | Mapping[str, object]


class _Process:
    """What of a store belongs to one process: its connections and its queue of writers."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.idle: deque[sqlite3.Connection] = deque()
        self.all: set[sqlite3.Connection] = set()
        self.writing = threading.Lock()


class SQLiteStore:
    """Keeps sessions in the SQLite file at `path`.

    `clock` gives POSIX seconds. `timeout` is how many seconds a call waits
    for other processes before it raises StoreUnavailable.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, clock: Callable[[], float] = time.time, timeout: float = 5.0
    ) -> None:
        self._path = Path(path).absolute()
        self._clock = clock
        self._timeout = timeout
        self._process = _Process()
        self._left_alone: list[_Process] = []
        self._closed = False
        self._prepare()

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Open sqlite:///relative/path or sqlite:////absolute/path.

        Raises ConfigurationError without a path: a database in memory would
        be another one in each thread and process.
        """
        parts = urlsplit(url)
        path = unquote(parts.path)[1:]
        if parts.netloc or not path or path == ":memory:" or parts.query or parts.fragment:
            raise ConfigurationError(
                "a SQLite store's URL is sqlite:///sessions.db, or sqlite:////var/lib/app/sessions.db for an "
                "absolute path; for sessions in memory use memory://"
            )
        return cls(path)

    def now(self) -> float:
        """Return the time."""
        return self._clock()

    def create(self, session: Session) -> None:
        """Keep a new session, flushed to the disk."""
        row = (
            session.sid, session.subject, session.started_at, session.expires_at, session.counter,
            session.rotated_at, session.idle_limit, session.ended_at, session.ended_why,
            session.seen_generation, session.client, session.key,
            json.dumps(dict(session.claims), separators=(",", ":")),
        )  # fmt: skip
        self._change(f"INSERT INTO sessions ({_COLUMNS}) VALUES ({', '.join('?' * 13)})", row, durable=True)  # noqa: S608

    def get(self, sid: str) -> Session | None:
        """Return a session, ended ones too."""
        _, rows = self._run(f"SELECT {_COLUMNS} FROM sessions WHERE sid = ?", (sid,))  # noqa: S608
        return _session(rows[0]) if rows else None

    def advance(self, sid: str, *, read: int, to: int) -> bool:
        """Move the counter from `read` to `to`, if it is `read` and the session is not ended."""
        if to == read:
            statement = (
                "UPDATE sessions SET counter = counter WHERE sid = ? AND counter = ? AND ended_at IS NULL"
            )
            return self._change(statement, (sid, read))[0] == 1
        statement = (
            "UPDATE sessions SET counter = ?, rotated_at = ?"
            " WHERE sid = ? AND counter = ? AND ended_at IS NULL"
        )
        return self._change(statement, (to, self._clock(), sid, read))[0] == 1

    def end(self, sid: str, why: EndedWhy) -> bool:
        """End a session, for good, flushed to the disk."""
        statement = "UPDATE sessions SET ended_at = ?, ended_why = ? WHERE sid = ? AND ended_at IS NULL"
        return self._change(statement, (self._clock(), why, sid), durable=True)[0] == 1

    def end_all(self, subject: str, why: EndedWhy) -> Sequence[Session]:
        """End all sessions of a subject, flushed to the disk."""
        statement = (
            "UPDATE sessions SET ended_at = ?, ended_why = ? WHERE subject = ? AND ended_at IS NULL"  # noqa: S608
            f" RETURNING {_COLUMNS}"
        )
        _, rows = self._change(statement, (self._clock(), why, subject), durable=True)
        return [_session(row) for row in rows]

    def list(self, subject: str) -> Sequence[Session]:
        """Return the subject's sessions that go on, oldest first."""
        statement = (
            f"SELECT {_COLUMNS} FROM sessions WHERE subject = :subject AND {_LIVES} ORDER BY started_at, sid"  # noqa: S608
        )
        _, rows = self._run(statement, {"subject": subject, "now": self._clock()})
        return [_session(row) for row in rows]

    def mark_seen(self, sid: str, generation: int) -> None:
        """Remember that an access token of `generation` was verified."""
        statement = "UPDATE sessions SET seen_generation = ? WHERE sid = ? AND seen_generation < ?"
        self._change(statement, (generation, sid, generation))

    def purge(self) -> int:
        """Delete the sessions that do not go on."""
        return self._change(f"DELETE FROM sessions WHERE NOT ({_LIVES})", {"now": self._clock()})[0]  # noqa: S608

    def close(self) -> None:
        """Close this process's connections. Later calls raise StoreUnavailable."""
        self._closed = True
        process = self._process
        if process.pid == os.getpid():
            while process.all:
                process.all.pop().close()
            process.idle.clear()

    def _mine(self) -> _Process:
        if self._process.pid != os.getpid():
            self._left_alone.append(self._process)  # kept, so that nothing closes them here
            self._process = _Process()
        return self._process

    def _change(self, statement: str, values: _Values, *, durable: bool = False) -> tuple[int, _Rows]:
        writing = self._mine().writing
        if not writing.acquire(timeout=self._timeout):
            raise StoreUnavailable("the session store does not answer (others have waited too long already)")
        try:
            return self._run(statement, values, durable=durable)
        finally:
            writing.release()

    def _run(self, statement: str, values: _Values, *, durable: bool = False) -> tuple[int, _Rows]:
        """Run one statement, which is one transaction; return how many rows it changed, and those it gave."""
        process = self._mine()
        try:
            connection = process.idle.pop()
        except IndexError:
            connection = self._open(process)
        try:
            if durable:
                connection.execute("PRAGMA synchronous = FULL")
            cursor = connection.execute(statement, values)
            rows = cursor.fetchall()
            if durable:
                connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException as error:
            # The connection may be in any state, so nobody gets it again.
            process.all.discard(connection)
            connection.close()
            if isinstance(error, sqlite3.Error):
                raise _unavailable(error) from error
            raise
        process.idle.append(connection)
        return cursor.rowcount, rows

    def _open(self, process: _Process) -> sqlite3.Connection:
        if self._closed:
            raise StoreUnavailable("the session store is closed")
        try:
            connection = sqlite3.connect(
                self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise _unavailable(error) from error
        process.all.add(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _prepare(self) -> None:
        """Make the file, readable for its owner alone, and the table, whoever else does so at this moment."""
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise ConfigurationError(
                f"the session store's file cannot be opened: {error.strerror}"
            ) from error
        deadline = time.monotonic() + self._timeout
        while True:
            connection = sqlite3.connect(self._path, timeout=self._timeout, isolation_level=None)
            try:
                version = _lay_out(connection)
            except sqlite3.OperationalError as error:
                # The change to WAL does not wait for others by itself.
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise StoreUnavailable("the session store cannot be laid out") from error
                time.sleep(0.01)
            except sqlite3.DatabaseError as error:
                raise ConfigurationError("the session store's file is not a SQLite database") from error
            else:
                break
            finally:
                connection.close()
        if version > _VERSION:
            raise ConfigurationError("the session store's file was made by a newer keyturn")


def _lay_out(connection: sqlite3.Connection) -> int:
    connection.execute("PRAGMA journal_mode = WAL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        return _VERSION
    return int(version)


def _unavailable(error: sqlite3.Error) -> StoreUnavailable:
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return StoreUnavailable(f"the session store does not answer ({name})")


def _session(row: _Row) -> Session:
    return Session(
        sid=row[0],
        subject=row[1],
        started_at=row[2],
        expires_at=row[3],
        counter=row[4],
        rotated_at=row[5],
        idle_limit=row[6],
        ended_at=row[7],
        ended_why=row[8],
        seen_generation=row[9],
        client=row[10],
        key=row[11],
        claims=MappingProxyType(json.loads(row[12])),
    )

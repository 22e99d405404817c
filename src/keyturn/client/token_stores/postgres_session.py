"""Session: one direct connection to PostgreSQL, set up and looked at before anybody uses it.

What a lease stands on is the server's session, so much depends on whether
there is one, and when it ends:

- A proxy that pools transactions gives each statement to another server
  process. It is refused: its sessions end, or go on, without us.
- Keepalives run both ways. A client that cannot reach the server any more
  notices before the server gives its locks to others.
- No statement is ever cancelled. One that takes too long has its connection
  cut, and what it came to is found out over another.
- In a forked child the socket is replaced by /dev/null: the goodbye that the
  driver may send goes there, and the parent's end stays the only one.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import weakref
from collections.abc import Mapping
from contextlib import suppress

import psycopg

from keyturn.client.token_stores.postgres_errors import POOLED, STANDBY, missing_table, refused, trouble
from keyturn.client.token_stores.postgres_url import Place
from keyturn.errors import RefreshMisconfigured, TokenStoreUnavailable

Row = tuple[object, ...]
Values = Mapping[str, object]

_LONGEST_OPENING, _LONGEST_STATEMENT = 8.0, 5.0  # seconds; the server gives up a statement before we do
_SETTINGS = {
    "statement_timeout": "4s",
    "lock_timeout": "2s",
    "idle_session_timeout": "0",  # the session of a lease idles while an exchange runs
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "synchronous_commit": "on",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "4",
    "tcp_user_timeout": "30s",
}
# Only those that this server has; and a synchronous_commit that waits for more than the disk stays.
_SET_UP = """
    SELECT set_config(name, wanted, false)
    FROM pg_settings JOIN unnest(%(names)s::text[], %(wanted)s::text[]) AS keyturn (name, wanted) USING (name)
    WHERE name <> 'synchronous_commit' OR setting = 'off'
"""
_LOOK = """
    SELECT pg_backend_pid(), pg_is_in_recovery(), nspname || '.' || relname
    FROM (SELECT to_regclass(%(table)s) AS oid) AS wanted
    LEFT JOIN pg_class ON pg_class.oid = wanted.oid
    LEFT JOIN pg_namespace ON pg_namespace.oid = relnamespace
"""
_PID = "SELECT pg_backend_pid()"

_forks = 0
_abandoned: list[object] = []  # kept alive in a child, so that nothing of the parent's is finalized there


def _fork() -> None:
    global _forks
    _forks += 1


def forks() -> int:
    """Return how many forks were begun: a connection that was opened across one has a second owner."""
    return _forks


def keep_for_ever(what: object) -> None:
    """Keep what a forked child has inherited from being finalized."""
    _abandoned.append(what)


class _Connection(psycopg.AsyncConnection[Row]):
    def __del__(self, *args: object) -> None:
        """Say nothing: a process may end at any moment, and the server notices."""


class Session:
    """A connection that passed. `pid` is the server process's, `place` the table as the server names it."""

    def __init__(self, connection: _Connection) -> None:
        self.connection = connection
        self.pid = 0
        self.place = ""
        self._asking = False

    @property
    def channel(self) -> str:
        """Return where changes of the table are told."""
        return "keyturn_" + hashlib.sha256(self.place.encode()).hexdigest()[:32]

    def key(self, name: str) -> int:
        """Return the advisory lock of a name: 64 bits, signed."""
        mark = hashlib.sha256(f"keyturn lease\0{self.place}\0{name}".encode()).digest()
        return int.from_bytes(mark[:8], signed=True)

    def is_alive(self) -> bool:
        """Tell whether the connection stands, as far as this machine knows; waits for nothing."""
        if not self._asking:  # or the answer would be read away from under who waits for it
            with suppress(psycopg.Error):
                for _ in range(2):  # the server's last words, and the end
                    self.connection.pgconn.consume_input()
        return not self.connection.closed

    async def ask(self, statement: str, values: Values | None = None) -> list[Row]:
        """Run one statement, one at a time; values may be named `channel`, `pid` and, of a name, `key`.

        Raises psycopg.Error. The connection is cut if that takes too long.
        """
        known: dict[str, object] = {"channel": self.channel, "pid": self.pid, **(values or {})}
        if isinstance(name := known.get("name"), str):
            known["key"] = self.key(name)
        too_long = asyncio.get_running_loop().call_later(_LONGEST_STATEMENT, self.cut)
        self._asking = True
        try:
            cursor = await self.connection.execute(statement.encode(), known)
            return await cursor.fetchall() if cursor.description else []
        finally:
            self._asking = False
            too_long.cancel()

    def cut(self) -> None:
        """Cut the connection, so that whoever waits for an answer is told that there will be none."""
        with suppress(psycopg.Error, OSError):
            line = socket.socket(fileno=self.connection.fileno())
            try:
                line.shutdown(socket.SHUT_RDWR)
            finally:
                line.detach()

    def close(self) -> None:
        """Close the connection. Nothing may be under way."""
        self.connection.pgconn.finish()

    def abandon(self) -> None:
        """In a forked child: let go of the socket, and say nothing over it."""
        keep_for_ever(self)
        with suppress(psycopg.Error, OSError):
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, self.connection.fileno(), inheritable=False)
            os.close(nothing)


class Opener:
    """Opens the sessions of one store."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._open: weakref.WeakSet[Session] = weakref.WeakSet()

    async def open(self) -> Session:
        """Return a new session. Raises TokenStoreUnavailable and RefreshMisconfigured."""
        try:
            session = await self._connected()
            too_long = asyncio.get_running_loop().call_later(_LONGEST_STATEMENT, session.cut)
            try:
                await session.ask(_SET_UP, {"names": list(_SETTINGS), "wanted": list(_SETTINGS.values())})
                await self._look(session)
                await self._check_that_it_is_direct(session)
            except BaseException:
                session.close()
                raise
            finally:
                too_long.cancel()
        except TimeoutError:
            raise TokenStoreUnavailable("PostgreSQL does not answer in time") from None
        except psycopg.Error as error:
            raise trouble(error) from None
        self._open.add(session)
        return session

    async def _connected(self) -> Session:
        try:
            async with asyncio.timeout(_LONGEST_OPENING):
                connection = await _Connection.connect(
                    self.place.conninfo, autocommit=True, prepare_threshold=None
                )
        except psycopg.Error as error:
            raise refused(error) from None
        return Session(connection)

    async def _look(self, session: Session) -> None:
        """Find the table, and make it where there is none."""
        for may_make in (True, True, False):
            ((pid, is_standby, place),) = await session.ask(_LOOK, {"table": self.place.quoted})
            if is_standby:
                raise TokenStoreUnavailable(STANDBY)
            session.pid = int(str(pid))
            if place is not None:
                session.place = str(place)
                return
            if may_make:
                await self._make(session)
        raise RefreshMisconfigured(missing_table(self.place.ddl))

    async def _make(self, session: Session) -> None:
        try:
            await session.ask(self.place.ddl)
        except (
            psycopg.errors.UniqueViolation,
            psycopg.errors.DuplicateObject,
            psycopg.errors.DuplicateTable,
        ):
            return  # another process was a moment faster
        except (
            psycopg.errors.InsufficientPrivilege,
            psycopg.errors.ReadOnlySqlTransaction,
        ):
            raise RefreshMisconfigured(missing_table(self.place.ddl)) from None
        except psycopg.errors.InvalidSchemaName:
            raise RefreshMisconfigured("the schema of keyturn_table does not exist") from None

    async def _check_that_it_is_direct(self, session: Session) -> None:
        """Raise RefreshMisconfigured unless the server process is this session's alone.

        A proxy invents the pid that it gives at the start. One that pools
        sessions will do; one that pools transactions is found by two
        connections at once: they share a server process, or one has several.
        """
        shared = any(other.pid == session.pid and other.is_alive() for other in self._open)
        if not shared and session.pid == session.connection.info.backend_pid:
            return
        other = await self._connected()
        try:
            seen: dict[Session, set[object]] = {session: {session.pid}, other: set()}
            for one in (session, other, other, session, other, session, session):
                ((pid,),) = await one.ask(_PID)
                seen[one].add(pid)
        finally:
            other.close()
        if len(seen[session]) > 1 or len(seen[other]) > 1 or seen[session] == seen[other]:
            raise RefreshMisconfigured(POOLED)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_fork)

"""Lanes: connections to a SQLite file, one each, and who waits for them.

What waits goes together into the next transaction, with one flush to the disk
for all. A transaction runs on a daemon thread; a caller who is cancelled
takes nothing along.

SQLite notes in the process's memory, once a file, which locks the process
has. A forked child inherits the note and not the locks, and what it writes by
that can be lost, even over a connection of its own. So there is no connection
while a process forks: they are closed before, and opened anew by the next use.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, Generic, TypeVar, cast

from keyturn.client import native
from keyturn.client.loop import on_thread
from keyturn.client.token_stores import sqlite_file
from keyturn.client.token_stores.sqlite_file import Connection
from keyturn.clocks import monotonic
from keyturn.errors import KeyturnError, RefreshError, RefreshMisconfigured, TokenStoreUnavailable

T = TypeVar("T")
Work = Callable[[Connection], T]

_THREAD: Final = "keyturn-sqlite-store"
_LONGEST: Final = 10.0  # seconds, for a disk that does not answer


class Lane:
    """One connection to the file at `path`, whose transactions start with the statement `begin`.

    `timeout` is for how many seconds a transaction waits for other processes.
    """

    def __init__(self, path: Path, begin: str, timeout: float) -> None:
        self._path, self._begin, self._timeout = path, begin, timeout
        self._connection: Connection | None = None
        self.start_anew()
        _lanes.add(self)

    def start_anew(self) -> None:
        """Forget who waits: in a forked child they are the parent's."""
        self._waiting: list[_Job[object]] = []
        self._working: asyncio.Task[None] | None = None
        self._using = native.lock()  # held while SQLite is at work

    async def run(self, work: Work[T]) -> T:
        """Return what `work` returned in a transaction that was committed.

        Raises what it raises, RefreshMisconfigured and TokenStoreUnavailable.
        """
        job = _Job(work)
        self._waiting.append(cast(_Job[object], job))
        if self._working is None:  # a task of nobody's, which nobody's cancellation reaches
            context = contextvars.Context()
            self._working = asyncio.get_running_loop().create_task(self._work(), context=context)
        try:
            async with asyncio.timeout(self._timeout + _LONGEST):
                return await job.outcome
        except TimeoutError:
            raise TokenStoreUnavailable("the token store does not answer: its disk may be stuck") from None

    async def aclose(self) -> None:
        """Close the connection, as soon as nobody uses it."""
        if self._connection is not None:
            with suppress(RefreshError):  # no thread is to be had
                await on_thread(self._close_in_turn, _THREAD)

    async def _work(self) -> None:
        while self._waiting:
            jobs, self._waiting = [job for job in self._waiting if not job.outcome.done()], []
            failed: Exception | None = None
            try:
                await on_thread(partial(self._transact, jobs), _THREAD)
            except Exception as error:  # noqa: BLE001 - raised again where it is waited for
                failed = error
            for job in jobs:
                job.settle(failed)
        self._working = None

    # On a thread

    def _transact(self, jobs: list[_Job[object]]) -> None:
        """Run jobs in one transaction, as soon as other processes let it."""
        ends = monotonic() + self._timeout
        while True:
            try:
                with self._using:
                    return self._try_to_transact(jobs)
            except sqlite3.Error as error:
                if sqlite_file.is_read_only(error):
                    self._close_all()
                if not sqlite_file.is_busy(error) or monotonic() > ends:
                    raise sqlite_file.meaning(error, self._path) from None
            time.sleep(random.uniform(0.001, 0.005))  # noqa: S311 - not in SQLite, where a fork would wait too

    def _try_to_transact(self, jobs: list[_Job[object]]) -> None:
        connection = self._open()
        try:
            connection.execute(self._begin)
            for job in jobs:
                job.run(connection)
            connection.execute("COMMIT")
        except BaseException as error:
            # One that has begun nothing is in order. Any other may be in any state, so nobody gets it again.
            is_busy = isinstance(error, sqlite3.Error) and sqlite_file.is_busy(error)
            if not is_busy or connection.in_transaction:
                self._close()
            raise

    def _open(self) -> Connection:
        if _inherited:
            raise RefreshMisconfigured(
                "this process was forked while the token store's SQLite file was open, past Python's os.fork"
                " or beside a disk that did not answer: what it writes could be lost; open the store later"
            )
        if self._connection is not None and not self._connection.is_in_place():
            self._close()
        if self._connection is None:
            self._connection = sqlite_file.opened(self._path)
        return self._connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _close_in_turn(self) -> None:
        with self._using:
            self._close()

    def _close_all(self) -> None:
        """Close all connections to the file, which share what the first found: that it is read-only."""
        for lane in list(_lanes):
            if lane._path == self._path and lane.hold():
                lane.let_go()

    # Around a fork

    def hold(self) -> bool:
        """Close the connection and let nobody open one; tell whether that was possible."""
        if not self._using.acquire(timeout=_LONGEST):
            return False
        self._close()
        return True

    def let_go(self) -> None:
        """Undo `hold`."""
        self._using.release()

    def is_torn(self) -> bool:
        """Tell, in a child and of a lane that was not held, whether it was at work or had a file open."""
        return self._using.locked() or self._connection is not None


class _Job(Generic[T]):
    """Something to do in a transaction, and the caller who waits for it."""

    def __init__(self, work: Work[T]) -> None:
        self._work = work
        self.outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._result: T | None = None
        self._error: Exception | None = None

    def run(self, connection: Connection) -> None:
        """Do it. What is wrong with this one alone is noted; what is wrong with the file is raised."""
        self._result = self._error = None
        try:
            self._result = self._work(connection)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001 - raised again where it is waited for
            self._error = error

    def settle(self, failed: Exception | None) -> None:
        """Tell the caller, if he still waits, how it went: the transaction, and his part of it."""
        error = self._error if failed is None else failed
        if self.outcome.done():
            return
        if error is None:
            self.outcome.set_result(cast(T, self._result))
        else:
            self.outcome.set_exception(error.again() if isinstance(error, KeyturnError) else error)


_lanes: weakref.WeakSet[Lane] = weakref.WeakSet()
_held: dict[int, list[Lane]] = {}  # by the thread that forks
_inherited: list[object] = []  # kept alive and untouched; SQLite is not to be used beside it


def _close_before_fork() -> None:
    _held[threading.get_ident()] = [lane for lane in list(_lanes) if lane.hold()]


def _go_on_in_parent() -> None:
    for lane in _held.pop(threading.get_ident(), []):
        lane.let_go()


def _start_anew_in_child() -> None:
    held = _held.pop(threading.get_ident(), [])
    _held.clear()
    sqlite_file.start_anew_in_child()
    for lane in list(_lanes):
        if lane not in held and lane.is_torn():
            _inherited.append(lane)
        else:
            lane.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_close_before_fork, after_in_parent=_go_on_in_parent, after_in_child=_start_anew_in_child
    )

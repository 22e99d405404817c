"""Link: one session at a time, opened when it is needed and again after it was lost.

Whoever waits for it to open shares one attempt and its failure: a thousand
callers of a server that does not answer wait once, not one after the other.
What was begun goes on when its caller is cancelled, so that no connection is
ever left in the middle of an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import TypeVar

import psycopg

from keyturn.client.token_stores.postgres_errors import ends_the_session, trouble
from keyturn.client.token_stores.postgres_session import Opener, Row, Session, Values, forks
from keyturn.errors import RefreshError

T = TypeVar("T")
_under_way: set[asyncio.Task[object]] = set()


class Gone(Exception):
    """The session that a statement was meant for is no more: nothing was sent."""


class Broken(Exception):
    """The session was lost while a statement was under way: it may have been carried out."""


def begin(work: Coroutine[object, object, T]) -> asyncio.Task[T]:
    """Return a task that nobody needs to wait for."""
    task = asyncio.get_running_loop().create_task(work)
    _under_way.add(task)
    task.add_done_callback(_end)
    return task


def _end(task: asyncio.Task[object]) -> None:
    _under_way.discard(task)
    if not task.cancelled():
        task.exception()  # has been seen, whether or not anybody waits


async def kept(work: Coroutine[object, object, T]) -> T:
    """Return what `work` returns; it goes on to its end though the caller be cancelled."""
    task = begin(work)
    await asyncio.wait([task])
    return task.result()


class Link:
    """Where one statement follows the other. `waiting` counts those who want to ask."""

    def __init__(self, opener: Opener) -> None:
        self.session: Session | None = None
        self.waiting = 0
        self._opener = opener
        self._opening: asyncio.Task[Session] | None = None
        self._turn = asyncio.Lock()

    async def run(
        self, statement: str, values: Values | None = None, *, on: Session | None = None, again: bool = False
    ) -> tuple[Session, list[Row]]:
        """Run a statement; return its rows, and the session that they came over. Not to be cancelled.

        `on` is the only session that it may be sent over. `again` says that
        it may be sent a second time. Raises Gone, Broken, RefreshMisconfigured
        and TokenStoreUnavailable.
        """
        self.waiting += 1
        try:
            while True:
                session = on or await self.opened()
                async with self._turn:
                    if self.is_current(session):
                        try:
                            return session, await session.ask(statement, values)
                        except psycopg.Error as error:
                            if session.is_alive() and not ends_the_session(error):
                                raise trouble(error) from None
                        self.drop(session)
                        if not again:
                            raise Broken
                        again = False
                if on is not None:
                    raise Gone
        finally:
            self.waiting -= 1

    async def opened(self) -> Session:
        """Return the session. Not to be cancelled. Raises RefreshMisconfigured and TokenStoreUnavailable."""
        if self.session is not None and self.is_current(self.session):
            return self.session
        if self._opening is None:
            self._opening = begin(self._open())
        opening = self._opening
        await asyncio.wait([opening])
        try:
            return opening.result()
        except RefreshError as error:
            raise error.again() from None

    def is_current(self, session: Session) -> bool:
        """Tell whether a session is this link's, and stands; waits for nothing."""
        if self.session is not session:
            return False
        if not session.is_alive():
            self.drop(session)
        return self.session is session

    def drop(self, session: Session) -> None:
        """Close a session, over which nothing is under way."""
        if self.session is session:
            self.session = None
            session.close()

    async def aclose(self) -> None:
        """Close what is open, when what is under way is done."""
        if self._opening is not None:
            with suppress(RefreshError):
                await self.opened()
        async with self._turn:
            if self.session is not None:
                self.drop(self.session)

    def abandon(self) -> None:
        """In a forked child: let go of the parent's connection."""
        session, self.session = self.session, None
        if session is not None:
            session.abandon()

    async def _open(self) -> Session:
        try:
            while True:
                before = forks()
                session = self.session = await self._opener.open()
                if forks() == before:
                    return session
                self.drop(session)  # a child has it too, and does not know of it
        finally:
            self._opening = None

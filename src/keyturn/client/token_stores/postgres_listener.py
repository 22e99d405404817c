"""Listener: one connection that hears what is written to the table, for all who watch.

It is opened by the first who watches, and again whenever it was lost, for as
long as anybody does. Whenever it opens everybody is told that something may
have been missed.
"""

from __future__ import annotations

import asyncio
import random

import psycopg

from keyturn.client import schedule
from keyturn.client.token_stores import Changed
from keyturn.client.token_stores.postgres_link import Broken, Gone, Link, kept
from keyturn.client.token_stores.postgres_session import Session
from keyturn.client.token_stores.watchers import Watchers
from keyturn.errors import RefreshError


class Listener:
    """Who watches which name, and the connection that hears for them."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._watchers = Watchers()
        self._starting: asyncio.Task[None] | None = None
        self._heard: tuple[asyncio.AbstractEventLoop, int] | None = None  # where, and over which descriptor

    def watch(self, name: str, changed: Changed) -> None:
        """Add a watcher; listen, if nobody has yet."""
        self._watchers.add(name, changed)
        if self._starting is None and self._heard is None:
            self._starting = asyncio.get_running_loop().create_task(self._start())

    def unwatch(self, name: str, changed: Changed) -> None:
        """Take a watcher away again."""
        self._watchers.remove(name, changed)

    async def aclose(self) -> None:
        """Listen no more, until somebody watches anew."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        self._stop_hearing()
        await self._link.aclose()

    def abandon(self) -> None:
        """In a forked child: let go of the parent's connection."""
        self._watchers, self._heard = Watchers(), None
        self._link.abandon()

    async def _start(self) -> None:
        try:
            failures = 0
            while self._watchers and not await self._has_started():
                failures += 1
                await asyncio.sleep(schedule.backoff(failures, random.random()))  # noqa: S311 - spreads load
        finally:
            self._starting = None

    async def _has_started(self) -> bool:
        try:
            session = await kept(self._link.opened())
            await kept(self._link.run(f'LISTEN "{session.channel}"', on=session))
        except (RefreshError, Broken, Gone):
            return False
        if not self._link.is_current(session):
            return False
        running, descriptor = asyncio.get_running_loop(), session.connection.fileno()
        self._heard = running, descriptor
        running.add_reader(descriptor, self._hear, session)
        self._watchers.tell_all()
        return True

    def _hear(self, session: Session) -> None:
        line = session.connection.pgconn
        try:
            line.consume_input()
            while (told := line.notifies()) is not None:
                self._watchers.hear(told.extra)
        except psycopg.Error:
            self._stop_hearing()
            self._link.drop(session)
            if self._watchers and self._starting is None:
                self._starting = asyncio.get_running_loop().create_task(self._start())

    def _stop_hearing(self) -> None:
        if self._heard is not None:
            where, descriptor = self._heard
            self._heard = None
            where.remove_reader(descriptor)

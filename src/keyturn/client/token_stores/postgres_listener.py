"""Listener: one connection that hears what is written to the table, for all who watch.

It is opened by the first who watches, and again whenever it was lost, for as
long as anybody does. Whenever it opens everybody is told that something may
have been missed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random

import psycopg

from keyturn.client import schedule
from keyturn.client.record import Version
from keyturn.client.token_stores import Changed
from keyturn.client.token_stores.postgres_link import Broken, Gone, Link, kept
from keyturn.client.token_stores.postgres_session import Session
from keyturn.errors import RefreshError

logger = logging.getLogger("keyturn.client")


def payload(name: str, version: Version | None) -> str:
    """Return what is told of a change: whose it is and its version, None for a release or a removal."""
    told: dict[str, object] = {"name": name}
    if version is not None:
        told["epoch"], told["generation"] = version
    return json.dumps(told, separators=(",", ":"))


def parsed(text: str | bytes) -> tuple[str, Version | None] | None:
    """Return what `payload` wrote, None for anything else: anybody in the database may speak here."""
    try:
        told = json.loads(text)
        name, version = told["name"], None
        if "epoch" in told:
            version = str(told["epoch"]), int(told["generation"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return (name, version) if isinstance(name, str) else None


class Listener:
    """Who watches which name, and the connection that hears for them."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._watchers: dict[str, list[Changed]] = {}
        self._starting: asyncio.Task[None] | None = None
        self._heard: tuple[asyncio.AbstractEventLoop, int] | None = None  # where, and over which descriptor

    def watch(self, name: str, changed: Changed) -> None:
        """Add a watcher; listen, if nobody has yet."""
        self._watchers.setdefault(name, []).append(changed)
        if self._starting is None and self._heard is None:
            self._starting = asyncio.get_running_loop().create_task(self._start())

    def unwatch(self, name: str, changed: Changed) -> None:
        """Take a watcher away again."""
        watchers = self._watchers.get(name, [])
        if changed in watchers:
            watchers.remove(changed)
        if not watchers:
            self._watchers.pop(name, None)

    async def aclose(self) -> None:
        """Listen no more, until somebody watches anew."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        self._stop_hearing()
        await self._link.aclose()

    def abandon(self) -> None:
        """In a forked child: let go of the parent's connection."""
        self._watchers, self._heard = {}, None
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
        self._tell_all()
        return True

    def _hear(self, session: Session) -> None:
        line = session.connection.pgconn
        try:
            line.consume_input()
            while (told := line.notifies()) is not None:
                heard = parsed(told.extra)
                if heard is not None:
                    self._tell(*heard)
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

    def _tell_all(self) -> None:
        for name in list(self._watchers):
            self._tell(name, None)

    def _tell(self, name: str, version: Version | None) -> None:
        for changed in list(self._watchers.get(name, ())):
            try:
                changed(version)
            except Exception:
                logger.exception("keyturn: a watcher of the token store failed")

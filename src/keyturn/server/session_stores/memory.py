"""Sessions in this process's memory: the reference for every other store.

They are gone when the process is, and a forked child has its own copy from
then on: for tests and for servers of one process.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Self

from keyturn.errors import ConfigurationError
from keyturn.server.session import EndedWhy, Session


class MemoryStore:
    """Keeps sessions in a dictionary behind a lock. `clock` gives POSIX seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._rows: dict[str, Session] = {}
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            forked = weakref.WeakMethod(self._forked)
            os.register_at_fork(after_in_child=lambda: (method := forked()) and method())

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Open memory://."""
        if url != "memory://":
            raise ConfigurationError("a memory store's URL is memory://, with nothing after it")
        return cls()

    def now(self) -> float:
        """Return the time."""
        return self._clock()

    def create(self, session: Session) -> None:
        """Keep a new session."""
        with self._lock:
            self._rows[session.sid] = session

    def get(self, sid: str) -> Session | None:
        """Return a session, ended ones too."""
        return self._rows.get(sid)

    def advance(self, sid: str, *, read: int, to: int) -> bool:
        """Move the counter from `read` to `to`, if it is `read` and the session is not ended."""
        with self._lock:
            row = self._rows.get(sid)
            if row is None or row.counter != read or row.ended_at is not None:
                return False
            if to != read:
                self._rows[sid] = replace(row, counter=to, rotated_at=self._clock())
            return True

    def end(self, sid: str, why: EndedWhy) -> bool:
        """End a session, for good."""
        with self._lock:
            row = self._rows.get(sid)
            if row is None or row.ended_at is not None:
                return False
            self._rows[sid] = replace(row, ended_at=self._clock(), ended_why=why)
            return True

    def end_all(self, subject: str, why: EndedWhy) -> Sequence[Session]:
        """End all sessions of a subject."""
        with self._lock:
            now = self._clock()
            ended = [
                replace(row, ended_at=now, ended_why=why)
                for row in self._rows.values()
                if row.subject == subject and row.ended_at is None
            ]
            self._rows.update((row.sid, row) for row in ended)
            return ended

    def list(self, subject: str) -> Sequence[Session]:
        """Return the subject's sessions that go on, oldest first."""
        with self._lock:
            now = self._clock()
            rows = [row for row in self._rows.values() if row.subject == subject and row.lives(now)]
        return sorted(rows, key=lambda row: (row.started_at, row.sid))

    def mark_seen(self, sid: str, generation: int) -> None:
        """Remember that an access token of `generation` was verified."""
        with self._lock:
            row = self._rows.get(sid)
            if row is not None and row.seen_generation < generation:
                self._rows[sid] = replace(row, seen_generation=generation)

    def purge(self) -> int:
        """Delete the sessions that do not go on."""
        with self._lock:
            now = self._clock()
            over = [row.sid for row in self._rows.values() if not row.lives(now)]
            for sid in over:
                del self._rows[sid]
            return len(over)

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def _forked(self) -> None:
        self._lock = threading.Lock()  # whoever held the old one does not exist here

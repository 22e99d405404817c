"""Where sessions are kept: one small interface, and a store for each URL scheme.

Every method is one atomic step, and every condition is checked in the store
itself: two processes that ask at once get one winner. What is read is read
from where it is written, never from a replica.

    memory://                   one process, for tests and single-process servers
    sqlite:///sessions.db       a file beside the server (four slashes for an absolute path)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol
from urllib.parse import urlsplit

from keyturn.errors import ConfigurationError
from keyturn.server.session import EndedWhy, Session


class SessionStore(Protocol):
    """Keeps sessions. Safe to use from any thread; raises StoreUnavailable when it does not answer."""

    def now(self) -> float:
        """Return the store's own time in POSIX seconds, which all ages are measured by."""

    def create(self, session: Session) -> None:
        """Keep a new session. It is durable when this returns."""

    def get(self, sid: str) -> Session | None:
        """Return a session as it was last written, ended ones too."""

    def advance(self, sid: str, *, read: int, to: int) -> bool:
        """Move a session's counter from `read` to `to`, if it is still `read` and not ended.

        Returns whether it was. Moving it sets `rotated_at`; with `to` equal
        to `read` nothing changes, and the answer tells whether a token of
        that counter may still be handed out. It need not wait for the disk:
        a lost advance heals.
        """

    def end(self, sid: str, why: EndedWhy) -> bool:
        """End a session, for good. Returns whether it was this call that did.

        It is durable when this returns, and no `advance` succeeds after it.
        """

    def end_all(self, subject: str, why: EndedWhy) -> Sequence[Session]:
        """End all sessions of a subject, as `end` does. Returns those that this call ended."""

    def list(self, subject: str) -> Sequence[Session]:
        """Return the subject's sessions that go on, oldest first."""

    def mark_seen(self, sid: str, generation: int) -> None:
        """Remember that an access token of `generation` was verified. Never goes back."""

    def purge(self) -> int:
        """Delete the sessions that do not go on. Returns how many."""

    def close(self) -> None:
        """Let go of files and connections. Closing twice is allowed."""


def _memory(url: str) -> SessionStore:
    from keyturn.server.session_stores.memory import MemoryStore

    return MemoryStore.from_url(url)


def _sqlite(url: str) -> SessionStore:
    from keyturn.server.session_stores.sqlite import SQLiteStore

    return SQLiteStore.from_url(url)


_SCHEMES: dict[str, Callable[[str], SessionStore]] = {"memory": _memory, "sqlite": _sqlite}


def open_store(url: str) -> SessionStore:
    """Return the session store that `url` names.

    Raises ConfigurationError for a scheme that is not known and for a URL
    that its store cannot use. The message never shows the URL, which may
    hold a password.
    """
    scheme = urlsplit(url).scheme
    if scheme not in _SCHEMES:
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        said = f"there is no session store for {scheme!r}" if scheme else "a session store is named by a URL"
        raise ConfigurationError(f"{said}, as in sqlite:///sessions.db; the known ones are {known}")
    return _SCHEMES[scheme](url)

"""Grounds: the stores that schedules are played on, and what can befall each.

A ground is one lane's alone. Redis and PostgreSQL are servers of its own,
unless an address is given: then they are shared, and nothing befalls them
but, in PostgreSQL, the end of this ground's own connections.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psycopg
import redis

from keyturn.client.record import Record
from keyturn.client.token_stores import TokenStore, new_store
from keyturn.errors import KeyturnError
from tests.client.token_stores.kit import on_loop
from tests.processes import servers
from tests.processes.schedules.steps import MENDS
from tests.processes.stores import a_prefix, a_table, connections_of, terminate

Strike = Callable[[], object]


class Unread(Exception):
    """The store does not answer now."""


@dataclass
class Ground:
    """A store at `url`; `strikes` are what can befall it, by the verbs of `steps.py`."""

    url: str
    strikes: dict[str, Strike] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._store: TokenStore = new_store(self.url)
        self._answers = True

    @property
    def faults(self) -> frozenset[str]:
        """Return what can befall it."""
        return frozenset(self.strikes)

    def strike(self, verb: str) -> None:
        """Have something befall it, or end."""
        self._answers = verb not in MENDS
        self.strikes[verb]()

    def mend(self) -> None:
        """End all that befell it."""
        for verb in MENDS.values():
            if verb in self.strikes:
                self.strike(verb)

    def read(self, name: str) -> Record | None:
        """Return the record of a name. Raises Unread."""
        if not self._answers:
            raise Unread
        try:
            return on_loop(lambda: self._store.read(name)).record
        except (KeyturnError, OSError) as error:
            raise Unread from error

    def forget(self, name: str) -> None:
        """Remove a name."""
        with contextlib.suppress(KeyturnError, OSError):
            on_loop(lambda: self._store.remove(name))

    def close(self) -> None:
        """Let go of it."""
        on_loop(self._store.aclose)


@contextlib.contextmanager
def ground(kind: str, address: str | None = None) -> Iterator[Ground]:
    """Have a ground of a kind, on servers of its own or at an address."""
    with contextlib.ExitStack() as stack:
        url, strikes = _made(kind, address, stack)
        one = Ground(url, strikes)
        try:
            yield one
        finally:
            one.mend()
            one.close()


def _made(kind: str, address: str | None, stack: contextlib.ExitStack) -> tuple[str, dict[str, Strike]]:
    if kind in {"file", "sqlite"}:
        directory = tempfile.mkdtemp(prefix="keyturn-ground-")
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        return (f"file://{directory}/tokens" if kind == "file" else f"sqlite:///{directory}/tokens.db"), {}
    if kind == "redis":
        if address is not None:
            return stack.enter_context(a_prefix(address)), {}
        own = stack.enter_context(servers.own_redis())
        return own.url, {
            "disconnect": lambda: _cut_off(own.url),
            "restart": own.restart,
            "down": own.stop,
            "up": own.start,
            "freeze": own.freeze,
            "thaw": own.thaw,
            "lose": own.forget,
        }
    if address is not None:
        url = stack.enter_context(a_table(address))
        return url, {"disconnect": lambda: _terminate_all(url)}
    postgres = stack.enter_context(servers.own_postgres())
    postgres.start()
    return postgres.url, {
        "disconnect": lambda: postgres.terminate("all"),
        "restart": postgres.restart,
        "down": postgres.stop,
        "up": postgres.start,
    }


def _cut_off(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        for kind in ("pubsub", "normal"):
            client.execute_command("CLIENT", "KILL", "TYPE", kind)


def _terminate_all(url: str) -> None:
    for connection, _ in connections_of(url):
        with contextlib.suppress(AssertionError, psycopg.Error):  # it has ended by itself
            terminate(url, connection)


FAULTS = {
    "file": frozenset[str](),
    "sqlite": frozenset[str](),
    "postgresql": frozenset({"disconnect", "restart", "down", "up"}),
    "redis": frozenset({"disconnect", "restart", "down", "up", "freeze", "thaw", "lose"}),
}

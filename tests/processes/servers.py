"""Servers of a test's own: a Redis and a PostgreSQL to stop, start, empty and cut off.

Both write down what they are told before they say so, and die without a word.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Literal

from tests.client.token_stores.postgres_server import PostgresServer
from tests.client.token_stores.redis_server import RedisServer
from tests.waiting import until

Which = Literal["leases", "listening", "all"]


class _Own:
    """A server that is stopped and started at will."""

    def __init__(self, start: Callable[[], None]) -> None:
        self._start, self._runs = start, True

    def stop(self) -> None:
        """Kill it."""
        self._runs = False

    def start(self) -> None:
        """Start it if it does not run."""
        if not self._runs:
            self._start()
            self._runs = True

    def restart(self) -> None:
        """Kill it and start it again."""
        self.stop()
        self.start()


class OwnRedis(_Own):
    """A Redis that keeps what it has when it is killed."""

    def __init__(self) -> None:
        self._server = RedisServer("--appendonly", "yes", "--appendfsync", "always")
        super().__init__(self._server.start)

    @property
    def url(self) -> str:
        """Return the URL of database 0."""
        return self._server.url

    def stop(self) -> None:
        """Kill it."""
        self._server.stop()
        super().stop()

    def forget(self) -> None:
        """Throw all data away, leases included."""
        self._server.command("FLUSHALL")

    def end_subscriptions(self) -> None:
        """End the connections of those who listen."""
        self._server.command("CLIENT", "KILL", "TYPE", "pubsub")

    def end_connections(self) -> None:
        """End all connections."""
        self.end_subscriptions()
        self._server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def freeze(self) -> None:
        """Have it answer nobody, while connections stand."""
        self._server.freeze()

    def thaw(self) -> None:
        """Undo `freeze`."""
        self._server.thaw()

    def close(self) -> None:
        """End it for good."""
        self._server.close()


class OwnPostgres(_Own):
    """A PostgreSQL that recovers when it is killed."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        super().__init__(server.start)

    @property
    def url(self) -> str:
        """Return the URL of a database."""
        return self._server.url()

    def stop(self) -> None:
        """Kill it with all that belongs to it."""
        self._server.stop(signal.SIGQUIT)
        super().stop()

    def terminate(self, which: Which) -> int:
        """End the connections that hold leases, those that listen, or all; return how many there were."""
        pids = self._pids(which)
        for pid in pids:
            self._server.execute(f"SELECT pg_terminate_backend({pid})")
        until(lambda: not set(pids) & set(self._pids("all")))
        return len(pids)

    def _pids(self, which: Which) -> list[object]:
        select = {
            "leases": "SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory' AND granted",
            "listening": "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%'",
            "all": "SELECT pid FROM pg_stat_activity WHERE application_name = 'keyturn'",
        }
        return [pid for (pid,) in self._server.execute(select[which])]


@contextlib.contextmanager
def own_redis() -> Iterator[OwnRedis]:
    """Run a Redis."""
    server = OwnRedis()
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """Run a PostgreSQL."""
    with PostgresServer() as server:
        yield OwnPostgres(server)

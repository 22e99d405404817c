"""Connections to one Redis, to a cluster, or to the primary that sentinels name; and scripts run over them.

redis-py knows the protocol and the topologies. Decided here:

- Nothing is repeated behind our back: its retries are off. A script that may
  be run twice is tried once more on another connection where the first one
  broke or led to a replica; idle connections are dropped before, since what
  broke one (a failover, a firewall that forgets) has broken them all.
- Every attempt has a time limit, whatever it waits for.
- The number of commands under way is bounded, and with it the number of
  connections; who comes later waits its turn within its time limit.
- A command goes on when its caller is cancelled, so that no connection is
  left with half an answer.
- Every connection is known, so that all can be closed at once, and in a
  forked child without a word to the server or to the parent's loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import weakref
from collections.abc import Coroutine, Iterable, Sequence
from importlib import resources
from typing import Any, TypeVar, cast

from redis.asyncio import Connection, Redis, RedisCluster, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from keyturn.client.token_stores.redis_errors import code_word, is_lost, refusal
from keyturn.client.token_stores.redis_url import Address, Host
from keyturn.errors import TokenStoreUnavailable

T = TypeVar("T")
_ATTEMPT = 2.5  # seconds that one attempt may take once it is its turn
_QUEUE = 15.0  # seconds, until it is: a thousand credentials of a process may refresh at once
_CONNECT = 1.0  # less, so that a second host can be asked in one attempt
_ANSWER = 2.0
_AT_ONCE = 16  # commands under way, to one node or to many
_CONNECTIONS = _AT_ONCE + 4  # to a node: more than are ever used
_SCANNED = 500  # keys a step


class Script:
    """A Lua script of the package's, and the name that a server gives it."""

    def __init__(self, name: str) -> None:
        self.text = resources.files(__package__).joinpath("lua", f"{name}.lua").read_text("utf-8")
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class Known:
    """A connection that its store knows, and that says nothing when it is finalized."""

    known: weakref.WeakSet[Known]
    forgotten = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.known.add(self)

    def __del__(self) -> None:
        """Say nothing: what is closed at exit, or inherited by a child, is not the user's to close."""

    @property
    def is_connected(self) -> bool:
        """Tell whether there is a socket, and not one of the parent's."""
        return not self.forgotten and bool(getattr(super(), "is_connected", False))

    def forget(self) -> None:
        """In a forked child: put nothing in the place of the socket, which the parent goes on using."""
        self.forgotten = True
        writer = getattr(self, "_writer", None)
        if writer is not None:
            socket = writer.transport.get_extra_info("socket")
            if socket is not None and socket.fileno() >= 0:
                nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                os.dup2(nothing, socket.fileno(), inheritable=False)
                os.close(nothing)


class _Cluster(RedisCluster):
    def __del__(self, *_: Any) -> None:
        """Say nothing, as `Known` does."""


class _NoCommands:
    """What a cluster's client asks for its table of commands: our scripts say themselves what their keys are.

    Otherwise it would ask a primary, which may be the one that is down.
    """

    async def initialize(self, _: object) -> None:
        """Ask nobody."""


_KINDS: dict[tuple[bool, bool], type[Connection]] = {
    (False, False): Connection,
    (False, True): SSLConnection,
    (True, False): SentinelManagedConnection,
    (True, True): SentinelManagedSSLConnection,
}


class Connections:
    """What is open to one address, from the first use until `close`."""

    def __init__(self, address: Address) -> None:
        self.known: weakref.WeakSet[Known] = weakref.WeakSet()
        self._address = address
        self._closed = False
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._kind = self._known(_KINDS[address.topology == "sentinel", address.tls])
        self._pool = self._new_pool()
        self._one = None if self._pool is None else Redis(connection_pool=self._pool)
        self._cluster: _Cluster | None = None
        self._nodes: set[Host] = set()

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Return a task that goes on to its end, whoever stays to see it."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._under_way.add(task)
        task.add_done_callback(self._is_over)
        return task

    def _is_over(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # whoever was cancelled does not ask for it, and asyncio would log it whole

    async def apart(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return what a coroutine returns; it goes on to its end if the caller is cancelled."""
        return await asyncio.shield(self.begin(coroutine))

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[str | int] = (), *, again: Any = True
    ) -> Any:
        """Return what a script answers. All keys lie in one slot.

        `again` is what the script is given if it may have been run already:
        True for the same arguments, None where it must not be run twice.
        Raises TokenStoreUnavailable or RefreshMisconfigured.
        """
        try:
            return await self.apart(self._attempt(script, keys, arguments))
        except Exception as error:  # noqa: BLE001 - told by its class; what a driver says may hold a secret
            if again is None or self._closed or not is_lost(error):
                raise refusal(error) from None
        try:
            await self.apart(self._drop_idle())
            return await self.apart(self._attempt(script, keys, arguments if again is True else again))
        except Exception as error:  # noqa: BLE001 - as above
            raise refusal(error) from None

    async def scan(self, pattern: str) -> set[bytes]:
        """Return all keys that match, of all primaries, by steps that hold up nobody."""
        try:
            return await self.apart(self._scan(pattern))
        except Exception as error:  # noqa: BLE001 - as above
            raise refusal(error) from None

    def new_listener(self) -> Connection:
        """Return a connection of its own, not open yet: in a cluster to any node."""
        if self._pool is not None:
            pool: Any = self._pool
            connection: Connection = pool.make_connection()
            return connection
        host, port = random.choice([*self._nodes, *self._address.hosts])  # noqa: S311 - no secret
        return self._kind(host=host, port=port, **self._options())

    async def close(self) -> None:
        """Close all connections. What is under way fails, and is waited for a moment."""
        self._closed = True
        for one in list(self.known):
            if isinstance(one, Connection):
                await one.disconnect(nowait=True)
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=_CONNECT)
        for one in list(self.known):  # what was on its way into the pool
            if isinstance(one, Connection):
                await one.disconnect(nowait=True)

    def forget(self) -> None:
        """In a forked child: close what was inherited, and touch nothing else."""
        self._closed = True
        for one in list(self.known):
            one.forget()

    async def _attempt(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        async with asyncio.timeout(_QUEUE) as queueing, self._turns:
            queueing.reschedule(asyncio.get_running_loop().time() + _ATTEMPT)
            client: Any = await self._client()
            rest = (len(keys), *keys, *arguments)
            try:
                return await client.execute_command("EVALSHA", script.sha, *rest)
            except NoScriptError:  # nothing was run: the server is new, or was told to forget
                return await client.execute_command("EVAL", script.text, *rest)
            except Exception as error:
                if code_word(error) == "READONLY":
                    await self._drop_idle()
                raise

    async def _client(self) -> Redis | RedisCluster:
        if self._closed:
            raise TokenStoreUnavailable("the token store was closed")
        if self._one is not None:
            return self._one
        if self._cluster is None:
            self._cluster = self._new_cluster()
        cluster = self._cluster
        try:
            await cluster.initialize()
        except Exception:
            if self._cluster is cluster:  # its list of nodes may be out of date to the last: begin with ours
                self._cluster = None
            raise
        self._nodes = {(node.host, int(node.port)) for node in cluster.get_nodes()}
        return cluster

    async def _drop_idle(self) -> None:
        if self._pool is not None:  # a cluster's client does it by itself
            await self._pool.disconnect(inuse_connections=False)

    async def _scan(self, pattern: str) -> set[bytes]:
        async with self._turns:
            async with asyncio.timeout(_ATTEMPT):
                client = await self._client()
            nodes: Iterable[Any] = [client] if isinstance(client, Redis) else client.get_primaries()
            found: set[bytes] = set()
            for node in nodes:
                cursor = None
                while cursor != 0:
                    async with asyncio.timeout(_ATTEMPT):
                        cursor, keys = await node.execute_command(
                            "SCAN", cursor or 0, "MATCH", pattern, "COUNT", _SCANNED
                        )
                    found.update(keys)
            return found

    # What redis-py is given

    def _new_pool(self) -> ConnectionPool | None:
        address, managed = self._address, cast(Any, SentinelConnectionPool)
        options = self._options() | {"connection_class": self._kind, "max_connections": _CONNECTIONS}
        match address.topology:
            case "cluster":
                return None
            case "sentinel":
                sentinel = cast(Any, Sentinel)([])
                sentinel.sentinels = [Redis(connection_pool=self._sentinel(host)) for host in address.hosts]
                return cast(ConnectionPool, managed(address.service, sentinel, db=address.db, **options))
            case "one":
                host, port = address.hosts[0]
                return ConnectionPool(host=host, port=port, db=address.db, **options)

    def _sentinel(self, host: Host) -> ConnectionPool:
        address = self._address
        user = {"username": address.sentinel_username, "password": address.sentinel_password}
        kind = self._known(SSLConnection if address.tls else Connection)
        options = self._options() | user | {"socket_timeout": _CONNECT}
        return ConnectionPool(host=host[0], port=host[1], connection_class=kind, **options)

    def _new_cluster(self) -> _Cluster:
        hosts = [*self._address.hosts, *sorted(self._nodes)]
        cluster = _Cluster(
            startup_nodes=[ClusterNode(host, port) for host, port in dict.fromkeys(hosts)],
            max_connections=_CONNECTIONS,
            ssl=self._address.tls,
            **self._options(),
        )
        cluster.commands_parser = cast(Any, _NoCommands())
        cluster.connection_kwargs["connection_class"] = self._kind
        for node in cluster.nodes_manager.startup_nodes.values():
            node.connection_class = self._kind
        return cluster

    def _options(self) -> dict[str, Any]:
        address = self._address
        return {
            "username": address.username,
            "password": address.password,
            "socket_connect_timeout": _CONNECT,
            "socket_timeout": _ANSWER,
            "socket_keepalive": True,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            **({"ssl_check_hostname": True, **address.tls_files} if address.tls else {}),
        }

    def _known(self, kind: type[Connection]) -> type[Connection]:
        return type("KnownConnection", (Known, kind), {"known": self.known})

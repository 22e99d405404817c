"""Redis servers of a test's own, to kill, restart and empty: one, a cluster, a primary with a sentinel."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import redis

from keyturn.client.record import Version
from tests.waiting import WITHIN

HOST = "127.0.0.1"


def free_port() -> int:
    """Return a port that nobody listens on, nor on the one that a cluster's nodes talk over."""
    while True:
        with socket.socket() as first, socket.socket() as bus:
            first.bind((HOST, 0))
            port: int = first.getsockname()[1]
            if port + 10_000 < 65_536:
                with contextlib.suppress(OSError):
                    bus.bind((HOST, port + 10_000))
                    return port


async def hear(heard: asyncio.Queue[Version | None], what: Version | None) -> None:
    """Return once a watcher was told so."""
    while await heard.get() != what:
        pass


def patiently(work: Callable[[], bool]) -> None:
    """Return once `work` holds without a Redis error; fail rather than hang."""
    ends = time.monotonic() + WITHIN
    while True:
        with contextlib.suppress(redis.RedisError, OSError):
            if work():
                return
        assert time.monotonic() < ends, "the Redis server did not get there"
        time.sleep(0.01)


class RedisServer:
    """One redis-server (or sentinel) process on a port and a directory of its own."""

    def __init__(
        self, *options: str, sentinel: str | None = None, password: str | None = None, port: int | None = None
    ) -> None:
        program = shutil.which("redis-server")
        if program is None:
            if os.environ.get("CI") == "true":
                pytest.fail("no redis-server to start", pytrace=False)
            pytest.skip("no redis-server to start")
        self._program = program
        self._directory = tempfile.TemporaryDirectory()
        self._options = options if password is None else (*options, "--requirepass", password)
        self._password = password
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None
        self._port = port
        self.start()

    @property
    def port(self) -> int:
        """Return the port."""
        assert self._port is not None
        return self._port

    @property
    def url(self) -> str:
        """Return the URL of database 0."""
        return f"redis://{HOST}:{self.port}/0"

    def client(self) -> redis.Redis:
        """Return a client of the server; close it."""
        return redis.Redis(host=HOST, port=self.port, socket_timeout=WITHIN, password=self._password)

    def command(self, *words: str | int) -> object:
        """Return what the server answers to a command."""
        with self.client() as client:
            return client.execute_command(*words)

    def start(self) -> None:
        """Start it, and return once it answers. What it saved is there again."""
        fixed = self._port is not None
        while True:
            port = self._port if self._port is not None else free_port()
            self._process = self._launched(port)
            self._port = port
            try:
                patiently(self._answers)
            except ChildProcessError:  # somebody took the port
                assert not fixed, "the Redis server does not start again"
                self._port = None
            else:
                return

    def stop(self) -> None:
        """End it without saving."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGCONT)
            self._process.kill()
            self._process.wait(WITHIN)
            self._process = None

    def restart(self) -> None:
        """Kill it and start it again."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Halt it: connections stay open, and nothing answers."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it for good."""
        self.stop()
        self._directory.cleanup()

    def _launched(self, port: int) -> subprocess.Popen[bytes]:
        configuration = Path(self._directory.name) / f"{port}.conf"
        if not configuration.exists():
            configuration.write_text(self._sentinel or "")
        own = ["--port", str(port), "--bind", HOST, "--dir", self._directory.name]
        kind = ["--sentinel"] if self._sentinel else ["--save", "", "--repl-diskless-sync-delay", "0"]
        return subprocess.Popen(
            [self._program, str(configuration), *kind, *own, *self._options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise ChildProcessError
        return bool(self.command("PING"))


class RedisCluster:
    """Three primaries, a third of the slots each."""

    def __init__(self, *options: str) -> None:
        cluster = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", *options)
        self.nodes: list[RedisServer] = []
        try:
            for _ in range(3):
                self.nodes.append(RedisServer(*cluster, "--cluster-require-full-coverage", "no"))
            self._join()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Return the URL of the cluster."""
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    def node_of(self, key: str) -> RedisServer:
        """Return the node that a key lies on."""
        slot = self.nodes[2].command("CLUSTER", "KEYSLOT", key)
        assert isinstance(slot, int)
        return self.nodes[min(slot // 5462, 2)]

    def close(self) -> None:
        """End it for good."""
        for node in self.nodes:
            node.close()

    def _join(self) -> None:
        bounds = [0, 5462, 10924, 16384]
        for i, node in enumerate(self.nodes):
            node.command("CLUSTER", "ADDSLOTSRANGE", bounds[i], bounds[i + 1] - 1)
            node.command("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        for node in self.nodes[1:]:
            self.nodes[0].command("CLUSTER", "MEET", HOST, node.port)
        for node in self.nodes:
            patiently(lambda node=node: self._is_whole(node))  # type: ignore[misc]

    def _is_whole(self, node: RedisServer) -> bool:
        info, slots = node.command("CLUSTER", "INFO"), node.command("CLUSTER", "SLOTS")
        return "cluster_state:ok" in str(info) and isinstance(slots, Sequence) and len(slots) == 3


class RedisSentinel:
    """A primary, a replica, and a sentinel that watches them under the name `tokens`."""

    service = "tokens"

    def __init__(self) -> None:
        self.servers: list[RedisServer] = []
        try:
            self.primary = self._added()
            self.replica = self._added("--replicaof", f"{HOST} {self.primary.port}")
            patiently(self._is_in_step)  # before the sentinel looks, which it does every ten seconds
            self.sentinel = self._added(
                sentinel=(
                    f"sentinel monitor {self.service} {HOST} {self.primary.port} 1\n"
                    f"sentinel down-after-milliseconds {self.service} 500\n"
                    f"sentinel failover-timeout {self.service} 3000\n"
                )
            )
            patiently(self._knows_the_replica)
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Return the URL by which the sentinel is asked."""
        return f"redis+sentinel://{HOST}:{self.sentinel.port}/{self.service}/0"

    def fail_over(self) -> None:
        """Make the replica the primary, and return once the sentinel says so and the old one knows.

        Until it knows, it takes writes that are lost.
        """
        self.sentinel.command("SENTINEL", "FAILOVER", self.service)
        self._until_primary(self.replica)
        self.primary, self.replica = self.replica, self.primary
        patiently(lambda: "slave" in str(self.replica.command("ROLE")))

    def kill_primary(self) -> None:
        """Kill the primary, and return once the sentinel has made the replica the primary."""
        self.primary.stop()
        self._until_primary(self.replica)
        self.primary, self.replica = self.replica, self.primary

    def close(self) -> None:
        """End all of it."""
        for server in self.servers:
            server.close()

    def _added(self, *options: str, sentinel: str | None = None) -> RedisServer:
        self.servers.append(RedisServer(*options, sentinel=sentinel))
        return self.servers[-1]

    def _until_primary(self, server: RedisServer) -> None:
        def is_primary() -> bool:
            named = self.sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
            role = server.command("ROLE")
            assert isinstance(named, Sequence)
            assert isinstance(role, Sequence)
            return int(named[1]) == server.port and role[0] in (b"master", "master")

        patiently(is_primary)

    def _is_in_step(self) -> bool:
        return "'master_link_status': 'up'" in str(self.replica.command("INFO", "replication"))

    def _knows_the_replica(self) -> bool:
        known = str(self.sentinel.command("SENTINEL", "REPLICAS", self.service))
        return re.search(r"'master-link-status'[:,] b'ok'", known) is not None


@contextlib.contextmanager
def running(server: RedisServer | RedisCluster | RedisSentinel) -> Iterator[None]:
    """Close a server at the end of `with`."""
    try:
        yield
    finally:
        server.close()

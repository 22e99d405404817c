"""keyturn on each of its adapters: one `Credentials`, and one client shared by all threads or tasks.

With httpx in threads each thread has a client of its own, and one `Auth` is
shared by all: httpx's pool now and then closes a connection that another
thread has just begun to use, with or without keyturn. singleflight-auth is
given the same, and both a pool of 50 connections for tasks: httpx's own gets
the slower, the more connections and tasks there are. `retry_for` is 2 s
instead of 30 s, so that the row of 503s ends soon.
"""

from __future__ import annotations

import importlib
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

from benchmarks.peers.peer import CLIENT_ID, TIMEOUT, TLS, Connect, Peer

import keyturn
from keyturn.client import grants


def credentials(url: str, tokens: keyturn.Tokens) -> keyturn.Credentials:
    """Return credentials for the strict server."""
    grant = grants.OAuth2(url + "/token", client_id=CLIENT_ID)
    return keyturn.Credentials(grant, tokens=tokens, origins=[url], retry_for=timedelta(seconds=2))


def httpx_threads(lib: Any, auth: Any) -> Connect:
    """Return how a `Client` of httpx or httpx2 is made."""

    @contextmanager
    def connect() -> Any:
        with lib.Client(auth=auth, verify=TLS) as client:
            yield lambda url, timeout=TIMEOUT: client.get(url, timeout=timeout).status_code

    return connect


def httpx_tasks(lib: Any, auth: Any) -> Connect:
    """Return how an `AsyncClient` of httpx or httpx2 is made."""

    @asynccontextmanager
    async def connect() -> Any:
        limits = lib.Limits(max_connections=50, max_keepalive_connections=50)
        async with lib.AsyncClient(auth=auth, verify=TLS, limits=limits) as client:

            async def get(url: str, timeout: float = TIMEOUT) -> Any:
                return (await client.get(url, timeout=timeout)).status_code

            yield get

    return connect


def requests_threads(lib: Any, auth: Any) -> Connect:
    """Return how a `Session` of requests or niquests is made."""

    @contextmanager
    def connect() -> Any:
        with lib.Session() as session:
            session.auth = auth
            yield lambda url, timeout=TIMEOUT: session.get(url, timeout=timeout).status_code

    return connect


def _niquests_tasks(lib: Any, auth: Any) -> Connect:
    @asynccontextmanager
    async def connect() -> Any:
        async with lib.AsyncSession() as session:
            session.auth = auth

            async def get(url: str, timeout: float = TIMEOUT) -> Any:
                return (await session.get(url, timeout=timeout)).status_code

            yield get

    return connect


def _aiohttp_tasks(lib: Any, middleware: Any) -> Connect:
    @asynccontextmanager
    async def connect() -> Any:
        async with lib.ClientSession(middlewares=[middleware]) as session:

            async def get(url: str, timeout: float = TIMEOUT) -> Any:
                async with session.get(url, timeout=lib.ClientTimeout(total=timeout)) as response:
                    await response.read()
                    return response.status

            yield get

    return connect


_HOSTS: list[tuple[str, Any, str, Any]] = [
    ("httpx2", "tasks", "Auth", httpx_tasks),
    ("httpx2", "threads", "Auth", httpx_threads),
    ("httpx", "tasks", "Auth", httpx_tasks),
    ("httpx", "threads", "Auth", httpx_threads),
    ("requests", "threads", "Auth", requests_threads),
    ("niquests", "tasks", "AsyncAuth", _niquests_tasks),
    ("niquests", "threads", "Auth", requests_threads),
    ("aiohttp", "tasks", "Middleware", _aiohttp_tasks),
]


def _peer(host: str, kind: Any, adapter: str, made_by: Any) -> Peer:
    def open_(url: str, tokens: keyturn.Tokens) -> Connect:
        lib, module = importlib.import_module(host), importlib.import_module(f"keyturn.client.{host}")
        return made_by(lib, getattr(module, adapter)(credentials(url, tokens)))

    return Peer("keyturn", host, kind, open_, "keyturn", each=(host, kind) == ("httpx", "threads"))


PEERS = [_peer(*one) for one in _HOSTS if find_spec(f"keyturn.client.{one[0]}") and find_spec(one[0])]

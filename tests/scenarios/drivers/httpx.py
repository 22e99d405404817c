"""httpx2 and httpx, synchronous and not, with `Auth` and with the transports."""

from __future__ import annotations

import functools
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx2

import keyturn
from tests.kit import HOSTS, Host
from tests.scenarios.drivers.base import TIMEOUT, Driver, Got, Sent, Streamed, Watch


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context()


@dataclass(frozen=True)
class _Httpx:
    host: Host
    adapter: Literal["auth", "transport"]

    @property
    def library(self) -> str:
        return str(self.host)

    @property
    def carriers(self) -> tuple[Literal["bearer", "cookies"], ...]:
        return ("bearer",) if self.adapter == "auth" else ("bearer", "cookies")

    def _pool(self, connections: int) -> dict[str, Any]:
        limits = self.host.lib.Limits(max_connections=connections, max_keepalive_connections=connections)
        return {"limits": limits, "verify": _tls()}


def _arguments(sent: Sent) -> dict[str, Any]:
    given = {"json": sent.json, "content": sent.content, "data": sent.data, "files": sent.files}
    return {name: value for name, value in given.items() if value is not None} | {"headers": sent.headers}


def _got(response: Any) -> Got:
    return Got(response.status_code, str(response.url), response.headers, response.content)


def _is_unread(response: Any) -> bool:
    return not response.is_stream_consumed and not hasattr(response, "_content")


class Sync(_Httpx):
    """A `Client`."""

    mode: Literal["sync"] = "sync"
    shares_http2 = (
        False  # of 900 requests from 30 threads some 25 end in a protocol error, without keyturn too
    )
    takes = frozenset(
        {"list", "file", "file-from-the-middle", "file-in-memory", "file-in-memory-from-the-middle"}
        | {"spooled-file", "iterator", "map", "pipe", "read-once"}
    )

    @property
    def shares(self) -> bool:
        """httpx's pool for threads (httpcore 1.0) closes what another thread has just begun to use."""
        return self.library != "httpx"

    def open(
        self, credentials: keyturn.Credentials, *, connections: int, redirects: bool, watch: Watch | None
    ) -> Any:
        lib, adapter, pool = self.host.lib, self.host.adapter, self._pool(connections)

        def watched(response: Any) -> None:
            if watch is not None:
                watch(response.status_code)

        common: dict[str, Any] = {"timeout": TIMEOUT, "trust_env": False, "follow_redirects": redirects}
        common["event_hooks"] = {"response": [watched]}
        if self.adapter == "auth":
            return lib.Client(auth=adapter.Auth(credentials), **pool, **common)
        return lib.Client(transport=adapter.Transport(credentials, lib.HTTPTransport(**pool)), **common)

    def open_http2(self, credentials: keyturn.Credentials, ca: Path) -> Any:
        """Return a client for a server that `ca` vouches for."""
        lib, adapter = self.host.lib, self.host.adapter
        pool = {"verify": ssl.create_default_context(cafile=ca), "http2": True}
        common = {"timeout": TIMEOUT, "trust_env": False}
        if self.adapter == "auth":
            return lib.Client(auth=adapter.Auth(credentials), **pool, **common)
        return lib.Client(transport=adapter.Transport(credentials, lib.HTTPTransport(**pool)), **common)

    def close(self, client: Any) -> None:
        client.close()

    def send(self, client: Any, sent: Sent) -> Got:
        how = {"auth": None} if sent.bare else {}
        return _got(client.request(sent.method, sent.url, **_arguments(sent), **how))

    def stream(self, client: Any, url: str) -> Streamed:
        with client.stream("GET", url) as response:
            unread = _is_unread(response)
            return Streamed(response.status_code, unread, sum(len(chunk) for chunk in response.iter_bytes()))


class Async(_Httpx):
    """An `AsyncClient`."""

    mode: Literal["async"] = "async"
    shares_http2 = True
    takes = frozenset({"async-file", "awaited-file"})
    shares = True

    async def open(
        self, credentials: keyturn.Credentials, *, connections: int, redirects: bool, watch: Watch | None
    ) -> Any:
        lib, adapter, pool = self.host.lib, self.host.adapter, self._pool(connections)

        async def watched(response: Any) -> None:
            if watch is not None:
                watch(response.status_code)

        common: dict[str, Any] = {"timeout": TIMEOUT, "trust_env": False, "follow_redirects": redirects}
        common["event_hooks"] = {"response": [watched]}
        if self.adapter == "auth":
            return lib.AsyncClient(auth=adapter.Auth(credentials), **pool, **common)
        inner = lib.AsyncHTTPTransport(**pool)
        return lib.AsyncClient(transport=adapter.AsyncTransport(credentials, inner), **common)

    async def open_http2(self, credentials: keyturn.Credentials, ca: Path) -> Any:
        """Return a client for a server that `ca` vouches for."""
        lib, adapter = self.host.lib, self.host.adapter
        pool = {"verify": ssl.create_default_context(cafile=ca), "http2": True}
        common = {"timeout": TIMEOUT, "trust_env": False}
        if self.adapter == "auth":
            return lib.AsyncClient(auth=adapter.Auth(credentials), **pool, **common)
        inner = lib.AsyncHTTPTransport(**pool)
        return lib.AsyncClient(transport=adapter.AsyncTransport(credentials, inner), **common)

    async def close(self, client: Any) -> None:
        await client.aclose()

    async def send(self, client: Any, sent: Sent) -> Got:
        how = {"auth": None} if sent.bare else {}
        return _got(await client.request(sent.method, sent.url, **_arguments(sent), **how))

    async def stream(self, client: Any, url: str) -> Streamed:
        async with client.stream("GET", url) as response:
            unread, size = _is_unread(response), 0
            async for chunk in response.aiter_bytes():
                size += len(chunk)
            return Streamed(response.status_code, unread, size)


_ADAPTERS: tuple[Literal["auth", "transport"], ...] = ("auth", "transport")
DRIVERS: list[Driver] = [
    mode(host, adapter) for host in HOSTS for mode in (Sync, Async) for adapter in _ADAPTERS
]

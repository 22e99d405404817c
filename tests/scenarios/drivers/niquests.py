"""niquests with `Auth` and `AsyncAuth`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import niquests

import keyturn
from keyturn.client.niquests import AsyncAuth, Auth
from tests.kit import CONNECTIONS
from tests.scenarios.drivers.base import TIMEOUT, Driver, Got, Sent, Streamed, Watch
from tests.scenarios.drivers.requests import arguments


class _Niquests:
    library = "niquests"
    adapter = "auth"
    carriers: tuple[Literal["bearer", "cookies"], ...] = ("bearer", "cookies")
    shares = True
    shares_http2 = True


def _opened(kind: Any, auth: object, connections: int, redirects: bool, watch: Watch | None) -> Any:
    session = kind(pool_maxsize=connections, auth=auth, disable_http3=True)
    session.trust_env = False
    if not redirects:
        session.max_redirects = 0
    if watch is not None:
        session.hooks["response"].append(lambda response, **_: watch(response.status_code))
    return session


class Sync(_Niquests):
    """A `Session`."""

    mode: Literal["sync"] = "sync"
    takes = frozenset(
        {"file", "file-from-the-middle", "file-in-memory", "file-in-memory-from-the-middle"}
        | {"spooled-file", "iterator", "map", "pipe", "read-once"}
    )

    def open(
        self, credentials: keyturn.Credentials, *, connections: int, redirects: bool, watch: Watch | None
    ) -> Any:
        return _opened(niquests.Session, Auth(credentials), connections, redirects, watch)

    def open_http2(self, credentials: keyturn.Credentials, ca: Path) -> Any:
        """Return a session for a server that `ca` vouches for."""
        session = _opened(niquests.Session, Auth(credentials), CONNECTIONS, False, None)
        session.verify = str(ca)
        return session

    def close(self, client: Any) -> None:
        client.close()

    def send(self, client: Any, sent: Sent) -> Got:
        response = client.request(sent.method, sent.url, timeout=TIMEOUT, **arguments(client, sent))
        return Got(response.status_code, response.url, response.headers, response.content)

    def stream(self, client: Any, url: str) -> Streamed:
        with client.get(url, stream=True, timeout=TIMEOUT) as response:
            unread = response._content is False and not response._content_consumed
            size = sum(len(chunk) for chunk in response.iter_content(65536))
            return Streamed(response.status_code, unread, size)


class Async(_Niquests):
    """An `AsyncSession`."""

    mode: Literal["async"] = "async"
    takes = frozenset({"file", "file-in-memory", "async-file", "awaited-file"})

    async def open(
        self, credentials: keyturn.Credentials, *, connections: int, redirects: bool, watch: Watch | None
    ) -> Any:
        return _opened(niquests.AsyncSession, AsyncAuth(credentials), connections, redirects, watch)

    async def open_http2(self, credentials: keyturn.Credentials, ca: Path) -> Any:
        """Return a session for a server that `ca` vouches for."""
        session = _opened(niquests.AsyncSession, AsyncAuth(credentials), CONNECTIONS, False, None)
        session.verify = str(ca)
        return session

    async def close(self, client: Any) -> None:
        await client.close()

    async def send(self, client: Any, sent: Sent) -> Got:
        how = arguments(client, sent)
        response = await client.request(sent.method, sent.url, timeout=TIMEOUT, **how)
        return Got(response.status_code, response.url, response.headers, response.content)

    async def stream(self, client: Any, url: str) -> Streamed:
        async with await client.get(url, stream=True, timeout=TIMEOUT) as response:
            unread, size = response._content is False and not response._content_consumed, 0
            async for chunk in await response.iter_content(65536):
                size += len(chunk)
            return Streamed(response.status_code, unread, size)


DRIVERS: list[Driver] = [Sync(), Async()]

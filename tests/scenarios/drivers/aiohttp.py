"""aiohttp, with `Middleware`."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp

import keyturn
from keyturn.client.aiohttp import Middleware
from tests.scenarios.drivers.base import TIMEOUT, Driver, Got, Sent, Streamed, Watch


@dataclass(frozen=True)
class _Aiohttp:
    """A `ClientSession`, whose jar also keeps the cookies of a server without a name."""

    library: str = "aiohttp"
    adapter: str = "middleware"
    mode: Literal["async"] = "async"
    carriers: tuple[Literal["bearer", "cookies"], ...] = ("bearer", "cookies")
    takes: frozenset[str] = frozenset(
        {"file", "file-from-the-middle", "file-in-memory", "file-in-memory-from-the-middle"}
        | {"spooled-file", "pipe", "async-file", "awaited-file"}
    )
    shares: bool = True

    async def open(
        self, credentials: keyturn.Credentials, *, connections: int, redirects: bool, watch: Watch | None
    ) -> _Client:
        async def watched(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            response = await handler(request)
            if watch is not None:
                watch(response.status)
            return response

        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections),
            cookie_jar=aiohttp.CookieJar(unsafe=True),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT),
            json_serialize=functools.partial(json.dumps, separators=(",", ":")),
            middlewares=[watched, Middleware(credentials)],
        )
        return _Client(session, redirects)

    async def close(self, client: _Client) -> None:
        await client.session.close()

    async def send(self, client: _Client, sent: Sent) -> Got:
        how: dict[str, Any] = {"middlewares": ()} if sent.bare else {}
        async with client.session.request(
            sent.method,
            sent.url,
            json=sent.json,
            data=_data(sent),
            headers=sent.headers,
            allow_redirects=client.redirects,
            **how,
        ) as response:
            content = await response.read()
            return Got(response.status, str(response.url), response.headers, content)

    async def stream(self, client: _Client, url: str) -> Streamed:
        async with client.session.get(url) as response:
            unread, size = not response.content.at_eof(), 0
            async for chunk in response.content.iter_any():
                size += len(chunk)
            return Streamed(response.status, unread, size)


@dataclass(frozen=True)
class _Client:
    session: aiohttp.ClientSession
    redirects: bool


def _data(sent: Sent) -> Any:
    if sent.files is None:
        return sent.content if sent.data is None else sent.data
    form = aiohttp.FormData(sent.data or {})
    for name, (filename, file, content_type) in sent.files:
        form.add_field(name, file, filename=filename, content_type=content_type)
    return form


DRIVERS: list[Driver] = [_Aiohttp()]

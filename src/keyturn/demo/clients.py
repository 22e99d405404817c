"""The two clients that are compared, and how their requests are recorded.

Both are an `httpx2.AsyncClient` with an `auth`; that is the only difference.
Neither is told when its access token expires: both learn it from a 401, as
after a clock that runs wrong or a token that was revoked. (A client that
knows would refresh before it sends; keyturn does, and then there is no 401.)
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Generator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field

import httpx2

import keyturn
from keyturn.client import grants
from keyturn.client.httpx2 import Auth
from keyturn.demo import scene
from keyturn.demo.record import Call, Kind, Lane, Request, from_first

NAIVE = "Naive: every refused call refreshes for itself"
KEYTURN = "keyturn: one refresh, the others wait for it"

_PATIENCE = 20.0  # seconds for one request
_call: ContextVar[int | None] = ContextVar("call", default=None)


class NaiveAuth(httpx2.Auth):
    """Refresh on a 401, then send the request again: right for one call at a time.

    Nothing in it looks wrong. Yet whoever is refused while another call is
    refreshing has no way to know, and sends the same refresh token.
    """

    requires_response_body = True

    def __init__(self, url: str, access: str, refresh: str) -> None:
        self.url = url
        self.access = access
        self.refresh = refresh

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        request.headers["Authorization"] = f"Bearer {self.access}"
        response = yield request
        if response.status_code == 401:
            refreshed = yield httpx2.Request("POST", self.url, json={"refresh_token": self.refresh})
            refreshed.raise_for_status()
            self.access = refreshed.json()["access_token"]
            self.refresh = refreshed.json()["refresh_token"]
            request.headers["Authorization"] = f"Bearer {self.access}"
            yield request


async def naive(base: str, pair: keyturn.Tokens, paths: Sequence[str]) -> Lane:
    """Make all calls at once with the naive client, and return what was seen."""
    auth = NaiveAuth(base + scene.REFRESH, pair.access, pair.refresh or "")
    log = Log(len(paths))
    calls = await _storm(base, auth, log, paths)
    return await _lane(NAIVE, base, calls, log, auth.refresh)


async def with_keyturn(base: str, pair: keyturn.Tokens, paths: Sequence[str]) -> Lane:
    """Make all calls at once with keyturn, and return what was seen."""
    log = Log(len(paths))
    grant = grants.JSON(base + scene.REFRESH, http=lambda: _client(base, log))
    believed = keyturn.Tokens(pair.access, pair.refresh, expires_at=time.time() + 3600)
    async with keyturn.Credentials(grant, tokens=believed, origins=[base]) as credentials:
        calls = await _storm(base, Auth(credentials), log, paths)
        kept = credentials.tokens
    return await _lane(KEYTURN, base, calls, log, kept.refresh if kept else None)


def plain(base: str) -> httpx2.AsyncClient:
    """Return a client that adds nothing and records nothing."""
    return httpx2.AsyncClient(base_url=base, transport=_wire(), timeout=_PATIENCE)


@dataclass
class Log:
    """What went over the wire, for `calls` calls.

    The answers to the first try of every call are handed on when the last of
    them is in. On a page they come back within moments of each other; here
    they do so in every run, whatever else the machine has to do.
    """

    calls: int
    requests: list[Request] = field(default_factory=list)
    refusals: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._tried: set[int | None] = set()
        self._missing = self.calls
        self._all_in = asyncio.Event()

    def kind(self, path: str, call: int | None) -> Kind:
        """Tell what a request is that is about to be sent."""
        if path == scene.REFRESH:
            return "refresh"
        if call in self._tried:
            return "replay"
        self._tried.add(call)
        return "call"

    def first_try_is_over(self) -> None:
        """Count a first try, answered or failed."""
        self._missing -= 1
        if not self._missing:
            self._all_in.set()

    async def first_tries(self) -> None:
        """Return when every call has been tried once."""
        await self._all_in.wait()


class Recorder(httpx2.AsyncBaseTransport):
    """Writes down every request that leaves, from its start to the last byte of its answer."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._wire = _wire()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        call, path = _call.get(), request.url.path
        kind = self._log.kind(path, call)
        status = None
        start = time.perf_counter()
        try:
            response = await self._wire.handle_async_request(request)
            await response.aread()
            status = response.status_code
        finally:
            end = time.perf_counter()
            self._log.requests.append(Request(path, kind, start * 1000, end * 1000, status, call))
            if kind == "call":
                self._log.first_try_is_over()
        if kind == "call":
            await self._log.first_tries()
        if kind == "refresh" and status in (400, 401):
            self._log.refusals.add(response.json()["code"])
        return response

    async def aclose(self) -> None:
        await self._wire.aclose()


def _wire() -> httpx2.AsyncHTTPTransport:
    # Nobody waits for a place. And there is no TLS on a loopback: to load the
    # certificates of the world's authorities would be drawn as time that a client takes.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx2.AsyncHTTPTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), limits=limits)


def _client(base: str, log: Log, auth: httpx2.Auth | None = None) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=base, auth=auth, transport=Recorder(log), timeout=_PATIENCE)


async def _storm(base: str, auth: httpx2.Auth, log: Log, paths: Sequence[str]) -> tuple[Call, ...]:
    async with _client(base, log, auth) as api:

        async def get(index: int, path: str) -> Call:
            _call.set(index)
            try:
                return Call(path, (await api.get(path)).status_code)
            except httpx2.HTTPStatusError as refused:
                return Call(path, refused.response.status_code)
            except keyturn.KeyturnError:
                return Call(path, None)

        return tuple(await asyncio.gather(*(get(*one) for one in enumerate(paths))))


async def _lane(client: str, base: str, calls: tuple[Call, ...], log: Log, kept: str | None) -> Lane:
    return Lane(
        client, calls, from_first(log.requests), await _signed_in(base, kept), frozenset(log.refusals)
    )


async def _signed_in(base: str, refresh: str | None) -> bool:
    """Ask the server whether what a client kept still opens anything: one more refresh, one more call."""
    if refresh is None:
        return False
    async with plain(base) as api:
        renewed = await api.post(scene.REFRESH, json={"refresh_token": refresh})
        if not renewed.is_success:
            return False
        bearer = {"Authorization": f"Bearer {renewed.json()['access_token']}"}
        return (await api.get("/statistics", headers=bearer)).is_success

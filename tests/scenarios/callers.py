"""The ways to send a request through keyturn, each behind one blocking interface.

A `Way` is an HTTP library, sync or async, `Auth` or a transport, bearer
tokens or cookies. A test that takes one says what it expects once, for all of
them: a `Caller` sends from threads or from tasks of one loop, as its way says.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import cycle
from typing import Any, Literal, Self, TypeVar

import pytest
from _pytest.mark import ParameterSet

import keyturn
from keyturn.client import grants
from keyturn.client.carriers import Bearer, Cookies
from keyturn.testing import Seen, StrictServer
from tests.kit import CONNECTIONS, HOSTS, Host, Log

T = TypeVar("T")

_LONGEST = 60.0


@dataclass(frozen=True)
class Way:
    """One way to send a request."""

    host: Host
    mode: Literal["sync", "async"]
    adapter: Literal["auth", "transport"]
    carrier: Literal["bearer", "cookies"]

    def __str__(self) -> str:
        return f"{self.host}-{self.mode}-{self.adapter}-{self.carrier}"

    @property
    def is_async(self) -> bool:
        return self.mode == "async"

    def sign_in(
        self, server: StrictServer, subject: str = "alice", ttl: float | None = None
    ) -> keyturn.Tokens:
        """Start a session at the server, with tokens that ride as this way has them."""
        return (server.sign_in if self.carrier == "bearer" else server.sign_in_cookies)(subject, ttl)

    def grant(self, server: StrictServer, **options: Any) -> grants.Grant:
        """Return the grant for the server's end point."""
        return self.grant_at(server.url, **options)

    def grant_at(self, url: str, *, client_id: str = "tests", **options: Any) -> grants.Grant:
        """Return the grant for the end point of a server that may not be there."""
        if self.carrier == "bearer":
            return grants.OAuth2(url + "/token", client_id=client_id, **options)
        return grants.Cookies(url + "/token/refresh", **options)

    def credentials(
        self, server: StrictServer, *, ttl: float | None = None, **options: Any
    ) -> keyturn.Credentials:
        """Return credentials that are signed in as alice unless `tokens` says otherwise."""
        options.setdefault("origins", [server.url])
        options.setdefault("retry_for", timedelta(seconds=5))
        grant = options.pop("grant", None) or self.grant(server)
        tokens = options.pop("tokens", None) or self.sign_in(server, ttl=ttl)
        return keyturn.Credentials(grant, tokens=tokens, **options)

    def renewing(self) -> Bearer | Cookies:
        """Return a carrier for a server whose every answer carries a newer pair."""
        if self.carrier == "cookies":
            return Cookies(renews=True)
        names = {"access": "X-Access-Token", "refresh": "X-Refresh-Token", "expires_in": "X-Expires-In"}
        return Bearer(adopt=names)

    def client(self, server: StrictServer, credentials: keyturn.Credentials, **options: Any) -> Any:
        """Return a client of the HTTP library; `connections` bounds its pool."""
        lib, adapter = self.host.lib, self.host.adapter
        count = options.pop("connections", CONNECTIONS)
        pool = {"limits": lib.Limits(max_connections=count, max_keepalive_connections=count), "verify": False}
        common = {"base_url": server.url, "timeout": _LONGEST, "trust_env": False} | options
        client = lib.AsyncClient if self.is_async else lib.Client
        if self.adapter == "auth":
            return client(auth=adapter.Auth(credentials), **pool, **common)
        inner = (lib.AsyncHTTPTransport if self.is_async else lib.HTTPTransport)(**pool)
        wrapped = (adapter.AsyncTransport if self.is_async else adapter.Transport)(credentials, inner)
        return client(transport=wrapped, **common)

    def generator(self, chunks: Iterable[bytes]) -> Iterator[bytes] | AsyncIterator[bytes]:
        """Return a generator of the kind that this way's client takes for a body."""
        return _async_chunks(list(chunks)) if self.is_async else (chunk for chunk in list(chunks))


_KINDS: list[tuple[Literal["auth", "transport"], Literal["bearer", "cookies"]]] = [
    ("auth", "bearer"),
    ("transport", "bearer"),
    ("transport", "cookies"),
]
_MODES: list[Literal["sync", "async"]] = ["sync", "async"]
WAYS = [Way(host, mode, *kind) for host in HOSTS for mode in _MODES for kind in _KINDS]

# For what is decided above the adapters: each library, mode, adapter and carrier still occurs.
FEW = [WAYS[0], WAYS[5], WAYS[8], WAYS[9]]


def in_turn(cases: Iterable[str], ways: list[Way], at_once: int = 1) -> list[ParameterSet]:
    """Return each case with the next `at_once` of the ways, which take turns, for `(case, way)`."""
    turns = cycle(ways)
    pairs = [(case, next(turns)) for case in cases for _ in range(at_once)]
    return [pytest.param(case, way, id=f"{case}-{way}") for case, way in pairs]


class Caller:
    """A client whose requests may be started together and are answered in futures.

    httpx's pool for threads (httpcore 1.0) now and then closes a connection
    that another thread has just begun to use, with or without keyturn, so
    there each thread has a client of its own, unless `connections` are counted.
    """

    def __init__(
        self, way: Way, server: StrictServer, credentials: keyturn.Credentials, **options: Any
    ) -> None:
        self._credentials = credentials
        self._way, self._make = way, partial(way.client, server, credentials, **options)
        self._one_each = way.mode == "sync" and str(way.host) == "httpx" and "connections" not in options
        self._clients: list[Any] = []
        self._of_thread = threading.local()

    def __enter__(self) -> Self:
        if self._way.is_async:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
            self._thread.start()
        else:
            self._pool = ThreadPoolExecutor(100)
        self.client = self._new_client()
        return self

    def __exit__(self, *_: object) -> None:
        flight = self._credentials._flight
        if flight is not None:  # a refresh that nobody waits for must not arrive in the next test
            flight.settle(10.0)
        if self._way.is_async:
            self.run(self.client.aclose()).result(_LONGEST)
            self.run(_cancel_all()).result(_LONGEST)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_LONGEST)
            self._loop.close()
        else:
            self._pool.shutdown(wait=False, cancel_futures=True)
            for client in self._clients:
                client.close()

    def _new_client(self) -> Any:
        client = self._make()
        self._clients.append(client)
        return client

    def _request(self, method: str, path: str, **request: Any) -> Any:
        client = self.client
        if self._one_each:
            client = getattr(self._of_thread, "client", None) or self._new_client()
            self._of_thread.client = client
        return client.request(method, path, **request)

    def run(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Run a coroutine on this caller's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def start(self, method: str, path: str, **request: Any) -> Future[Any]:
        """Send a request from a thread or task of its own."""
        if self._way.is_async:
            return self.run(self.client.request(method, path, **request))
        return self._pool.submit(self._request, method, path, **request)

    def send(self, method: str, path: str, **request: Any) -> Any:
        """Send a request and return the response, or raise."""
        return self.start(method, path, **request).result(_LONGEST)

    def start_many(self, count: int, path: str = "/statistics") -> list[Future[Any]]:
        """Start `count` GETs, each to a path of its own."""
        return [self.start("GET", f"{path}/{i}") for i in range(count)]

    def send_many(self, count: int, path: str = "/statistics") -> list[Any]:
        """Send `count` GETs together and return what became of each."""
        return results(self.start_many(count, path))


def results(futures: Iterable[Future[Any]]) -> list[Any]:
    """Return what became of each future: the status of a response, or the exception."""
    return [future.exception(_LONGEST) or future.result().status_code for future in futures]


def until(reached: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return as soon as something is so; fail if it does not come about."""
    ends = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.002)


def waiting(credentials: keyturn.Credentials) -> int:
    """Return how many callers wait for the flight in the air."""
    flight = credentials._flight
    return 0 if flight is None else flight.figures()["waiters"]


def told_of(log: Log, kind: type[T]) -> list[T]:
    """Return the events of one kind once there is one: callers may be answered before it is told."""
    until(lambda: bool(log.of(kind)))
    return log.of(kind)


def token_requests(server: StrictServer) -> list[Seen]:
    """Return the requests that the server's token end points have seen."""
    return [one for one in server.seen if one.path.startswith("/token")]


def api_requests(server: StrictServer) -> list[Seen]:
    """Return the other requests that the server has seen."""
    return [one for one in server.seen if not one.path.startswith("/token")]


class ShiftedClock:
    """The machine's clock, ahead by `seconds`: what the server still takes looks old to the client."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return time.time() + self.seconds


async def _async_chunks(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)

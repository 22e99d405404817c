"""The ways to send a request through keyturn, each behind one blocking interface.

A `Way` is a driver (an HTTP library, sync or async, with one of keyturn's
adapters for it) and a carrier: bearer tokens or cookies. A test that takes one
says what it expects once, for all of them: a `Caller` sends from threads or
from tasks of one loop, as its way says.
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
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar, cast

import pytest
from _pytest.mark import ParameterSet

import keyturn
from keyturn.client import grants
from keyturn.client.carriers import Bearer, Cookies
from keyturn.testing import Seen, StrictServer
from tests.kit import CONNECTIONS, Log
from tests.scenarios.drivers import aiohttp, httpx, niquests, requests
from tests.scenarios.drivers.base import Driver, Got, Sent, Streamed, Watch

T = TypeVar("T")

_LONGEST = 60.0


@dataclass(frozen=True)
class Way:
    """One way to send a request."""

    driver: Driver
    carrier: Literal["bearer", "cookies"]

    def __str__(self) -> str:
        driver = self.driver
        return f"{driver.library}-{driver.mode}-{driver.adapter}-{self.carrier}"

    @property
    def is_async(self) -> bool:
        return self.driver.mode == "async"

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

    def generator(self, chunks: Iterable[bytes]) -> Iterator[bytes] | AsyncIterator[bytes]:
        """Return a generator of the kind that this way's client takes for a body."""
        return _async_chunks(list(chunks)) if self.is_async else (chunk for chunk in list(chunks))


DRIVERS = [driver for library in (httpx, aiohttp, requests, niquests) for driver in library.DRIVERS]
WAYS = [Way(driver, carrier) for driver in DRIVERS for carrier in driver.carriers]
HTTPX = [way for way in WAYS if way.driver.library in {"httpx", "httpx2"}]


def _few(ways: Iterable[Way]) -> Iterator[Way]:
    """Yield one way for each mode of each library, whose adapters and carriers take turns."""
    groups: dict[tuple[str, str], list[Way]] = {}
    for way in ways:
        groups.setdefault((way.driver.library, way.driver.mode), []).append(way)
    for i, group in enumerate(groups.values()):
        yield group[i % len(group)]


# For what is decided above the adapters.
FEW = list(_few(WAYS))


def in_turn(cases: Iterable[str], ways: list[Way], at_once: int = 1) -> list[ParameterSet]:
    """Return each case with the next `at_once` of the ways, and each way at least once, for `(case, way)`."""
    wanted = [case for case in cases for _ in range(at_once)]
    count = max(len(wanted), len(ways))
    pairs = islice(zip(cycle(wanted), cycle(ways), strict=False), count)
    return [pytest.param(case, way, id=f"{case}-{way}") for case, way in pairs]


class Server(Protocol):
    """Where requests go."""

    @property
    def url(self) -> str: ...


class Caller:
    """A client whose requests may be started together and are answered in futures.

    `connections` bounds its pool; `http2` names the authority's file for a
    server that speaks it. Where threads must not share a client of
    the library's, each has one of its own unless they are counted.
    """

    def __init__(
        self,
        way: Way,
        server: Server,
        credentials: keyturn.Credentials,
        *,
        connections: int | None = None,
        redirects: bool = False,
        watch: Watch | None = None,
        http2: Path | None = None,
    ) -> None:
        self._way, self._url, self._credentials = way, server.url, credentials
        count = CONNECTIONS if connections is None else connections
        self._open = partial(
            way.driver.open, credentials, connections=count, redirects=redirects, watch=watch
        )
        if http2 is not None:
            self._open = partial(cast(Any, way.driver).open_http2, credentials, http2)
        self._one_each = connections is None and not way.driver.shares
        self._clients: list[Any] = []
        self._of_thread = threading.local()

    def __enter__(self) -> Self:
        if self._way.is_async:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
            self._thread.start()
            self.client = self.run(self._open()).result(_LONGEST)
        else:
            self._pool = ThreadPoolExecutor(200)
            self.client = self._new_client()
        return self

    def __exit__(self, *_: object) -> None:
        flight = self._credentials._flight
        if flight is not None:  # a refresh that nobody waits for must not arrive in the next test
            flight.settle(10.0)
        if self._way.is_async:
            self.run(self._way.driver.close(self.client)).result(_LONGEST)
            self.run(_cancel_all()).result(_LONGEST)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_LONGEST)
            self._loop.close()
        else:
            self._pool.shutdown(wait=False, cancel_futures=True)
            for client in self._clients:
                self._way.driver.close(client)

    def _new_client(self) -> Any:
        client = self._open()
        self._clients.append(client)
        return client

    def _of_this_thread(self) -> Any:
        if not self._one_each:
            return self.client
        if not hasattr(self._of_thread, "client"):
            self._of_thread.client = self._new_client()
        return self._of_thread.client

    def run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on this caller's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def start(self, method: str, path: str, **body: Any) -> Future[Got]:
        """Send a request, to a path of the server or a full URL, from a thread or task of its own."""
        driver, sent = self._way.driver, Sent(method, self._at(path), **body)
        if self._way.is_async:
            return self.run(driver.send(self.client, sent))
        return self._pool.submit(lambda: driver.send(self._of_this_thread(), sent))

    def send(self, method: str, path: str, **body: Any) -> Got:
        """Send a request and return the response, or raise."""
        return self.start(method, path, **body).result(_LONGEST)

    def stream(self, path: str) -> Streamed:
        """Stream a GET, and return how it reached the caller."""
        streamed: Any = self._way.driver.stream(self.client, self._at(path))
        return cast(Streamed, self.run(streamed).result(_LONGEST) if self._way.is_async else streamed)

    def start_many(self, count: int, path: str = "/statistics") -> list[Future[Got]]:
        """Start `count` GETs, each to a path of its own."""
        return [self.start("GET", f"{path}/{i}") for i in range(count)]

    def send_many(self, count: int, path: str = "/statistics") -> list[Any]:
        """Send `count` GETs together and return what became of each."""
        return results(self.start_many(count, path))

    def _at(self, path: str) -> str:
        return self._url + path if path.startswith("/") else path


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

"""How long 1,000 tasks take whose token has expired, against the ideal.

    uv run --group bench python -m benchmarks.client_wall

The ideal is one refresh, by itself, and the same 1,000 requests through the
bare client with a token that is good. All three are timed in turn on one
strict server, the refresh taking 50 ms there; the minimum of the rounds
counts. Every batch has a client of its own and no connections yet. httpx is
left out: bare or not, its pool takes half a minute for 1,000 tasks at once.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx2
import niquests

import keyturn
import keyturn.client.aiohttp
import keyturn.client.httpx2
import keyturn.client.niquests
from keyturn.client import grants
from keyturn.testing import StrictServer

ROUNDS, TASKS, CONNECTIONS = 4, 1000, 100


@dataclass(frozen=True)
class Wall:
    """Seconds: of one refresh, of the bare batch, and of keyturn's batch, which includes a refresh."""

    host: str
    refresh: float
    bare: float
    keyturn: float

    @property
    def ratio(self) -> float:
        """Return how much longer than the ideal it took."""
        return self.keyturn / (self.refresh + self.bare)


def _family(lib: Any, adapter: Any) -> Any:
    def client(credentials: keyturn.Credentials | None, access: str) -> Any:
        auth = None if credentials is None else adapter.Auth(credentials)
        headers = {} if credentials else {"Authorization": "Bearer " + access}
        limits = lib.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        made = lib.AsyncClient(auth=auth, headers=headers, limits=limits, timeout=60.0)
        return made, made.get

    return client


def _aiohttp(credentials: keyturn.Credentials | None, access: str) -> Any:
    middlewares = [] if credentials is None else [keyturn.client.aiohttp.Middleware(credentials)]
    headers = {} if credentials else {"Authorization": "Bearer " + access}
    session = aiohttp.ClientSession(
        middlewares=middlewares, headers=headers, connector=aiohttp.TCPConnector(limit=CONNECTIONS)
    )

    async def get(url: str) -> Any:
        async with session.get(url) as response:
            await response.read()
            return response

    return session, get


def _niquests(credentials: keyturn.Credentials | None, access: str) -> Any:
    session = niquests.AsyncSession(pool_maxsize=CONNECTIONS)
    session.trust_env = False
    if credentials is None:
        session.headers["Authorization"] = "Bearer " + access
    else:
        session.auth = keyturn.client.niquests.AsyncAuth(credentials)
    return session, session.get


HOSTS = {
    "httpx2": _family(httpx2, keyturn.client.httpx2),
    "niquests": _niquests,
    "aiohttp": _aiohttp,
}


def _credentials(server: StrictServer, ttl: float) -> keyturn.Credentials:
    grant = grants.OAuth2(server.url + "/token", client_id="benchmark")
    return keyturn.Credentials(grant, tokens=server.sign_in(ttl=ttl), origins=[server.url])


async def _batch(made: Any, server: StrictServer, count: int) -> float:
    client, get = made
    urls = [f"{server.url}/statistics/{i}" for i in range(count)]
    async with client:
        started = time.perf_counter()
        answers = await asyncio.gather(*(get(url) for url in urls))
        took = time.perf_counter() - started
    statuses = {getattr(one, "status_code", None) or one.status for one in answers}
    assert statuses == {200}, statuses
    return took


async def _refresh(server: StrictServer) -> float:
    async with _credentials(server, ttl=0.0) as credentials:
        started = time.perf_counter()
        await credentials.aget_tokens()
        return time.perf_counter() - started


def _timed(work: Callable[[], Awaitable[float]]) -> float:
    async def main() -> float:
        return await work()

    gc.collect()
    return asyncio.run(main())


def measure(rounds: int = ROUNDS, count: int = TASKS) -> list[Wall]:
    """Return the times on every host that has tasks."""
    with StrictServer(ttl=3600.0, refresh_delay=0.05) as server:
        return [_measure(host, client, server, rounds, count) for host, client in HOSTS.items()]


def _measure(host: str, client: Any, server: StrictServer, rounds: int, count: int) -> Wall:
    access = server.sign_in().access

    async def bare() -> float:
        return await _batch(client(None, access), server, count)

    async def ours() -> float:
        return await _batch(client(_credentials(server, ttl=0.0), access), server, count)

    async def refresh() -> float:
        return await _refresh(server)

    times = [(_timed(refresh), _timed(bare), _timed(ours)) for _ in range(rounds)]
    alone, batch, both = (min(column) for column in zip(*times, strict=True))
    return Wall(host, alone, batch, both)


def main() -> None:
    """Print the times."""
    for wall in measure():
        sys.stdout.write(
            f"{wall.host:10} refresh {wall.refresh * 1e3:6.1f} ms + bare {wall.bare * 1e3:7.1f} ms"
            f"  keyturn {wall.keyturn * 1e3:7.1f} ms  {wall.ratio:.3f}x\n"
        )


if __name__ == "__main__":
    main()

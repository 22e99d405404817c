"""What the auth layer costs a request with a fresh token, over the bare client with a static header.

    uv run python benchmarks/client_overhead.py

Interleaved rounds over a transport that answers from memory; the minimum of
the rounds counts, in microseconds of this process's CPU. `null` is an auth
class that only hands the request on: what the host library charges for any
`auth=` at all. The ratio to a real request is measured on loopback.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import httpx
import httpx2

import keyturn
import keyturn.client.httpx
import keyturn.client.httpx2
from keyturn.client import grants
from keyturn.testing import StrictServer

ROUNDS, CALLS = 400, 50
ORIGIN = "http://127.0.0.1:9"


def credentials(origin: str, tokens: keyturn.Tokens) -> keyturn.Credentials:
    """Return credentials whose token stays fresh for the whole run."""
    return keyturn.Credentials(grants.OAuth2(origin + "/token"), tokens=tokens, origins=[origin])


def null_auth(lib: Any) -> Any:
    """Return an auth object of `lib` that only hands the request on."""

    class Null(lib.Auth):  # type: ignore[misc]
        def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            yield request

        async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
            yield request

    return Null()


def variants(lib: Any, adapter: Any, origin: str, tokens: keyturn.Tokens) -> dict[str, dict[str, Any]]:
    """Return the clients' arguments, by name."""
    static = {"Authorization": "Bearer " + tokens.access}
    return {
        "static header": {"headers": static},
        "null": {"headers": static, "auth": null_auth(lib)},
        "keyturn": {"auth": adapter.Auth(credentials(origin, tokens))},
    }


def sync_round(client: Any, calls: int) -> float:
    """Return the CPU seconds of one synchronous call."""
    started = time.process_time()
    for _ in range(calls):
        client.get("/statistics")
    return (time.process_time() - started) / calls


async def async_round(client: Any, calls: int) -> float:
    """Return the CPU seconds of one asynchronous call."""
    started = time.process_time()
    for _ in range(calls):
        await client.get("/statistics")
    return (time.process_time() - started) / calls


def best(rounds: dict[str, Callable[[], float]], count: int) -> dict[str, float]:
    """Run every variant once a round, each round in another order; return the minimum of each."""
    minimum = dict.fromkeys(rounds, float("inf"))
    names = list(rounds)
    gc.disable()
    for _ in range(count):
        random.shuffle(names)
        for name in names:
            minimum[name] = min(minimum[name], rounds[name]())
            gc.collect()
    gc.enable()
    return minimum


def report(title: str, figures: dict[str, float]) -> None:
    """Print one comparison."""
    base = figures["static header"]
    cells = "  ".join(
        f"{name} {value * 1e6:6.1f} us ({(value - base) * 1e6:+5.2f} us, {value / base:.3f}x)"
        for name, value in figures.items()
    )
    sys.stdout.write(f"{title:28} {cells}\n")


def measure(lib: Any, adapter: Any, origin: str, tokens: keyturn.Tokens, title: str, **real: int) -> None:
    """Measure sync and async, in memory unless `real` gives rounds and calls on sockets."""
    rounds, calls = real.get("rounds", ROUNDS), real.get("calls", CALLS)

    def options() -> dict[str, Any]:
        if real:
            return {"base_url": origin, "trust_env": False}
        return {"base_url": origin, "transport": lib.MockTransport(lambda request: lib.Response(200))}

    clients = {
        name: lib.Client(**options(), **arguments)
        for name, arguments in variants(lib, adapter, origin, tokens).items()
    }
    for client in clients.values():
        sync_round(client, calls)
    report(
        f"{title} {lib.__name__} sync",
        best({name: lambda c=client: sync_round(c, calls) for name, client in clients.items()}, rounds),  # type: ignore[misc]
    )
    for client in clients.values():
        client.close()

    loop = asyncio.new_event_loop()
    asyncs = {
        name: lib.AsyncClient(**options(), **arguments)
        for name, arguments in variants(lib, adapter, origin, tokens).items()
    }
    run = loop.run_until_complete
    report(
        f"{title} {lib.__name__} async",
        best({name: lambda c=client: run(async_round(c, calls)) for name, client in asyncs.items()}, rounds),  # type: ignore[misc]
    )
    for client in asyncs.values():
        run(client.aclose())
    loop.close()


def main() -> None:
    """Measure both libraries, in memory and on loopback."""
    hosts = [(httpx2, keyturn.client.httpx2), (httpx, keyturn.client.httpx)]
    tokens = keyturn.Tokens("a" * 400, "r" * 40, time.time() + 1e6)
    for lib, adapter in hosts:
        measure(lib, adapter, ORIGIN, tokens, "memory")
    with StrictServer(ttl=1e6) as server:
        for lib, adapter in hosts:
            measure(lib, adapter, server.url, server.sign_in(), "loopback", rounds=10, calls=200)


if __name__ == "__main__":
    main()

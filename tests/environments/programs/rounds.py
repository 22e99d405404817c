"""What programs with a shared store do in a round: send requests from a crowd, and tell what came of them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import httpx2

import keyturn
from keyturn.client import grants
from keyturn.client.httpx2 import Auth
from tests.scenarios.programs import LONG, given, http, outcome, say

CROWD = 10


def shared(tokens: dict[str, Any] | None = None, **options: Any) -> keyturn.Credentials:
    """Return credentials in the store that the test names, for the server that it has started."""
    return keyturn.Credentials(
        grants.OAuth2(given["url"] + "/token", client_id="programs", http=http, timeout=LONG),
        tokens=keyturn.Tokens(**(given["tokens"] if tokens is None else tokens)),
        origins=[given["url"]],
        store=given["store"],
        name=given["name"],
        **options,
    )


def request(mine: keyturn.Credentials) -> str:
    """Send one request; return what came of it."""
    with httpx2.Client(
        base_url=given["url"], auth=Auth(mine), timeout=60, verify=False, trust_env=False
    ) as api:
        return outcome(lambda: api.get("/x"))


def serve() -> None:
    """Send a round of requests for each line, until one says to end."""
    mine = shared()
    runs = RUNS[given["runs"]]
    say("ready")
    while line() != "end\n":
        say(" ".join(sorted(set(runs(mine)))))


def line() -> str:
    """Return the next line, while whatever runs here goes on."""
    if not given["runs"].startswith("gevent"):
        return os.read(0, 100).decode()
    import gevent.os

    return str(gevent.os.tp_read(0, 100).decode())


def in_threads(mine: keyturn.Credentials) -> list[str]:
    """Send from threads, which are greenlets where gevent has patched them."""
    outcomes: list[str] = []
    threads = [threading.Thread(target=lambda: outcomes.append(request(mine))) for _ in range(CROWD)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def in_greenlets(mine: keyturn.Credentials) -> list[str]:
    """Send from greenlets, while a loop of one of them awaits."""
    import gevent

    everyone = [gevent.spawn(request, mine) for _ in range(CROWD)]
    everyone.append(gevent.spawn(lambda: asyncio.run(_crowd(mine)()).pop()))
    gevent.joinall(everyone)
    return [str(one.get()) for one in everyone]


def in_runs(mine: keyturn.Credentials) -> list[str]:
    """Send from one loop after another."""
    return [asyncio.run(_crowd(mine, 1)()).pop() for _ in range(CROWD)]


def in_uvloop(mine: keyturn.Credentials) -> list[str]:
    """Send from tasks of uvloop."""
    import uvloop

    outcomes: list[str] = uvloop.run(_crowd(mine)())
    return outcomes


def in_trio(mine: keyturn.Credentials) -> list[str]:
    """Send from tasks of trio."""
    import trio

    return trio.run(_crowd(mine))


def _crowd(mine: keyturn.Credentials, count: int = CROWD) -> Callable[[], Coroutine[Any, Any, list[str]]]:
    async def main() -> list[str]:
        outcomes: list[str] = []

        async def get() -> None:
            outcomes.append(str((await api.get("/x")).status_code))

        options: dict[str, Any] = {"timeout": 60, "verify": False, "trust_env": False}
        async with (
            httpx2.AsyncClient(base_url=given["url"], auth=Auth(mine), **options) as api,
            anyio.create_task_group() as group,
        ):
            for _ in range(count):
                group.start_soon(get)
        return outcomes

    return main


RUNS: dict[str, Callable[[keyturn.Credentials], list[str]]] = {
    "threads": in_threads,
    "gevent": in_greenlets,
    "gevent_late": in_greenlets,
    "asyncio": in_runs,
    "uvloop": in_uvloop,
    "trio": in_trio,
}

"""Calls of the strict server's API through a client of some library: what came of each, raising nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from keyturn.testing import StrictServer
from tests.kit import in_threads, run_in_loop

CALLS = 10

Outcome = int | type[BaseException]  # the status of an answer, or what was raised


def call(client: Any, server: StrictServer) -> Outcome:
    """Return what comes of one call of a synchronous client."""
    try:
        return int(client.get(server.url + "/statistics", timeout=30).status_code)
    except Exception as error:  # noqa: BLE001 - returned
        return type(error)


async def call_async(client: Any, server: StrictServer) -> Outcome:
    """Return what comes of one call of an asynchronous client."""
    try:
        return int((await client.get(server.url + "/statistics", timeout=30)).status_code)
    except Exception as error:  # noqa: BLE001 - returned
        return type(error)


def call_in_threads(client: Any, server: StrictServer) -> list[Outcome]:
    """Return what comes of ten calls from ten threads."""
    return in_threads(CALLS, lambda i: call(client, server))


def call_in_tasks(client: Any, server: StrictServer) -> list[Outcome]:
    """Return what comes of ten calls from ten tasks, and close the client."""

    async def main() -> list[Outcome]:
        async with client:
            return await asyncio.gather(*(call_async(client, server) for _ in range(CALLS)))

    return run_in_loop(main)

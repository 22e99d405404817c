"""Two ways to lose a refresh that is on its way: its caller is cancelled, or it belongs to another loop."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from keyturn.testing import StrictServer
from tests.interop.calls import Outcome, call_async
from tests.kit import run_in_loop
from tests.waiting import start


def follow_a_cancelled_leader(client: Any, server: StrictServer) -> Outcome:
    """Cancel the call that began a refresh, once the server has rotated; return what comes of another."""

    async def main() -> Outcome:
        server.hold_refresh("after")
        async with client:
            leader = asyncio.create_task(client.get(server.url + "/statistics"))
            await asyncio.to_thread(server.wait_for, rotations=1)
            follower = asyncio.create_task(call_async(client, server))
            await asyncio.to_thread(server.wait_for, refused=2)
            leader.cancel()
            await asyncio.wait([leader])
            await asyncio.to_thread(server.release)
            return await follower

    return run_in_loop(main)


def call_from_two_loops(clients: list[Any], server: StrictServer, refreshes: int) -> list[Outcome]:
    """Call with each client in a loop of its own, while so many refreshes are held."""

    async def main(client: Any) -> Outcome:
        async with client:
            return await call_async(client, server)

    server.hold_refresh()
    calls = [start(partial(run_in_loop, partial(main, client))) for client in clients]
    server.wait_for(refused=len(clients), refreshes=refreshes)
    server.release()
    return [call.result(60) for call in calls]

"""The control paths: what the handle asks of the server's process.

Each is a POST of a JSON object to PREFIX + verb, with the secret in HEADER.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keyturn.testing import state
from keyturn.testing.messages import Answer, Request, json_answer
from keyturn.testing.state import Barrier, Fault, World

if TYPE_CHECKING:
    from keyturn.testing.server import Server

PREFIX = "/_control/"
HEADER = "x-keyturn-control"


async def respond(server: Server, request: Request) -> Answer:
    """Do what the verb says."""
    asked: dict[str, Any] = json.loads(await request.read() or b"{}")
    world = server.world
    match request.path.removeprefix(PREFIX):
        case "configure":
            world.settings = world.settings.changed(asked)
            world.wave = 0
        case "reset":
            server.reset()
        case "expire":
            state.expire(world)
        case "revoke":
            state.revoke(world, asked["subject"])
        case "hold_api":
            world.release_barrier()
            world.barrier = Barrier(asked["n"])
        case "hold":
            world.gates.setdefault(asked["stage"], asyncio.Event())
        case "release":
            world.release()
        case "fault":
            faults = {
                "token": world.token_faults,
                "revocation": world.revocation_faults,
                "api": world.api_faults,
            }
            faults[asked["at"]].append(_fault(asked))
        case "wait":
            return await _wait(world, asked["at_least"], asked["timeout"])
        case "stats":
            return json_answer(200, dataclasses.asdict(world.stats))
        case "seen":
            return json_answer(200, {"seen": [_seen(one) for one in world.seen]})
        case "alive":
            known = world.refresh_tokens.get(asked["refresh"])
            return json_answer(200, {"alive": known is not None and not known.session.ended})
        case "accepts":
            return json_answer(200, {"accepts": _accepts(world, asked["access"])})
        case _:
            return json_answer(404, {})
    return json_answer(200, {})


def _accepts(world: World, access: str) -> bool:
    try:
        state.check(world, access)
    except state.Refused:
        return False
    return True


async def _wait(world: World, at_least: Mapping[str, int], timeout: float) -> Answer:
    waiter = (at_least, asyncio.Event())
    world.waiters.append(waiter)
    if not world.has(at_least):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(waiter[1].wait(), timeout)
    world.waiters.remove(waiter)
    return json_answer(
        200, {"reached": world.has(at_least) or waiter[1].is_set(), "stats": dataclasses.asdict(world.stats)}
    )


def _fault(asked: Mapping[str, Any]) -> Fault:
    answer = None
    if asked["status"] is not None:
        headers = tuple((name, value) for name, value in asked["headers"].items())
        answer = Answer(asked["status"], base64.b64decode(asked["body"]), headers)
    return Fault(answer, asked["times"], asked["path"], asked["rotated"])


def _seen(request: Request) -> dict[str, object]:
    return {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": request.headers,
        "body": base64.b64encode(request.body).decode(),
        "complete": request.complete,
        "status": request.status,
        "at": request.at,
        "answered_at": request.answered_at,
    }

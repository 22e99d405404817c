"""The strict server: which path is answered by what, the API, and two paths that check no token."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, parse_qsl

from keyturn.clocks import monotonic, now
from keyturn.testing import control, oauth2, state
from keyturn.testing.messages import Answer, Request, json_answer
from keyturn.testing.records import Settings
from keyturn.testing.state import Refused, World
from keyturn.testing.token_endpoints import (
    REVOCATION,
    SIGN_IN,
    TOKEN,
    cookie,
    refresh,
    revoke,
    set_cookies,
    sign_in,
)

_CHALLENGE = ("WWW-Authenticate", 'Bearer error="invalid_token"')
_UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})


Answering = Callable[[World, Request], Awaitable[Answer | None]]


class Server:
    """Answers requests, each in the world that it arrived in. `secret` opens the control paths.

    `answer` answers all but those and the handle's sign-ins; `clock` gives
    POSIX seconds.
    """

    def __init__(
        self, settings: Settings, answer: Answering | None = None, clock: Callable[[], float] = now
    ) -> None:
        self.secret = secrets.token_urlsafe(24)
        self.settings = settings
        self.world = World(settings, clock)
        self._answer, self._clock = answer or _answer, clock

    async def respond(self, request: Request) -> Answer | None:
        """Answer a request; None drops the connection."""
        if state.same(request.headers.get(control.HEADER, ""), self.secret):
            if request.path.startswith(control.PREFIX):
                return await control.respond(self, request)
            return await _answer(self.world, request)  # the handle's own sign-ins are not counted
        if request.path.startswith(control.PREFIX):
            return json_answer(403, {"error": "forbidden"})
        world = self.world
        world.seen.append(request)
        if request.connection.serial not in world.connections:
            world.connections.add(request.connection.serial)
            world.count("connections")
        answer = await self._answer(world, request)
        request.status = None if answer is None else answer.status
        request.answered_at = monotonic()
        return answer

    def reset(self) -> None:
        """Begin a new world. Whoever is held in the old one is let go, and answered there."""
        self.world.release()
        self.world = World(self.settings, self._clock)


async def _answer(world: World, request: Request) -> Answer | None:
    path = request.path
    if path in SIGN_IN:
        return await sign_in(world, request, SIGN_IN[path])
    if path in TOKEN:
        return await refresh(world, request, TOKEN[path])
    if path == REVOCATION:
        return await revoke(world, request, oauth2.revocation)
    if path.startswith("/redirect/"):
        return await _redirect(request)
    if path.startswith("/public/"):
        await request.read()
        return json_answer(200, {**_receipt(request), "headers": request.headers})
    return await _api(world, request)


# The API, and what checks no token


async def _api(world: World, request: Request) -> Answer | None:
    options = dict(parse_qsl(request.query))
    early = options.get("early") == "1"
    if not early:
        await request.read()
    world.count("api")
    await _arrive(world)
    answer = await _judged(world, request, int(options.get("size", "0")))
    if answer is None:
        return None
    delay = float(options.get("delay", "0"))
    if answer.status == 401:
        world.count("refused")
        delay += _spread(world)
    elif answer.status == 200:
        world.count("answered")
    await asyncio.sleep(delay)
    return answer


async def _arrive(world: World) -> None:
    barrier = world.barrier
    if barrier is None:
        return
    barrier.missing -= 1
    if barrier.missing == 0:
        world.release_barrier()
    await barrier.opened.wait()


async def _judged(world: World, request: Request, size: int) -> Answer | None:
    """Decide in one step, before anything waits: a late answer is still the answer of this moment."""
    fault = state.next_fault(world.api_faults, request.path)
    if fault is not None:
        return fault.answer
    bearer = request.headers.get("authorization")
    try:
        if bearer is not None:
            scheme, _, token = bearer.partition(" ")
            known = state.check(world, token if scheme.lower() == "bearer" else "")
        else:
            csrf = request.headers.get("x-csrf-token", "") if request.method in _UNSAFE else None
            known = state.check(world, cookie(request, "access_token_cookie"), csrf=csrf)
    except Refused as refusal:
        return json_answer(401, {"error": "invalid_token", "reason": refusal.reason}, _CHALLENGE)
    pair = state.renew(world, known.session) if world.settings.renews else None
    await request.read()
    content = {**_receipt(request), "subject": known.session.subject, "generation": known.generation}
    headers: list[tuple[str, str]] = []
    if pair is not None and bearer is not None:
        content["tokens"] = oauth2.content_of(pair)
        headers = [("X-Access-Token", pair.access), ("X-Refresh-Token", pair.refresh)]
        headers += [("X-Expires-In", str(pair.expires_in))]
    elif pair is not None:
        headers = set_cookies(pair)
    answer = json_answer(200, content, *headers)
    return Answer(answer.status, answer.body + b" " * size, answer.headers)


def _spread(world: World) -> float:
    settings = world.settings
    if not settings.spread_over:
        return 0.0
    world.wave = world.wave % settings.spread_over + 1
    return world.wave * settings.spread / settings.spread_over


async def _redirect(request: Request) -> Answer:
    await request.read()
    status = request.path.removeprefix("/redirect/")
    to = parse_qs(request.query).get("to")
    if status not in {"301", "302", "303", "307", "308"} or to is None:
        return json_answer(400, {"error": "invalid_request"})
    return Answer(int(status), headers=(("Location", to[0]),))


def _receipt(request: Request) -> dict[str, object]:
    return {
        "path": request.path,
        "method": request.method,
        "length": len(request.body),
        "sha256": hashlib.sha256(request.body).hexdigest(),
    }

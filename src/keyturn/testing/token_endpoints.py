"""Sign-in, refresh and revocation over HTTP: one set of rules, four ways to ask.

A token request is taken in this order: read and counted, held ("before"),
delayed, decided in one step, held ("after"), answered or dropped.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie

from keyturn.testing import oauth2, state
from keyturn.testing.messages import Answer, Request, json_answer
from keyturn.testing.oauth2 import NO_STORE, pair_answer
from keyturn.testing.state import Pair, Refused, World


async def sign_in(world: World, request: Request, answer: Callable[[Pair], Answer]) -> Answer:
    """Start a session for the subject in a JSON body."""
    await request.read()
    if request.method != "POST":
        return json_answer(405, {"error": "invalid_request"}, ("Allow", "POST"))
    content = _json(request)
    subject, ttl = content.get("subject"), content.get("ttl")
    if not isinstance(subject, str) or not isinstance(ttl, int | float | None):
        return json_answer(400, {"error": "invalid_request"}, *NO_STORE)
    return answer(state.sign_in(world, subject, ttl))


async def refresh(
    world: World, request: Request, decide: Callable[[World, Request], Answer]
) -> Answer | None:
    """Answer a token request as `decide` says, or as a fault does; None drops the connection."""
    await request.read()
    world.count("refreshes")
    world.refreshes_open += 1
    if world.refreshes_open > world.counts["most_refreshes_at_once"]:
        world.count("most_refreshes_at_once")
    try:
        await _pass(world, "before")
        await asyncio.sleep(world.settings.refresh_delay)
        fault = state.next_fault(world.token_faults, request.path)
        if fault is not None and not fault.rotated:
            return fault.answer
        if request.method == "POST":
            answer = decide(world, request)
        else:
            answer = json_answer(405, {"error": "invalid_request"}, ("Allow", "POST"), *NO_STORE)
        await _pass(world, "after")
        return answer if fault is None else fault.answer
    finally:
        world.refreshes_open -= 1


async def revoke(world: World, request: Request, decide: Callable[[World, Request], Answer]) -> Answer | None:
    """Answer a revocation as `decide` says, or as a fault does; None drops the connection."""
    await request.read()
    world.count("revocations")
    await _pass(world, "revocation")
    fault = state.next_fault(world.revocation_faults, request.path)
    if fault is not None:
        return fault.answer
    if request.method != "POST":
        return json_answer(405, {"error": "invalid_request"}, ("Allow", "POST"), *NO_STORE)
    return decide(world, request)


async def _pass(world: World, stage: str) -> None:
    if stage in world.gates:
        await world.gates[stage].wait()


def _envelope(world: World, request: Request) -> Answer:
    """The house format: 200 whatever happens, and success in the body."""
    token = _json(request).get("refreshToken")
    try:
        pair = state.refresh(world, token if isinstance(token, str) else "")
    except Refused as refusal:
        return json_answer(200, {"success": False, "message": f"refresh token {refusal.reason}"}, *NO_STORE)
    result = {"accessToken": pair.access, "refreshToken": pair.refresh, "expiresIn": pair.expires_in}
    return json_answer(200, {"success": True, "customResult": result}, *NO_STORE)


def _bearer(world: World, request: Request) -> Answer:
    """The refresh token as a bearer token, as flask-jwt-extended takes it in its headers mode."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return json_answer(401, {"msg": "Missing Authorization Header"}, *NO_STORE)
    try:
        content = oauth2.content_of(state.refresh(world, token))
    except Refused as refusal:
        status = 422 if refusal.reason == "unknown" else 401
        return json_answer(status, {"msg": f"refresh token {refusal.reason}"}, *NO_STORE)
    if not world.settings.rotates:
        del content["refresh_token"]
    return json_answer(200, content, *NO_STORE)


def _cookies(world: World, request: Request) -> Answer:
    """HttpOnly cookies and double-submit CSRF, with flask-jwt-extended's names."""
    try:
        token = cookie(request, "refresh_token_cookie")
        csrf = request.headers.get("x-csrf-token", "")
        return cookies_answer(state.refresh(world, token, csrf=csrf))
    except Refused as refusal:
        return json_answer(401, {"msg": f"refresh token {refusal.reason}"}, *NO_STORE)


def cookies_answer(pair: Pair) -> Answer:
    """Return the answer that puts a pair in a browser."""
    return json_answer(200, {"expires_in": pair.expires_in}, *NO_STORE, *set_cookies(pair))


def set_cookies(pair: Pair) -> list[tuple[str, str]]:
    """Return the four headers that put a pair in a browser; Secure is left out, as this is plain HTTP."""
    return [
        ("Set-Cookie", f"access_token_cookie={pair.access}; HttpOnly; Path=/; SameSite=Lax"),
        ("Set-Cookie", f"refresh_token_cookie={pair.refresh}; HttpOnly; Path=/; SameSite=Lax"),
        ("Set-Cookie", f"csrf_access_token={pair.csrf_access}; Path=/; SameSite=Lax"),
        ("Set-Cookie", f"csrf_refresh_token={pair.csrf_refresh}; Path=/; SameSite=Lax"),
    ]


SIGN_IN = {"/login": pair_answer, "/login-cookies": cookies_answer}
TOKEN = {
    "/token": oauth2.token,
    "/token/refreshToken": _envelope,
    "/token/refresh": _cookies,
    "/token/bearer": _bearer,
}
REVOCATION = "/revoke"


def cookie(request: Request, name: str) -> str:
    """Return the value of a cookie. Raises Refused where there is none."""
    try:
        morsel = SimpleCookie(request.headers.get("cookie", "")).get(name)
    except CookieError:
        morsel = None
    if morsel is None:
        raise Refused("missing")
    return morsel.value


def _json(request: Request) -> dict[str, object]:
    try:
        content = json.loads(request.body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}

"""Sign-in and refresh over HTTP: one set of rules, three ways to ask.

A token request is taken in this order: read and counted, held ("before"),
delayed, decided in one step, held ("after"), answered or dropped.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl

from keyturn.testing import state
from keyturn.testing.protocol import Answer, Request, json_answer
from keyturn.testing.state import Pair, Refused, World

_NO_STORE = (("Cache-Control", "no-store"), ("Pragma", "no-cache"))


class Malformed(Exception):
    """A request to an end point is not what it takes. `error` is a code of RFC 6749 §5.2."""

    def __init__(self, error: str, status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.status = status


async def sign_in(world: World, request: Request, answer: Callable[[Pair], Answer]) -> Answer:
    """Start a session for the subject in a JSON body."""
    await request.read()
    if request.method != "POST":
        return json_answer(405, {"error": "invalid_request"}, ("Allow", "POST"))
    content = _json(request)
    subject, ttl = content.get("subject"), content.get("ttl")
    if not isinstance(subject, str) or not isinstance(ttl, int | float | None):
        return json_answer(400, {"error": "invalid_request"}, *_NO_STORE)
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
            answer = json_answer(405, {"error": "invalid_request"}, ("Allow", "POST"), *_NO_STORE)
        await _pass(world, "after")
        return answer if fault is None else fault.answer
    finally:
        world.refreshes_open -= 1


async def _pass(world: World, stage: str) -> None:
    if stage in world.gates:
        await world.gates[stage].wait()


def _oauth2(world: World, request: Request) -> Answer:
    """RFC 6749 §6, with the errors of §5.2."""
    try:
        return _oauth2_answer(state.refresh(world, _refresh_token_of_form(request)))
    except Refused as refusal:
        return json_answer(400, {"error": "invalid_grant", "reason": refusal.reason}, *_NO_STORE)
    except Malformed as refusal:
        challenge = (("WWW-Authenticate", "Basic"),) if refusal.status == 401 else ()
        return json_answer(refusal.status, {"error": refusal.error}, *_NO_STORE, *challenge)


def _refresh_token_of_form(request: Request) -> str:
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise Malformed("invalid_request")
    pairs = parse_qsl(request.body.decode("latin-1"), keep_blank_values=True)
    form = dict(pairs)
    if len(form) != len(pairs):
        raise Malformed("invalid_request")
    if "unknown" in {form.get("client_id"), _basic_user(request)}:
        raise Malformed("invalid_client", 401)
    if form.get("grant_type", "refresh_token") != "refresh_token":
        raise Malformed("unsupported_grant_type")
    if not form.get("grant_type") or not form.get("refresh_token"):
        raise Malformed("invalid_request")
    return form["refresh_token"]


def _basic_user(request: Request) -> str | None:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(value, validate=True).decode("latin-1").partition(":")[0]
    except binascii.Error:
        raise Malformed("invalid_client", 401) from None


def _envelope(world: World, request: Request) -> Answer:
    """The house format: 200 whatever happens, and success in the body."""
    token = _json(request).get("refreshToken")
    try:
        pair = state.refresh(world, token if isinstance(token, str) else "")
    except Refused as refusal:
        return json_answer(200, {"success": False, "message": f"refresh token {refusal.reason}"}, *_NO_STORE)
    result = {"accessToken": pair.access, "refreshToken": pair.refresh, "expiresIn": pair.expires_in}
    return json_answer(200, {"success": True, "customResult": result}, *_NO_STORE)


def _cookies(world: World, request: Request) -> Answer:
    """HttpOnly cookies and double-submit CSRF, with flask-jwt-extended's names."""
    try:
        token = cookie(request, "refresh_token_cookie")
        csrf = request.headers.get("x-csrf-token", "")
        return _cookies_answer(state.refresh(world, token, csrf=csrf))
    except Refused as refusal:
        return json_answer(401, {"msg": f"refresh token {refusal.reason}"}, *_NO_STORE)


def oauth2_content(pair: Pair) -> dict[str, object]:
    """Return a pair as RFC 6749 §5.1 writes it."""
    return {
        "access_token": pair.access,
        "refresh_token": pair.refresh,
        "token_type": "Bearer",
        "expires_in": pair.expires_in,
    }


def _oauth2_answer(pair: Pair) -> Answer:
    return json_answer(200, oauth2_content(pair), *_NO_STORE)


def _cookies_answer(pair: Pair) -> Answer:
    return json_answer(200, {"expires_in": pair.expires_in}, *_NO_STORE, *set_cookies(pair))


def set_cookies(pair: Pair) -> list[tuple[str, str]]:
    """Return the four headers that put a pair in a browser; Secure is left out, as this is plain HTTP."""
    return [
        ("Set-Cookie", f"access_token_cookie={pair.access}; HttpOnly; Path=/; SameSite=Lax"),
        ("Set-Cookie", f"refresh_token_cookie={pair.refresh}; HttpOnly; Path=/; SameSite=Lax"),
        ("Set-Cookie", f"csrf_access_token={pair.csrf_access}; Path=/; SameSite=Lax"),
        ("Set-Cookie", f"csrf_refresh_token={pair.csrf_refresh}; Path=/; SameSite=Lax"),
    ]


SIGN_IN = {"/login": _oauth2_answer, "/login-cookies": _cookies_answer}
TOKEN = {"/token": _oauth2, "/token/refreshToken": _envelope, "/token/refresh": _cookies}


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

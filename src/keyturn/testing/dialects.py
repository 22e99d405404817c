"""One token end point for all that a grant may send: the request itself tells what it is.

A form is OAuth 2.0, by the letter. Any other request holds a refresh token
somewhere: in a bearer header, in a cookie, in JSON under whatever name. It is
found by its value, since no name is known here.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from keyturn.testing import oauth2, state, token_endpoints
from keyturn.testing.messages import Answer, Request, json_answer
from keyturn.testing.state import Pair, Refused, World
from keyturn.tokens import Tokens, received

Write = Callable[[Tokens], Answer | None]


async def respond(world: World, request: Request, write: Write, *, revokes: bool) -> Answer | None:
    """Answer a refresh, a client that asks for a token of its own, or a revocation; None is a drop.

    `revokes` says that the request is a revocation, which only a form tells by itself.
    """
    form = _form(request)
    if form is not None and (revokes or ("token" in form and "grant_type" not in form)):
        return await token_endpoints.revoke(world, request, oauth2.revocation)
    if form is not None:
        return await token_endpoints.refresh(world, request, oauth2.token)
    if revokes:
        return await token_endpoints.revoke(world, request, _revoked)
    return await token_endpoints.refresh(
        world, request, lambda world, request: _refreshed(world, request, write)
    )


def _revoked(world: World, request: Request) -> Answer:
    """Answer a revocation that is posted like a refresh: by giving up whatever token is in it."""
    in_cookie, elsewhere = _presented(world, request)
    state.give_up(world, in_cookie or elsewhere)
    return Answer(200, headers=oauth2.NO_STORE)


def _form(request: Request) -> dict[str, list[str]] | None:
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return None
    return parse_qs(request.body.decode("latin-1"))


def _refreshed(world: World, request: Request, write: Write) -> Answer:
    in_cookie, elsewhere = _presented(world, request)
    csrf = _csrf(world, request, in_cookie) if in_cookie else None
    try:
        pair = state.refresh(world, in_cookie or elsewhere, csrf=csrf)
    except Refused as refusal:
        error = {"error": "invalid_grant", "error_description": f"refresh token {refusal.reason}"}
        return json_answer(401, error, *oauth2.NO_STORE)
    written = write(_tokens(world, pair))
    if written is not None:
        return written
    if in_cookie:
        return token_endpoints.cookies_answer(pair)
    content = oauth2.content_of(pair)
    if not world.settings.rotates:
        del content["refresh_token"]
    return json_answer(200, content, *oauth2.NO_STORE)


def _presented(world: World, request: Request) -> tuple[str, str]:
    """Return the first known refresh token in the cookies, and the first elsewhere; "" for none."""
    found = ([one for one in places if one in world.refresh_tokens] for places in _places(request))
    in_cookie, elsewhere = (known[0] if known else "" for known in found)
    return in_cookie, elsewhere


def _tokens(world: World, pair: Pair) -> Tokens:
    extra = {"csrf_access_token": pair.csrf_access, "csrf_refresh_token": pair.csrf_refresh}
    return received(
        pair.access, sent_at=world.clock(), refresh=pair.refresh, expires_in=pair.expires_in, extra=extra
    )


def _csrf(world: World, request: Request, token: str) -> str:
    """Return the double-submit value that came in a header, of whatever name; nothing where none did."""
    known = world.refresh_tokens[token].csrf
    sent = [value for name, value in request.headers.items() if name != "cookie"]
    return known if known in sent else ""


def _places(request: Request) -> tuple[list[str], list[str]]:
    try:
        cookies = [one.value for one in SimpleCookie(request.headers.get("cookie", "")).values()]
    except CookieError:
        cookies = []
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    elsewhere = [token] if scheme.lower() == "bearer" else []
    with contextlib.suppress(ValueError, RecursionError):
        elsewhere += _strings(json.loads(request.body))
    return cookies, elsewhere


def _strings(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict | list):
        for one in content.values() if isinstance(content, dict) else content:
            yield from _strings(one)

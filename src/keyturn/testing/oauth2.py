"""The token end point of OAuth 2.0 (RFC 6749 §4.4, §6), and the revocation end point beside it (RFC 7009)."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from keyturn.testing import state
from keyturn.testing.clients import Malformed, client_of
from keyturn.testing.messages import Answer, Request, json_answer
from keyturn.testing.state import Pair, Refused, World

NO_STORE = (("Cache-Control", "no-store"), ("Pragma", "no-cache"))

_FORM = "application/x-www-form-urlencoded"
_MORE_THAN_ONCE = frozenset({"resource"})  # RFC 8707 §2
_PAGE = "https://www.rfc-editor.org/rfc/rfc6749#section-5.2"


def token(world: World, request: Request) -> Answer:
    """Answer a refresh, or a client that asks for a token of its own."""
    try:
        return json_answer(200, _granted(world, request), *NO_STORE)
    except Refused as refusal:
        description = f"this refresh token opens nothing: {refusal.reason}"
        return _error(world, Malformed("invalid_grant", description), reason=refusal.reason)
    except Malformed as refusal:
        return _error(world, refusal)


def revocation(world: World, request: Request) -> Answer:
    """Answer a revocation: 200 for any token of a client that proves itself (RFC 7009 §2.2)."""
    try:
        form = _form(request)
        client_of(world, request, form)
        state.give_up(world, _given(form, "token"))
        return Answer(200, headers=NO_STORE)
    except Malformed as refusal:
        return _error(world, refusal)


def _granted(world: World, request: Request) -> dict[str, object]:
    form = _form(request)
    client = client_of(world, request, form)
    match _given(form, "grant_type"):
        case "refresh_token":
            return content_of(state.refresh(world, _given(form, "refresh_token")))
        case "client_credentials":
            if client is None:
                raise Malformed("invalid_client", "no client says who it is", 401)
            content = content_of(state.issue(world, client))
            del content["refresh_token"]
            return content
        case _:
            raise Malformed("unsupported_grant_type", "refresh_token and client_credentials are supported")


def _given(form: Mapping[str, str], name: str) -> str:
    if not form.get(name):
        raise Malformed("invalid_request", f"{name} is missing")
    return form[name]


def content_of(pair: Pair) -> dict[str, object]:
    """Return a pair as RFC 6749 §5.1 writes it."""
    return {
        "access_token": pair.access,
        "refresh_token": pair.refresh,
        "token_type": "Bearer",
        "expires_in": pair.expires_in,
    }


def pair_answer(pair: Pair) -> Answer:
    """Return the answer that hands a pair out."""
    return json_answer(200, content_of(pair), *NO_STORE)


def _error(world: World, refusal: Malformed, **more: str) -> Answer:
    """Return what RFC 6749 §5.2 has for an error; with the setting `errors_in_200`, in a success."""
    content = {"error": refusal.error, **more, "error_description": refusal.description, "error_uri": _PAGE}
    challenge = (("WWW-Authenticate", "Basic"),) if refusal.status == 401 else ()
    if world.settings.errors_in_200:
        return json_answer(200, content, *NO_STORE)
    return json_answer(refusal.status, content, *NO_STORE, *challenge)


def _form(request: Request) -> dict[str, str]:
    if not request.headers.get("content-type", "").startswith(_FORM):
        raise Malformed("invalid_request", f"the body must be {_FORM}")
    pairs = parse_qsl(request.body.decode("latin-1"), keep_blank_values=True)
    once = [pair for pair in pairs if pair[0] not in _MORE_THAN_ONCE]
    if len(dict(once)) != len(once):
        raise Malformed("invalid_request", "a parameter occurs more than once")
    return dict(pairs)

"""Which client asks, and how it proves that: RFC 6749 §2.3, and RFC 7523 §3 for a signed assertion.

Without the setting `client_auth` any client but "unknown" is let by, however
it says who it is. With it there is one client, and one way to prove it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from urllib.parse import unquote_plus

from keyturn.testing.messages import Request
from keyturn.testing.state import World, same

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_SIGNED = ("ES256", "RS256", "PS256", "EdDSA")
_LONGEST_ASSERTION_LIFE = 300.0


class Malformed(Exception):
    """A request to an end point is not what it takes. `error` is a code of RFC 6749 §5.2."""

    def __init__(self, error: str, description: str = "", status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.description = description
        self.status = status


def client_of(world: World, request: Request, form: Mapping[str, str]) -> str | None:
    """Return the client's id, None where it does not say. Raises Malformed, `invalid_client`."""
    method, proof = _proof(request, form)
    client = proof.get("client_id")
    settings = world.settings
    if client == "unknown":
        raise _refused("there is no such client")
    if not settings.client_auth:
        return client
    if method != settings.client_auth:
        raise _refused(f"this client proves itself by {settings.client_auth}, not {method}")
    if client != settings.client_id or form.get("client_id", client) != client:
        raise _refused("there is no such client")
    if method.startswith("client_secret") and not same(proof["client_secret"], settings.client_secret):
        raise _refused("the client_secret is wrong")
    if method == "private_key_jwt":
        _check_assertion(world, request, proof["assertion"])
    return client


def _proof(request: Request, form: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return the method by which a client proves itself, and with what. It may use one only."""
    ways: list[tuple[str, dict[str, str]]] = []
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme:
        client, secret = _basic(scheme, value)
        ways.append(("client_secret_basic", {"client_id": client, "client_secret": secret}))
    if "client_secret" in form:
        ways.append(
            ("client_secret_post", {name: form.get(name, "") for name in ("client_id", "client_secret")})
        )
    if "client_assertion" in form or "client_assertion_type" in form:
        if form.get("client_assertion_type") != _ASSERTION_TYPE:
            raise _refused("the client_assertion_type is wrong")
        assertion = form.get("client_assertion", "")
        client = str(_part(assertion, 1).get("sub"))
        ways.append(("private_key_jwt", {"client_id": client, "assertion": assertion}))
    if len(ways) > 1:
        raise Malformed("invalid_request", "a client proves itself in one way only")
    public = {"client_id": form["client_id"]} if "client_id" in form else {}
    return ways[0] if ways else ("none", public)


def _basic(scheme: str, value: str) -> tuple[str, str]:
    try:
        client, separator, secret = base64.b64decode(value, validate=True).decode("ascii").partition(":")
    except ValueError:
        separator = ""
    if scheme.lower() != "basic" or not separator:
        raise _refused("the Authorization is not HTTP Basic")
    return unquote_plus(client), unquote_plus(secret)


def _check_assertion(world: World, request: Request, assertion: str) -> None:
    header, claims, now = _part(assertion, 0), _part(assertion, 1), world.clock()
    if not _signed(assertion, str(header.get("alg")), world.settings.client_key):
        raise _refused("the assertion is not signed by the client's key")
    expires, issued, jti = claims.get("exp"), claims.get("iat"), claims.get("jti")
    if claims.get("iss") != claims.get("sub"):
        raise _refused("iss and sub must both be the client")
    if claims.get("aud") != f"http://{request.headers.get('host')}/token":
        raise _refused("the assertion is for somebody else")
    if not isinstance(expires, int) or not isinstance(issued, int) or not isinstance(jti, str):
        raise _refused("the assertion lacks exp, iat or jti")
    if not now - 1 < expires <= now + _LONGEST_ASSERTION_LIFE or issued > now + 1:
        raise _refused("the assertion has expired, or lives too long")
    if jti in world.assertions:
        raise _refused("the assertion was used before")
    world.assertions.add(jti)


def _signed(assertion: str, algorithm: str, key: str) -> bool:
    from joserfc.errors import JoseError
    from joserfc.jwk import JWKRegistry
    from joserfc.jws import JWSRegistry

    signed, _, signature = assertion.rpartition(".")
    if algorithm not in _SIGNED:
        return False
    chosen = JWSRegistry.algorithms[algorithm]
    try:
        public = JWKRegistry.import_key(json.loads(key))
        chosen.check_key(public)
        return chosen.verify(signed.encode(), base64.urlsafe_b64decode(signature + "=="), public)
    except (JoseError, ValueError):
        return False


def _part(assertion: str, index: int) -> dict[str, object]:
    """Return the header or the claims of a JWT, unverified."""
    try:
        part = assertion.split(".")[index]
        content = json.loads(base64.urlsafe_b64decode(part + "=="))
    except (IndexError, ValueError, binascii.Error):
        return {}
    return content if isinstance(content, dict) else {}


def _refused(description: str) -> Malformed:
    return Malformed("invalid_client", description, 401)

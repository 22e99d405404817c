"""The access token: a JWT as RFC 9068 has it, signed with HS256, and its cache.

The algorithm is pinned by the key. A token says in its header which one it
wants, and that is never asked: the header must be the one that goes with a
key of ours, and whatever else stands there ("none", a stronger HMAC, an RSA
signature made for somebody's public key) is refused.

The header of a key is the same for all its tokens, so that making or
verifying one needs no JSON but the claims. A header that is spelled in
another way takes joserfc's long way round, with the same outcome.
"""

from __future__ import annotations

import base64
import binascii
import copy
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from joserfc import jwt
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import OctKey
from joserfc.jws import JWSRegistry

from keyturn.errors import ConfigurationError, TokenExpired, TokenForged, TokenMalformed
from keyturn.server.keys import Keys
from keyturn.server.session import JSON, Session

LONGEST: Final = 16 * 1024
RESERVED: Final = frozenset(
    {"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "gen", "client_id", "cnf"}
)  # fmt: skip

_ALGORITHM: Final = "HS256"
_TYPE: Final = "at+jwt"

_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a genuine access token says.

    `generation` is the session's counter when the token was made.
    `issued_at` and `expires_at` are POSIX seconds. `extra` holds the claims
    that the application gave at sign-in; `claims["role"]` reads one.
    """

    subject: str
    sid: str
    generation: int
    token_id: str
    issued_at: int
    expires_at: int
    audience: str
    client: str | None
    extra: Mapping[str, JSON]

    def __getitem__(self, name: str) -> JSON:
        return self.extra[name]

    def get(self, name: str, default: JSON = None) -> JSON:
        """Return an application's claim, or `default`."""
        return self.extra.get(name, default)


class AccessTokens:
    """Makes and verifies the access tokens of one issuer.

    `remember` is how many verified tokens are kept at most.
    """

    def __init__(self, keys: Keys, *, issuer: str, audience: str, remember: int = 4096) -> None:
        self._issuer = issuer
        self._audience = audience
        self._registry = JWSRegistry(algorithms=[_ALGORITHM])
        self._algorithm = self._registry.get_alg(_ALGORITHM)
        self._keys = {
            kid: OctKey.import_key(key, {"kid": kid, "alg": _ALGORITHM, "use": "sig"})
            for kid, key in keys.derive("access token").items()
        }
        self._signing = keys.signing
        self._headers = {kid: self._header(kid) for kid in self._keys}
        self._by_header = {header: self._keys[kid] for kid, header in self._headers.items()}
        self._seen = _Seen(remember)

    def make(self, session: Session, *, issued_at: int, expires_at: int) -> str:
        """Return a new access token of `session` and its generation (RFC 9068 §2)."""
        claims: dict[str, JSON] = {
            **session.claims,
            "iss": self._issuer,
            "sub": session.subject,
            "aud": self._audience,
            "sid": session.sid,
            "gen": session.counter,
            "jti": secrets.token_urlsafe(16),
            "iat": issued_at,
            "exp": expires_at,
        }
        if session.client is not None:
            claims["client_id"] = session.client
        payload = _base64(_encoder.encode(claims).encode())
        signed = f"{self._headers[self._signing]}.{payload}"
        return f"{signed}.{self._signature(signed, self._keys[self._signing])}"

    def verify(self, token: object, *, now: float, first: Callable[[Claims], None] | None = None) -> Claims:
        """Return what `token` says.

        `now` is in POSIX seconds. `first` is called with the claims of a
        token that is not remembered, which is remembered only if it returns.
        Raises TokenMalformed, TokenForged or TokenExpired.
        """
        if not isinstance(token, str) or len(token) > LONGEST or not token.isascii():
            raise TokenMalformed("this is not an access token")
        name = hashlib.sha256(token.encode()).digest()  # the cache keeps no token that could be read out
        claims = self._seen.get(name)
        if claims is not None:
            return _own(_unexpired(claims, now))
        claims = _unexpired(self._read(token), now)
        if first is not None:
            first(claims)
        self._seen.put(name, claims)
        return _own(claims)

    def _header(self, kid: str) -> str:
        header = {"alg": _ALGORITHM, "typ": _TYPE, "kid": kid}
        token = jwt.encode(header, {}, self._keys[kid], registry=self._registry, default_type=None)
        return token.partition(".")[0]

    def _signature(self, signed: str, key: OctKey) -> str:
        return _base64(self._algorithm.sign(signed.encode(), key))

    def _read(self, token: str) -> Claims:
        signed, _, signature = token.rpartition(".")
        header, _, payload = signed.partition(".")
        key = self._by_header.get(header)
        if key is None:
            return self._claims(self._long_way_round(token))
        if not hmac.compare_digest(self._signature(signed, key).encode(), signature.encode()):
            raise TokenForged("the access token's signature is not ours")
        # From here on it is ours, so that nothing hostile is parsed.
        try:
            return self._claims(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))
        except (binascii.Error, ValueError):
            raise TokenMalformed("this is not an access token") from None

    def _long_way_round(self, token: str) -> dict[str, JSON]:
        try:
            header = json.loads(base64.urlsafe_b64decode(token.partition(".")[0] + "=="))
            key = self._keys.get(header["kid"])
            if header["typ"] != _TYPE:
                raise TokenMalformed("this is not an access token")
        except (ValueError, TypeError, LookupError, RecursionError):
            raise TokenMalformed("this is not an access token") from None
        if key is None:
            raise TokenForged("the access token was not signed by a key that is known here")
        # joserfc's messages quote what they refuse; none of it is passed on.
        try:
            return jwt.decode(token, key, registry=self._registry).claims
        except BadSignatureError:
            raise TokenForged("the access token's signature is not ours") from None
        except (JoseError, ValueError, TypeError, RecursionError):
            raise TokenMalformed("this is not an access token") from None

    def _claims(self, said: dict[str, JSON]) -> Claims:
        match said:
            case {
                "iss": self._issuer,
                "sub": str(subject),
                "aud": self._audience,
                "sid": str(sid),
                "gen": int(generation),
                "jti": str(token_id),
                "iat": int(issued_at),
                "exp": int(expires_at),
                **rest,
            }:
                client = rest.pop("client_id", None)
                return Claims(
                    subject,
                    sid,
                    generation,
                    token_id,
                    issued_at,
                    expires_at,
                    self._audience,
                    client if isinstance(client, str) else None,
                    MappingProxyType(rest),
                )
        raise TokenMalformed("the access token was not made for this service")


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _unexpired(claims: Claims, now: float) -> Claims:
    if now >= claims.expires_at:
        raise TokenExpired("the access token has expired", sid=claims.sid)
    return claims


def _own(claims: Claims) -> Claims:
    """Return claims that the caller may change the lists and objects of: the next caller gets others."""
    for value in claims.extra.values():
        if isinstance(value, list | dict):
            return replace(claims, extra=MappingProxyType(copy.deepcopy(dict(claims.extra))))
    return claims


class _Seen:
    """A bounded map of tokens that were verified.

    Two dictionaries, of which the older is dropped when the younger is full:
    what is used stays, no step takes longer than another, and each is one
    atomic operation, so that there is no lock to wait for or to fork.
    """

    def __init__(self, size: int) -> None:
        if size < 0:
            raise ConfigurationError("the number of remembered tokens must be 0 or more")
        self._half = (size + 1) // 2
        self._young: dict[bytes, Claims] = {}
        self._old: dict[bytes, Claims] = {}

    def get(self, name: bytes) -> Claims | None:
        claims = self._young.get(name)
        if claims is None and (claims := self._old.get(name)) is not None:
            self.put(name, claims)
        return claims

    def put(self, name: bytes, claims: Claims) -> None:
        if not self._half:
            return
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        self._young[name] = claims

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

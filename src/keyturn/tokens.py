"""Tokens: one immutable record of what a sign-in or a refresh gave.

The expiry is this machine's own reckoning: an answer's `expires_in` counts
from the moment when the request for it was sent, and a JWT without it lives
for exp - iat from then, so that a wrong clock on either side does no harm.
A JWT is only read here, never trusted: whether it is genuine is for the
server that it is shown to.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType

from keyturn.errors import ConfigurationError

_LONGEST_JWT_READ = 64 * 1024
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_PRINTABLE = re.compile(r"[\x20-\x7e]*")
_LATEST = 1e11  # the year 5138; anything later is a time in milliseconds


@dataclass(frozen=True, slots=True, repr=False)
class Tokens:
    """An access token, what renews it, and when it expires.

    `expires_at` is in POSIX seconds (as `time.time()`), None if nobody said;
    it is read from `access` where that is a JWT with an `exp`. `lifetime` is
    in seconds. `extra` holds what else the grant or the carrier needs, such
    as CSRF values: strings of printable ASCII by name. Neither repr nor str
    shows a secret.

    Raises ConfigurationError for a token or an `extra` that no header could
    carry, and for times that are no number of seconds.
    """

    access: str
    refresh: str | None = None
    expires_at: float | None = None
    lifetime: float | None = None
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in ("access", "refresh"):
            value = getattr(self, name)
            if value is None and name == "refresh":
                continue
            if not isinstance(value, str) or not _VISIBLE.fullmatch(value):
                raise ConfigurationError(
                    f"Tokens.{name} must be visible ASCII characters, without a 'Bearer ' before them"
                )
        if self.expires_at is not None and not _is_time(self.expires_at):
            raise ConfigurationError("Tokens.expires_at is in POSIX seconds, as time.time() gives them")
        if self.expires_at is not None and self.expires_at > _LATEST:
            raise ConfigurationError("Tokens.expires_at is in seconds; this looks like milliseconds")
        if self.lifetime is not None and (not _is_time(self.lifetime) or self.lifetime < 0):
            raise ConfigurationError("Tokens.lifetime is a number of seconds, not below 0")
        if not _is_extra(self.extra):
            raise ConfigurationError("Tokens.extra must map strings to strings of printable ASCII characters")
        if self.expires_at is None or self.lifetime is None:
            expires, lifetime = _jwt_life(self.access)
            if self.expires_at is None:
                object.__setattr__(self, "expires_at", expires)
            if self.lifetime is None:
                object.__setattr__(self, "lifetime", lifetime)
        object.__setattr__(self, "extra", MappingProxyType(dict(self.extra)))

    def __repr__(self) -> str:
        refresh = "no refresh token" if self.refresh is None else "refresh=***"
        return f"<{type(self).__name__} access=***, {refresh}, expires_at={self.expires_at}>"

    def __reduce__(self) -> tuple[object, ...]:
        return Tokens, (self.access, self.refresh, self.expires_at, self.lifetime, dict(self.extra))

    def left(self, now: float) -> float:
        """Return how many seconds of life are left at `now`; infinity if nobody said when it ends."""
        return math.inf if self.expires_at is None else self.expires_at - now


def received(
    access: str,
    *,
    sent_at: float,
    refresh: str | None = None,
    expires_in: object = None,
    extra: Mapping[str, str] | None = None,
) -> Tokens:
    """Return the Tokens of an answer to a request that was sent at `sent_at` (POSIX seconds).

    `expires_in` is taken as the wild writes it: a number or a string of
    seconds (RFC 6749 §5.1); anything else counts as not given. Raises
    ConfigurationError as `Tokens` does.
    """
    if not _is_time(sent_at) or sent_at > _LATEST:
        raise ConfigurationError("sent_at is in POSIX seconds, as time.time() gives them")
    lifetime = seconds(expires_in)
    if lifetime is None and isinstance(access, str):
        _, lifetime = _jwt_life(access)
    if lifetime is None:
        return Tokens(access, refresh, extra={} if extra is None else extra)
    lifetime = min(max(0.0, lifetime), _LATEST - sent_at)
    return Tokens(access, refresh, sent_at + lifetime, lifetime, {} if extra is None else extra)


def seconds(value: object) -> float | None:
    """Return a finite number of seconds, or None where `value` is not one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def jwt_claims(token: str) -> Mapping[str, object]:
    """Return the claims that a JWT states, unverified; nothing where `token` is not a JWT."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > _LONGEST_JWT_READ:
        return {}
    payload = parts[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _jwt_life(token: str) -> tuple[float | None, float | None]:
    """Return the exp and the lifetime that a JWT states, None for what it does not state in seconds."""
    claims = jwt_claims(token)
    expires, issued = seconds(claims.get("exp")), seconds(claims.get("iat"))
    if expires is None or expires > _LATEST:
        return None, None
    return expires, None if issued is None else max(0.0, expires - issued)


def _is_time(value: object) -> bool:
    return not isinstance(value, str) and seconds(value) is not None


def _is_extra(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(text, str) and _PRINTABLE.fullmatch(text) for text in chain(*value.items())
    )

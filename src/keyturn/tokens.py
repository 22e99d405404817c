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
from types import MappingProxyType

from keyturn.errors import ConfigurationError

_LONGEST_JWT_READ = 64 * 1024
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_LATEST = 1e11  # the year 5138; anything later is a time in milliseconds


@dataclass(frozen=True, slots=True, repr=False)
class Tokens:
    """An access token, what renews it, and when it expires.

    `expires_at` is in POSIX seconds (as `time.time()`), None if nobody said;
    it is read from `access` where that is a JWT with an `exp`. `lifetime` is
    in seconds. `extra` holds what else the grant or the carrier needs, such
    as CSRF values. Neither repr nor str shows a secret.

    Raises ConfigurationError for a token that no header could carry, and for
    an `expires_at` in milliseconds.
    """

    access: str
    refresh: str | None = None
    expires_at: float | None = None
    lifetime: float | None = None
    extra: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("access", "refresh"):
            value = getattr(self, name)
            if value is None and name == "refresh":
                continue
            if not isinstance(value, str) or not _VISIBLE.fullmatch(value):
                raise ConfigurationError(
                    f"Tokens.{name} must be a non-empty string of visible ASCII characters"
                )
        if self.expires_at is not None and seconds(self.expires_at) is None:
            raise ConfigurationError("Tokens.expires_at is in POSIX seconds, as time.time() gives them")
        if self.expires_at is not None and self.expires_at > _LATEST:
            raise ConfigurationError("Tokens.expires_at is in seconds; this looks like milliseconds")
        claims = {} if self.expires_at is not None and self.lifetime is not None else jwt_claims(self.access)
        expires, issued = seconds(claims.get("exp")), seconds(claims.get("iat"))
        if self.expires_at is None and expires is not None and expires <= _LATEST:
            object.__setattr__(self, "expires_at", expires)
        if self.lifetime is None and expires is not None and issued is not None:
            object.__setattr__(self, "lifetime", max(0.0, expires - issued))
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
    lifetime = seconds(expires_in)
    if lifetime is None and isinstance(access, str):
        claims = jwt_claims(access)
        expires, issued = seconds(claims.get("exp")), seconds(claims.get("iat"))
        if expires is not None and issued is not None:
            lifetime = expires - issued
    if lifetime is None:
        return Tokens(access, refresh, extra=extra or {})
    lifetime = min(max(0.0, lifetime), _LATEST - sent_at)
    return Tokens(access, refresh, sent_at + lifetime, lifetime, extra or {})


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

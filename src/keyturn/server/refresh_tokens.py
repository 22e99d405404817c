"""The refresh token: kt1.<kid>.<sid>.<counter>.<mac>, derived and never stored.

mac is HMAC-SHA-256 over all that stands before it and the issuer's name. So
a forgery dies here, before a store is asked; a stolen store cannot mint; and
the successor of a token is the same for everyone who asks for it.

A value has one spelling. The characters are ASCII, the counter has no
leading zeros, and the last characters of sid and mac carry no spare bits:
otherwise one token would have many faces, and some filter before us would
know only one of them.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from dataclasses import dataclass

from keyturn.errors import TokenForged, TokenMalformed
from keyturn.server.keys import Keys

HIGHEST_COUNTER = 2**53 - 1  # exact in every JSON reader and every database
LONGEST = 96

_SHAPE = re.compile(
    r"(?P<signed>kt1"
    r"\.(?P<kid>[A-Za-z0-9_-]{8})"
    r"\.(?P<sid>[A-Za-z0-9_-]{21}[AQgw])"
    r"\.(?P<counter>0|[1-9][0-9]{0,15}))"
    r"\.(?P<mac>[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048])",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """What a genuine refresh token says."""

    sid: str
    counter: int


class RefreshTokens:
    """Makes and reads the refresh tokens of one issuer."""

    def __init__(self, keys: Keys, *, issuer: str) -> None:
        self._keys = keys.derive("refresh token")
        self._signing = keys.signing
        self._context = b"\0" + issuer.encode()  # no token has a NUL, so the two cannot run together

    def make(self, sid: str, counter: int) -> str:
        """Return the refresh token of a session's counter: the same one every time."""
        signed = f"kt1.{self._signing}.{sid}.{counter}"
        return f"{signed}.{self._mac(self._signing, signed)}"

    def read(self, token: object) -> RefreshToken:
        """Return what `token` says, if it is genuine.

        Raises TokenMalformed if it does not have the shape, and TokenForged
        if it was not signed by one of our keys.
        """
        if not isinstance(token, str) or len(token) > LONGEST or not (shape := _SHAPE.fullmatch(token)):
            raise TokenMalformed("this is not a refresh token")
        counter = int(shape["counter"])
        if counter > HIGHEST_COUNTER:
            raise TokenMalformed("this is not a refresh token")
        if shape["kid"] not in self._keys:
            raise TokenForged("the refresh token was not signed by a key that is known here")
        genuine = self._mac(shape["kid"], shape["signed"])
        if not hmac.compare_digest(genuine.encode(), shape["mac"].encode()):
            raise TokenForged("the refresh token's signature is not ours")
        return RefreshToken(shape["sid"], counter)

    def _mac(self, kid: str, signed: str) -> str:
        mac = hmac.digest(self._keys[kid], signed.encode() + self._context, "sha256")
        return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def new_sid() -> str:
    """Return a new session's identifier: 128 random bits."""
    return secrets.token_urlsafe(16)

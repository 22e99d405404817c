"""Secrets, and the keys that are derived from them: one for each purpose.

A secret never signs anything itself. HKDF (RFC 5869) makes a key of it for
each purpose and each issuer, so that a value made for one is worth nothing
for another. A key is named by its `kid`, which is derived as well: nobody
has to invent names, and a secret has the same one everywhere.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keyturn.errors import ConfigurationError

Secret: TypeAlias = str | bytes
Purpose: TypeAlias = Literal["refresh token", "access token", "csrf"]

_SHORTEST = 32


class Keys:
    """The keys of one issuer, listed oldest to newest, one of which signs.

    `secrets` is one secret or several, each at least 32 bytes. With several,
    `signing` must be the one that signs: a new secret is given to every
    process first, to verify with, and only then named the signing one.

    Raises ConfigurationError for a secret that is too short, or twice there,
    and where it is not clear which one signs. Neither repr nor an error
    shows a secret.
    """

    def __init__(
        self, secrets: Secret | Sequence[Secret], *, issuer: str, signing: Secret | None = None
    ) -> None:
        listed = secrets if isinstance(secrets, list | tuple) else [secrets]
        raw = [_checked(secret) for secret in listed]
        if not raw:
            raise ConfigurationError("at least one secret is needed")
        if signing is None and len(raw) > 1:
            raise ConfigurationError("with several secrets, signing= says which one of them signs")
        signs = raw[0] if signing is None else _checked(signing)
        if signs not in raw:
            raise ConfigurationError("the signing secret must be one of the listed secrets")
        by_kid = {_kid(secret): secret for secret in raw}
        if len(by_kid) != len(raw):
            raise ConfigurationError("a secret is listed twice")
        self.signing = _kid(signs)
        self._issuer = issuer
        self._raw = by_kid

    def derive(self, purpose: Purpose) -> Mapping[str, bytes]:
        """Return the 32-byte key of every kid for `purpose`, oldest first."""
        return MappingProxyType(
            {
                kid: _hkdf(secret, f"keyturn 1 {purpose} of {self._issuer}".encode())
                for kid, secret in self._raw.items()
            }
        )

    def __repr__(self) -> str:
        return f"<Keys {' '.join(self._raw)} signing={self.signing}>"


def _checked(secret: object) -> bytes:
    if not isinstance(secret, str | bytes):
        raise ConfigurationError("a secret must be a str or bytes")
    try:
        raw = secret.encode() if isinstance(secret, str) else secret
    except UnicodeEncodeError:  # which would show the secret
        raise ConfigurationError("a secret must be text that UTF-8 can write, or bytes") from None
    if len(raw) < _SHORTEST:
        raise ConfigurationError(
            f"a secret must have at least {_SHORTEST} bytes, this one has {len(raw)}; "
            "python -c 'import secrets; print(secrets.token_urlsafe(48))' prints a good one"
        )
    return raw


def _kid(secret: bytes) -> str:
    return base64.urlsafe_b64encode(_hkdf(secret, b"keyturn 1 kid")[:6]).decode()


def _hkdf(secret: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(secret)

"""PrivateKeyJWT: a client that signs an assertion in place of sending a secret (RFC 7523 §2.2)."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from keyturn.client.grants.client_auth import Proof
from keyturn.errors import ConfigurationError, MissingExtra

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, OKPKey, RSAKey

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_BY_CURVE = {
    "P-256": "ES256",
    "P-384": "ES384",
    "P-521": "ES512",
    "Ed25519": "EdDSA",
    "Ed448": "EdDSA",
}
_ALGORITHMS = frozenset(
    {f"{family}{size}" for family in ("ES", "RS", "PS") for size in (256, 384, 512)} | {"EdDSA", "Ed25519"}
)


class PrivateKeyJWT:
    """Prove a client by an assertion that it signs (`private_key_jwt`; RFC 7523 §3, OpenID Connect Core §9).

    `key` is the private key: PEM as text or bytes, or a JWK as a mapping, on
    an elliptic curve, RSA or Ed25519. `algorithm` is ES256, RS256 or EdDSA by
    the key, or what you say (PS256). `kid` names the key where the server
    knows several; a JWK's own is taken. `audience` is what the assertion is
    for, the token end point unless the server wants its issuer's name there.
    An assertion lives for `lifetime`, from the clock of the credentials, and
    each request gets one of its own.

    Needs `keyturn[private-key-jwt]`, and raises MissingExtra without it.
    Raises ConfigurationError for a key that cannot sign so.
    """

    def __init__(
        self,
        key: str | bytes | Mapping[str, object],
        *,
        algorithm: str | None = None,
        kid: str | None = None,
        audience: str | None = None,
        lifetime: timedelta = timedelta(minutes=1),
    ) -> None:
        for name, value in (("algorithm", algorithm), ("kid", kid), ("audience", audience)):
            if not isinstance(value, str | None):
                raise ConfigurationError(f"{name} must be a string")
        life: object = lifetime
        if not isinstance(life, timedelta) or life < timedelta(seconds=1):
            raise ConfigurationError("lifetime must be a datetime.timedelta of a second or more")
        self._key = _private_key(key)
        self.algorithm = _algorithm(self._key, algorithm)
        self.kid: str | None = self._key.kid if kid is None else kid
        self._audience = audience
        self._lifetime = int(lifetime.total_seconds())
        self._sign(b"")  # what cannot sign is found out here, not at the first refresh

    def __repr__(self) -> str:
        return f"<PrivateKeyJWT {self.algorithm}{'' if self.kid is None else f' {self.kid}'}>"

    def prove(self, client_id: str, token_url: str, now: float) -> Proof:
        """Return a new assertion of `client_id`; see `ClientAuth.prove`."""
        header = {"typ": "JWT", "alg": self.algorithm} | ({} if self.kid is None else {"kid": self.kid})
        claims = {
            "iss": client_id,
            "sub": client_id,
            "aud": self._audience or token_url,
            "jti": secrets.token_urlsafe(16),
            "iat": int(now),
            "exp": int(now) + self._lifetime,
        }
        signed = b".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
        assertion = b".".join((signed, _base64(self._sign(signed)))).decode()
        form = {
            "client_id": client_id,
            "client_assertion_type": _ASSERTION_TYPE,
            "client_assertion": assertion,
        }
        return Proof(form=form, secrets=(assertion,))

    def _sign(self, message: bytes) -> bytes:
        from joserfc.errors import JoseError
        from joserfc.jws import JWSRegistry

        # Not by way of joserfc.jwt: it warns of "EdDSA", which is how servers spell it.
        algorithm = JWSRegistry.algorithms[self.algorithm]
        try:
            algorithm.check_key(self._key)
            return algorithm.sign(message, self._key)
        except (JoseError, ValueError):
            raise ConfigurationError(f"this key cannot sign {self.algorithm}") from None


def _private_key(data: str | bytes | Mapping[str, object]) -> ECKey | OKPKey | RSAKey:
    try:
        from joserfc.errors import JoseError
        from joserfc.jwk import ECKey, OKPKey, RSAKey
    except ImportError:
        raise MissingExtra("private_key_jwt needs joserfc: pip install 'keyturn[private-key-jwt]'") from None
    for kind in (ECKey, RSAKey, OKPKey):
        try:
            key = kind.import_key(dict(data) if isinstance(data, Mapping) else data)  # type: ignore[arg-type]  # each kind has its own
        except (JoseError, ValueError, TypeError, KeyError):  # whose texts may quote the key
            continue
        if key.is_private:
            return key
    raise ConfigurationError(
        "key must be a private key: PEM without a password, or a JWK, of an elliptic curve, RSA or Ed25519"
    )


def _algorithm(key: ECKey | OKPKey | RSAKey, chosen: str | None) -> str:
    if chosen is not None and chosen not in _ALGORITHMS:
        raise ConfigurationError(f"algorithm must be one of {', '.join(sorted(_ALGORITHMS))}")
    if chosen is not None:
        return chosen
    curve = getattr(key, "curve_name", None)  # which RSA has none of
    usual = "RS256" if curve is None else _BY_CURVE.get(curve)
    if usual is None:
        raise ConfigurationError(f"no algorithm signs on the curve {curve}")
    return usual


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")

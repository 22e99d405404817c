"""How a client proves itself to a token end point (RFC 6749 §2.3, OpenID Connect Core §9).

client_secret_basic    HTTP Basic; what a secret is sent by unless said otherwise
client_secret_post     the secret in the form
none                   the client_id in the form: a public client, or one
                       whose TLS certificate speaks for it (RFC 8705)
PrivateKeyJWT          a signed assertion in place of a secret
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol
from urllib.parse import quote_plus

from keyturn.errors import ConfigurationError

Method = Literal["client_secret_basic", "client_secret_post", "none"]


@dataclass(frozen=True, slots=True, repr=False)
class Proof:
    """What a request to an end point carries of its client; `secrets` is what no error may repeat of it."""

    headers: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()


class ClientAuth(Protocol):
    """Whatever proves a client: `PrivateKeyJWT`, or one of your own."""

    def prove(self, client_id: str, token_url: str, now: float) -> Proof:
        """Return the proof for one request, to the token end point or its neighbours, at `now` (POSIX s)."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class _Same:
    """The same proof each time."""

    proof: Proof

    def prove(self, client_id: str, token_url: str, now: float) -> Proof:
        return self.proof


def proof_of(
    client_id: str | None, client_secret: str | None, chosen: Method | ClientAuth | None
) -> ClientAuth:
    """Return what proves this client. Raises ConfigurationError for what does not go together."""
    for name, value in (("client_id", client_id), ("client_secret", client_secret)):
        if not isinstance(value, str | None):
            raise ConfigurationError(f"{name} must be a string")
    if client_id is None:
        if client_secret is not None or chosen is not None:
            raise ConfigurationError(
                f"a {'client_auth' if client_secret is None else 'client_secret'} needs its client_id"
            )
        return _Same(Proof())
    if isinstance(chosen, str | None):
        return _Same(_by_secret(client_id, client_secret, chosen))
    if isinstance(chosen, type) or not callable(getattr(chosen, "prove", None)):
        raise ConfigurationError(
            'client_auth is "client_secret_basic", "client_secret_post", "none" or a PrivateKeyJWT(…)'
        )
    if client_secret is not None:
        raise ConfigurationError("a client has a client_secret or a client_auth of its own, not both")
    return chosen


def _by_secret(client_id: str, secret: str | None, chosen: str | None) -> Proof:
    match chosen or ("none" if secret is None else "client_secret_basic"):
        case "none" if secret is not None:
            raise ConfigurationError('client_auth="none" sends no client_secret: leave one of them out')
        case "none":
            return Proof(form={"client_id": client_id})
        case "client_secret_basic" | "client_secret_post" if not secret:
            raise ConfigurationError(f"client_auth={chosen!r} needs a client_secret")
        case "client_secret_basic":
            pair = f"{quote_plus(client_id)}:{quote_plus(secret or '')}"  # RFC 6749 §2.3.1
            basic = base64.b64encode(pair.encode()).decode()
            return Proof({"Authorization": f"Basic {basic}"}, secrets=(secret or "", basic))
        case "client_secret_post":
            form = {"client_id": client_id, "client_secret": secret or ""}
            return Proof(form=form, secrets=(secret or "",))
        case _:
            raise ConfigurationError(
                'client_auth is "client_secret_basic", "client_secret_post", "none" or a PrivateKeyJWT(…)'
            )

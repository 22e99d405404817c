"""Settings: what a worker's credentials are made from, in JSON's types; and how it is made of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypedDict

import httpx2

import keyturn
from keyturn.client import events, grants
from keyturn.client.grants.transport import HTTPFactory
from keyturn.clocks import now


class Settings(TypedDict, total=False):
    """What `Worker.open` takes. Times are in seconds.

    `url`: the strict server's origin; `token_url`: another token end point, as
    that of a proxy. `tokens`: the seed, as `written` gives it. `window`: the
    grant's `replay_window`; `timeout`: of one exchange. `clock`: by how much
    this process's clock is ahead of the true time. `client`: what it calls
    itself at the token end point. The rest is as in `keyturn.Credentials`.
    """

    url: str
    token_url: str | None
    store: str
    name: str | None
    tokens: dict[str, Any] | None
    reseed: bool
    encryption_keys: list[str]
    window: float
    timeout: float
    retry_for: float
    clock: float
    client: str


def written(tokens: keyturn.Tokens, lifetime: float | None = None) -> dict[str, Any]:
    """Return tokens in JSON's types; `lifetime` makes a token old whose life has only begun."""
    return {
        "access": tokens.access,
        "refresh": tokens.refresh,
        "expires_at": tokens.expires_at,
        "lifetime": tokens.lifetime if lifetime is None else lifetime,
    }


def credentials_of(settings: Settings, http: HTTPFactory, on_event: events.Callback) -> keyturn.Credentials:
    """Return the credentials that `settings` describe, their exchanges sent by clients that `http` makes."""
    ahead = settings.get("clock", 0.0)
    tokens, keys = settings.get("tokens"), settings.get("encryption_keys")
    options: dict[str, Any] = {} if not keys else {"encryption_keys": keys}
    if settings.get("reseed"):
        options["reseed"] = True
    return keyturn.Credentials(
        grants.OAuth2(
            settings.get("token_url") or settings["url"] + "/token",
            client_id=settings.get("client", "processes"),
            http=http,
            replay_window=timedelta(seconds=settings.get("window", 0.0)),
            timeout=timedelta(seconds=settings.get("timeout", 30.0)),
        ),
        origins=[settings["url"]],
        tokens=None if tokens is None else keyturn.Tokens(**tokens),
        store=settings.get("store", "memory://"),
        name=settings.get("name"),
        on_event=on_event,
        retry_for=timedelta(seconds=settings.get("retry_for", 30.0)),
        clock=lambda: now() + ahead,
        **options,
    )


def plain_http() -> httpx2.AsyncClient:
    """Return a client without a TLS context, which takes long to make."""
    return httpx2.AsyncClient(verify=False, trust_env=False, timeout=60.0)

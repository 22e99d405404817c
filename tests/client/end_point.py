"""A refresh end point that answers as a test says, and what buys at it."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import httpx2

import keyturn
from keyturn.client import grants

URL = "https://id.example/token"
OLD = keyturn.Tokens("old-access", "old-refresh", extra={"csrf_refresh_token": "old-csrf"})
PAIR = {"access_token": "new-access", "refresh_token": "new-refresh", "expires_in": 60}
Handler = Callable[[httpx2.Request], httpx2.Response]


class Server:
    """Answers every request the same way and keeps what was asked; `http` and `sync_http` are for a grant."""

    def __init__(self, status: int = 200, body: object = None, **options: Any) -> None:
        self.requests: list[httpx2.Request] = []
        content = body if isinstance(body, bytes) else json.dumps(PAIR if body is None else body).encode()
        self._answer = functools.partial(httpx2.Response, status, content=content, **options)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        return self._answer()

    def http(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.MockTransport(self))

    def sync_http(self) -> httpx2.Client:
        return httpx2.Client(transport=httpx2.MockTransport(self))

    @property
    def request(self) -> httpx2.Request:
        (only,) = self.requests
        return only

    @property
    def form(self) -> dict[str, str]:
        return {name: value for name, (value,) in parse_qs(self.request.content.decode()).items()}


def buy(grant: grants.Grant | grants.Function, old: keyturn.Tokens = OLD) -> keyturn.Tokens:
    """Refresh as an application does, and return what it gets; the tokens that it had are refused ones."""
    with credentials_of(grant, old) as credentials:
        return credentials.renew(credentials.get_tokens())


def credentials_of(grant: grants.Grant | grants.Function, old: keyturn.Tokens = OLD) -> keyturn.Credentials:
    return keyturn.Credentials(grant, tokens=old, origins=["https://api.example"], retry_for=timedelta(0))


def jwt(**claims: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'HS256'})}.{part(claims)}.{part('mac')}"

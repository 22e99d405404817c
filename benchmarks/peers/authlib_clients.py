"""Authlib: its OAuth 2.0 client of httpx2 and session of requests, which are the HTTP client at once.

The session refreshes when `expires_at` has come within its leeway, and not on
a 401. Where tokens must outlive a client, `update_token` keeps them: here for
the clients of several loops, which cannot share one.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import Any

from authlib.integrations.httpx_client import AsyncOAuth2Client, OAuth2Client
from authlib.integrations.requests_client import OAuth2Session
from benchmarks.peers.peer import CLIENT_ID, TIMEOUT, Connect, Peer

import keyturn


def _options(url: str, tokens: keyturn.Tokens) -> dict[str, Any]:
    token = {
        "token_type": "Bearer",
        "access_token": tokens.access,
        "refresh_token": tokens.refresh,
        "expires_at": int(tokens.expires_at or 0),
    }
    return {
        "client_id": CLIENT_ID,
        "token_endpoint_auth_method": "none",
        "token_endpoint": url + "/token",
        "token": token,
    }


def _tasks(url: str, tokens: keyturn.Tokens) -> Connect:
    options = _options(url, tokens)

    async def update_token(token: dict[str, Any], **old: Any) -> None:
        options["token"] = dict(token)

    @asynccontextmanager
    async def connect() -> Any:
        async with AsyncOAuth2Client(**options, update_token=update_token) as client:

            async def get(url: str, timeout: float = TIMEOUT) -> Any:
                return (await client.get(url, timeout=timeout)).status_code

            yield get

    return connect


def _threads(client: Any) -> Any:
    def open_(url: str, tokens: keyturn.Tokens) -> Connect:
        options = _options(url, tokens)

        @contextmanager
        def connect() -> Any:
            with client(**options) as session:
                yield lambda url, timeout=TIMEOUT: session.get(url, timeout=timeout).status_code

        return connect

    return open_


PEERS = [
    Peer("Authlib", "httpx2", "tasks", _tasks, "authlib"),
    Peer("Authlib", "httpx2", "threads", _threads(OAuth2Client), "authlib"),
    Peer("Authlib", "requests", "threads", _threads(OAuth2Session), "authlib"),
]

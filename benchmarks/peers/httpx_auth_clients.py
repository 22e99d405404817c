"""httpx-auth: `OAuth2ResourceOwnerPasswordCredentials`, whose grant takes refresh tokens without a browser.

Its cache is filled with the session's pair. It refreshes on expiry, and not on
a 401. Whoever finds the cache empty, also because another caller is just
refreshing, signs in anew with the password; its own hook, `client`, passes
that on to the strict server's `/login`, which is counted as a token call. In
tasks its requests for tokens block the loop, as its documentation has it.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs

import httpx
import httpx_auth
from benchmarks.peers.keyturn_clients import httpx_tasks, httpx_threads
from benchmarks.peers.peer import TIMEOUT, TLS, Connect, Peer

import keyturn


class _PasswordGrant(httpx.HTTPTransport):
    """The strict server knows no password grant, but a sign-in."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if parse_qs(request.read().decode()).get("grant_type") == ["password"]:
            login = request.url.copy_with(path="/login")
            request = httpx.Request("POST", login, json={"subject": "alice", "ttl": None})
        return super().handle_request(request)


def _auth(url: str, tokens: keyturn.Tokens) -> Any:
    client = httpx.Client(transport=_PasswordGrant(verify=TLS), timeout=TIMEOUT)
    auth = httpx_auth.OAuth2ResourceOwnerPasswordCredentials(
        url + "/token", username="alice", password="secret", client=client
    )
    expires_at = tokens.expires_at or time.time()
    httpx_auth.OAuth2.token_cache.tokens[auth.state] = tokens.access, expires_at, tokens.refresh
    return auth


def _tasks(url: str, tokens: keyturn.Tokens) -> Connect:
    return httpx_tasks(httpx, _auth(url, tokens))


def _threads(url: str, tokens: keyturn.Tokens) -> Connect:
    return httpx_threads(httpx, _auth(url, tokens))


PEERS = [
    Peer("httpx-auth", "httpx", "tasks", _tasks, "httpx-auth"),
    Peer("httpx-auth", "httpx", "threads", _threads, "httpx-auth", each=True),
]

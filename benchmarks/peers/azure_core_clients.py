"""azure-core: its pipeline with the bearer policy, on a credential that spends the refresh token.

The policy asks a credential for a token; how a credential gets one is its
author's. This one gives the token that it was made with, then refreshes each
time that it is asked, by a client of its own, and locks nothing. Whether it
is asked once for many requests is the policy's doing; every client has one of
its own, and they share the credential. On a 401 the policy
forgets its token and hands the response over. `enforce_https=False` lets it
speak to loopback without TLS.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx2
from azure.core import AsyncPipelineClient, PipelineClient
from azure.core.credentials import AccessTokenInfo
from azure.core.pipeline.policies import (
    AsyncBearerTokenCredentialPolicy,
    AsyncRetryPolicy,
    BearerTokenCredentialPolicy,
    RetryPolicy,
)
from azure.core.rest import HttpRequest
from benchmarks.peers.peer import CLIENT_ID, TIMEOUT, TLS, Connect, Peer

import keyturn

_WITHIN = 10.0


class _Tokens:
    """The tokens at hand, and what replaces them."""

    def __init__(self, url: str, tokens: keyturn.Tokens) -> None:
        self.url = url + "/token"
        self._refresh = tokens.refresh or ""
        self._seed: AccessTokenInfo | None = None
        if tokens.left(time.time()) > 0:
            self._seed = AccessTokenInfo(tokens.access, int(tokens.expires_at or 0))

    def seed(self) -> AccessTokenInfo | None:
        seed, self._seed = self._seed, None
        return seed

    @property
    def form(self) -> dict[str, str]:
        return {"grant_type": "refresh_token", "refresh_token": self._refresh, "client_id": CLIENT_ID}

    def keep(self, response: httpx2.Response, sent_at: float) -> AccessTokenInfo:
        response.raise_for_status()
        answer = response.json()
        self._refresh = answer["refresh_token"]
        return AccessTokenInfo(answer["access_token"], int(sent_at + answer["expires_in"]))


class _Credential(_Tokens):
    def get_token_info(self, *scopes: str, options: Any = None) -> AccessTokenInfo:
        seed, sent_at = self.seed(), time.time()
        if seed is not None:
            return seed
        return self.keep(httpx2.post(self.url, data=self.form, timeout=_WITHIN, verify=TLS), sent_at)

    def close(self) -> None:
        """Do nothing: every refresh has a client of its own."""


class _AsyncCredential(_Tokens):
    async def get_token_info(self, *scopes: str, options: Any = None) -> AccessTokenInfo:
        seed, sent_at = self.seed(), time.time()
        if seed is not None:
            return seed
        async with httpx2.AsyncClient(timeout=_WITHIN, verify=TLS) as client:
            return self.keep(await client.post(self.url, data=self.form), sent_at)

    async def close(self) -> None:
        """Do nothing: every refresh has a client of its own."""


def _threads(url: str, tokens: keyturn.Tokens) -> Connect:
    credential = _Credential(url, tokens)

    @contextmanager
    def connect() -> Any:
        policy: Any = BearerTokenCredentialPolicy(credential, "scope")
        with PipelineClient(url, policies=[RetryPolicy(), policy]) as client:

            def get(url: str, timeout: float = TIMEOUT) -> Any:
                request = HttpRequest("GET", url)
                return client.send_request(request, enforce_https=False, read_timeout=timeout).status_code

            yield get

    return connect


def _tasks(url: str, tokens: keyturn.Tokens) -> Connect:
    credential = _AsyncCredential(url, tokens)

    @asynccontextmanager
    async def connect() -> Any:
        policy: Any = AsyncBearerTokenCredentialPolicy(credential, "scope")
        async with AsyncPipelineClient(url, policies=[AsyncRetryPolicy(), policy]) as client:

            async def get(url: str, timeout: float = TIMEOUT) -> Any:
                request = HttpRequest("GET", url)
                sent = client.send_request(request, enforce_https=False, read_timeout=timeout)
                return (await sent).status_code

            yield get

    return connect


PEERS = [
    Peer("azure-core", "aiohttp", "tasks", _tasks, "azure-core"),
    Peer("azure-core", "requests", "threads", _threads, "azure-core"),
]

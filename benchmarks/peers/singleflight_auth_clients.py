"""singleflight-auth: its `Auth` for httpx and requests, around a refresh that is the application's own.

The refresh is that of its documentation: a POST by a client of its own with a
time-out, raising for an error status, keeping both tokens. The library is told
nothing of an expiry: it refreshes on a 401 only, whatever the reason for it.
Everything else is left at its default.
"""

from __future__ import annotations

import httpx
import requests
import singleflight_auth
from benchmarks.peers.keyturn_clients import httpx_tasks, httpx_threads, requests_threads
from benchmarks.peers.peer import CLIENT_ID, TLS, Connect, Peer

import keyturn

_WITHIN = 10.0


class _Store:
    """The tokens at hand, and what replaces them."""

    def __init__(self, url: str, tokens: keyturn.Tokens) -> None:
        self._url, self.access, self._refresh = url + "/token", tokens.access, tokens.refresh

    def token(self) -> str:
        return self.access

    def _form(self) -> dict[str, str]:
        return {
            "grant_type": "refresh_token",
            "refresh_token": self._refresh or "",
            "client_id": CLIENT_ID,
        }

    def _keep(self, response: httpx.Response) -> str:
        response.raise_for_status()
        answer = response.json()
        self.access, self._refresh = answer["access_token"], answer["refresh_token"]
        return self.access

    def refresh(self) -> str:
        return self._keep(httpx.post(self._url, data=self._form(), timeout=_WITHIN, verify=TLS))

    async def refresh_async(self) -> str:
        async with httpx.AsyncClient(timeout=_WITHIN, verify=TLS) as client:
            return self._keep(await client.post(self._url, data=self._form()))


def _tasks(url: str, tokens: keyturn.Tokens) -> Connect:
    store = _Store(url, tokens)
    return httpx_tasks(httpx, singleflight_auth.AsyncSingleFlightAuth(store.token, store.refresh_async))


def _threads(url: str, tokens: keyturn.Tokens) -> Connect:
    store = _Store(url, tokens)
    return httpx_threads(httpx, singleflight_auth.SingleFlightAuth(store.token, store.refresh))


def _requests(url: str, tokens: keyturn.Tokens) -> Connect:
    store = _Store(url, tokens)
    auth = singleflight_auth.RequestsSingleFlightAuth(store.token, store.refresh)
    return requests_threads(requests, auth)


PEERS = [
    Peer("singleflight-auth", "httpx", "tasks", _tasks, "singleflight-auth"),
    Peer("singleflight-auth", "httpx", "threads", _threads, "singleflight-auth", each=True),
    Peer("singleflight-auth", "requests", "threads", _requests, "singleflight-auth"),
]

"""msal: `acquire_token_silent_with_error` before each request, on one application shared by all threads.

msal is a token library: the request is the application's, here with a session
of requests, and so would be an answer to a 401. It speaks to authorities with
TLS only, so its own hook, `http_client`, answers the discovery and passes
token requests on to the strict server, adding the `client_info` by which msal
knows an account, as Microsoft's end point does. The cache is filled by
`TokenCache.add`.
"""

from __future__ import annotations

import base64
import json
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import msal
import requests
from benchmarks.peers.peer import CLIENT_ID, TIMEOUT, Connect, Peer

import keyturn

_AUTHORITY = "https://login.example/tenant"
_SCOPES = ["api"]
_INFO = base64.urlsafe_b64encode(b'{"uid": "alice", "utid": "tenant"}').decode()


class _Hook:
    """msal's HTTP client: the authority is made up, its token end point is the strict server's."""

    def __init__(self, url: str) -> None:
        self._token, self._session = url + "/token", requests.Session()

    def get(self, url: str, **options: Any) -> Any:
        found = {
            "issuer": _AUTHORITY,
            "authorization_endpoint": _AUTHORITY + "/authorize",
            "token_endpoint": _AUTHORITY + "/token",
        }
        return SimpleNamespace(status_code=200, text=json.dumps(found), headers={}, raise_for_status=id)

    def post(self, url: str, data: Any = None, **options: Any) -> Any:
        answer = self._session.post(self._token, data=data, timeout=TIMEOUT)
        text = json.dumps(answer.json() | {"client_info": _INFO}) if answer.ok else answer.text
        return SimpleNamespace(
            status_code=answer.status_code,
            text=text,
            headers=answer.headers,
            raise_for_status=answer.raise_for_status,
        )

    def close(self) -> None:
        self._session.close()


class ErrorReturned(Exception):
    """msal says that there is no token, by an entry called "error"."""


def _threads(url: str, tokens: keyturn.Tokens) -> Connect:
    application = msal.PublicClientApplication(
        CLIENT_ID,
        authority=_AUTHORITY,
        validate_authority=False,
        instance_discovery=False,
        http_client=_Hook(url),
    )
    answer = {
        "access_token": tokens.access,
        "refresh_token": tokens.refresh,
        "expires_in": int(tokens.lifetime or 0),
        "client_info": _INFO,
        "token_type": "Bearer",
    }
    application.token_cache.add(
        {
            "client_id": CLIENT_ID,
            "scope": _SCOPES,
            "environment": "login.example",
            "token_endpoint": _AUTHORITY + "/token",
            "response": answer,
        }
    )
    (account,) = application.get_accounts()

    def token() -> str:
        result = application.acquire_token_silent_with_error(_SCOPES, account) or {"error": "nothing"}
        if "error" in result:
            raise ErrorReturned(result["error"])
        return str(result["access_token"])

    @contextmanager
    def connect() -> Any:
        with requests.Session() as session:

            def get(url: str, timeout: float = TIMEOUT) -> Any:
                headers = {"Authorization": "Bearer " + token()}
                return session.get(url, headers=headers, timeout=timeout).status_code

            yield get

    return connect


PEERS = [Peer("msal", "requests", "threads", _threads, "msal")]

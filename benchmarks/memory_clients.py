"""Clients whose requests are answered from memory: each host bare, with keyturn, and with its peers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import aiohttp
import authlib.integrations.httpx_client as authlib_httpx
import authlib.integrations.requests_client as authlib_requests
import google.auth.transport.requests as google_requests
import google.oauth2.credentials as google_credentials
import httpx
import httpx2
import httpx_auth
import multidict
import niquests
import requests
import requests_oauthlib
import singleflight_auth
import yarl

import keyturn
import keyturn.client.aiohttp
import keyturn.client.httpx
import keyturn.client.httpx2
import keyturn.client.niquests
import keyturn.client.requests
from keyturn.client import grants

ORIGIN = "http://127.0.0.1:9"
ACCESS = "a" * 400
HEADERS = {"Authorization": "Bearer " + ACCESS}
TOKEN = {
    "token_type": "Bearer",
    "access_token": ACCESS,
    "refresh_token": "r" * 40,
    "expires_at": int(time.time()) + 10**6,
}

# A way to GET and a way to close, by the client's name. "bare" is there, and what they close may be awaited.
Variants = dict[str, tuple[Callable[[str], Any], Callable[[], Any]]]


def _credentials() -> keyturn.Credentials:
    tokens = keyturn.Tokens(ACCESS, "r" * 40, time.time() + 1e6)
    return keyturn.Credentials(grants.OAuth2(ORIGIN + "/token"), tokens=tokens, origins=[ORIGIN])


def _httpx(lib: Any, adapter: Any, *, is_async: bool) -> Variants:
    client = lib.AsyncClient if is_async else lib.Client
    wrapper = adapter.AsyncTransport if is_async else adapter.Transport

    class OneHeader(lib.Auth):  # type: ignore[misc]
        def auth_flow(self, request: Any) -> Any:
            request.headers["Authorization"] = "Bearer " + ACCESS
            yield request

        def sync_auth_flow(self, request: Any) -> Any:
            request.headers["Authorization"] = "Bearer " + ACCESS
            yield request

        async def async_auth_flow(self, request: Any) -> Any:
            request.headers["Authorization"] = "Bearer " + ACCESS
            yield request

    def memory() -> Any:
        return lib.MockTransport(lambda request: lib.Response(200))

    clients = {
        "bare": client(headers=HEADERS, transport=memory()),
        "bare again": client(headers=HEADERS, transport=memory()),
        "one header": client(auth=OneHeader(), transport=memory()),
        "keyturn, Auth": client(auth=adapter.Auth(_credentials()), transport=memory()),
        "keyturn, Transport": client(transport=wrapper(_credentials(), memory())),
    }
    if lib is httpx:
        clients["singleflight-auth"] = client(auth=_singleflight(is_async=is_async), transport=memory())
        clients["httpx-auth"] = client(auth=_httpx_auth(), transport=memory())
    else:
        oauth = authlib_httpx.AsyncOAuth2Client if is_async else authlib_httpx.OAuth2Client
        clients["Authlib"] = oauth("bench", token=dict(TOKEN), transport=memory())
    return {name: (one.get, one.aclose if is_async else one.close) for name, one in clients.items()}


def _singleflight(*, is_async: bool) -> Any:
    async def refresh() -> str:
        return ACCESS

    if is_async:
        return singleflight_auth.AsyncSingleFlightAuth(lambda: ACCESS, refresh)
    return singleflight_auth.SingleFlightAuth(lambda: ACCESS, lambda: ACCESS)


def _httpx_auth() -> Any:
    auth = httpx_auth.OAuth2ResourceOwnerPasswordCredentials(ORIGIN + "/token", "alice", "secret")
    httpx_auth.OAuth2.token_cache.tokens[auth.state] = ACCESS, time.time() + 1e6, "r" * 40
    return auth


def _session(lib: Any, session: Any, auth: Any = None, headers: Any = None) -> Any:
    """Return a session of requests or niquests that answers from memory."""

    class Memory(lib.adapters.BaseAdapter):  # type: ignore[misc]
        def send(self, request: Any, *args: Any, **options: Any) -> Any:
            return _response(lib, request, self)

        def close(self) -> None:
            pass

    session.trust_env = False
    session.mount("http://", Memory())
    session.auth = auth
    session.headers.update(headers or {})
    return session


def _response(lib: Any, request: Any, adapter: Any) -> Any:
    response = lib.Response()
    response.status_code, response.request, response.url = 200, request, request.url
    response._content, response.connection = b"", adapter
    response.raw = _RAW
    return response


_RAW: Any = SimpleNamespace(_original_response=None, headers={})


def _one_header(request: Any) -> Any:
    request.headers["Authorization"] = "Bearer " + ACCESS
    return request


def _requests() -> Variants:
    expiry = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=9)
    google = google_credentials.Credentials(
        ACCESS, "r", token_uri=ORIGIN + "/token", client_id="bench", client_secret="s", expiry=expiry
    )
    singleflight = singleflight_auth.RequestsSingleFlightAuth(lambda: ACCESS, lambda: ACCESS)
    os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
    oauthlib = requests_oauthlib.OAuth2Session("bench", token=dict(TOKEN))
    sessions = {
        "bare": _session(requests, requests.Session(), headers=HEADERS),
        "bare again": _session(requests, requests.Session(), headers=HEADERS),
        "one header": _session(requests, requests.Session(), _one_header),
        "keyturn, Auth": _session(requests, requests.Session(), keyturn.client.requests.Auth(_credentials())),
        "singleflight-auth": _session(requests, requests.Session(), singleflight),
        "Authlib": _session(requests, authlib_requests.OAuth2Session("bench", token=dict(TOKEN))),
        "requests-oauthlib": _session(requests, oauthlib, oauthlib.auth),
        "google-auth": _session(requests, google_requests.AuthorizedSession(google)),
    }
    return {name: (session.get, session.close) for name, session in sessions.items()}


def _niquests() -> Variants:
    auth = keyturn.client.niquests.Auth(_credentials())
    sessions = {
        "bare": _session(niquests, niquests.Session(), headers=HEADERS),
        "bare again": _session(niquests, niquests.Session(), headers=HEADERS),
        "one header": _session(niquests, niquests.Session(), _one_header),
        "keyturn, Auth": _session(niquests, niquests.Session(), auth),
    }
    return {name: (session.get, session.close) for name, session in sessions.items()}


def _niquests_async() -> Variants:
    class Memory(niquests.adapters.AsyncBaseAdapter):
        async def send(self, request: Any, *args: Any, **options: Any) -> Any:
            return _response(niquests, request, self)

        async def close(self) -> None:
            pass

    def session(auth: Any = None, headers: Any = None) -> Any:
        made = niquests.AsyncSession()
        made.trust_env, made.auth = False, auth
        made.mount("http://", Memory())
        made.headers.update(headers or {})
        return made

    sessions = {
        "bare": session(headers=HEADERS),
        "bare again": session(headers=HEADERS),
        "one header": session(_one_header),
        "keyturn, AsyncAuth": session(keyturn.client.niquests.AsyncAuth(_credentials())),
    }
    return {name: (one.get, one.close) for name, one in sessions.items()}


async def _answer(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
    """Answer in place of aiohttp's connection; the last of the middlewares."""
    response = aiohttp.ClientResponse(
        request.method,
        request.url,
        writer=None,
        continue100=None,
        timer=aiohttp.helpers.TimerNoop(),
        request_info=_INFO,
        traces=[],
        loop=request.loop,
        session=request._session,
        stream_writer=_WRITER,
    )
    response.status, response._headers, response._body = 200, _NO_HEADERS, b""
    response._closed = True
    return response


_NO_HEADERS: Any = multidict.CIMultiDictProxy(multidict.CIMultiDict())
_WRITER: Any = SimpleNamespace(output_size=0)
_INFO: Any = SimpleNamespace(
    url=yarl.URL(ORIGIN), method="GET", headers=_NO_HEADERS, real_url=yarl.URL(ORIGIN)
)


async def _one_header_middleware(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
    request.headers["Authorization"] = "Bearer " + ACCESS
    return await handler(request)  # type: ignore[no-any-return]


def _aiohttp() -> Variants:
    def session(*middlewares: Any, headers: Any = None) -> Any:
        return aiohttp.ClientSession(middlewares=[*middlewares, _answer], headers=headers)

    sessions = {
        "bare": session(headers=HEADERS),
        "bare again": session(headers=HEADERS),
        "one header": session(_one_header_middleware),
        "keyturn, Middleware": session(keyturn.client.aiohttp.Middleware(_credentials())),
    }
    return {name: (one.get, one.close) for name, one in sessions.items()}


HOSTS: dict[str, Callable[[], Variants]] = {
    "httpx2, tasks": lambda: _httpx(httpx2, keyturn.client.httpx2, is_async=True),
    "httpx2": lambda: _httpx(httpx2, keyturn.client.httpx2, is_async=False),
    "httpx, tasks": lambda: _httpx(httpx, keyturn.client.httpx, is_async=True),
    "httpx": lambda: _httpx(httpx, keyturn.client.httpx, is_async=False),
    "requests": _requests,
    "niquests, tasks": _niquests_async,
    "niquests": _niquests,
    "aiohttp, tasks": _aiohttp,
}

"""Requests on real sockets, with nothing but the standard library: the tests must not trust a client."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from keyturn.testing import StrictServer
from keyturn.tokens import Tokens


@dataclass(frozen=True)
class Reply:
    """An answer: `headers` is as http.client has it, `json` is empty where the body is none."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body) if self.body else {}

    @property
    def cookies(self) -> dict[str, str]:
        pairs = (value.partition(";")[0] for value in self.headers.get_all("Set-Cookie", []))
        return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def call(
    server: StrictServer,
    path: str,
    *,
    method: str = "GET",
    access: str | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes | Iterable[bytes] | None = None,
) -> Reply:
    """Send one request on a connection of its own."""
    given = dict(headers or {}) | ({} if access is None else {"Authorization": f"Bearer {access}"})
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, body, given, encode_chunked=not isinstance(body, bytes | None))
        answer = connection.getresponse()
        return Reply(answer.status, answer.headers, answer.read())


def refresh(server: StrictServer, token: str | None, **more: str) -> Reply:
    """Ask `POST /token` as RFC 6749 §6 does."""
    form = {"grant_type": "refresh_token", "refresh_token": token or "", **more}
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    return call(server, "/token", method="POST", headers=kind, body=urlencode(form).encode())


def cookie_headers(tokens: Tokens, csrf: str = "") -> dict[str, str]:
    """Return the headers that a browser, and a script with a CSRF value, would send."""
    cookies = f"access_token_cookie={tokens.access}; refresh_token_cookie={tokens.refresh}"
    return {"Cookie": cookies} | ({"X-CSRF-TOKEN": csrf} if csrf else {})


@contextlib.contextmanager
def raw(server: StrictServer) -> Iterator[socket.socket]:
    """Open a bare connection."""
    where = urlsplit(server.url)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=30) as bare:
        yield bare


@contextlib.contextmanager
def in_background(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Run calls in threads, and leave none behind."""
    with ThreadPoolExecutor(threads) as pool:
        yield pool


def results(futures: Iterable[Future[Reply]]) -> list[Reply]:
    """Return what all of them came to."""
    return [future.result(timeout=30) for future in futures]

"""requests with `Auth`."""

from __future__ import annotations

import json
from typing import Any, Literal

import requests
from requests.adapters import HTTPAdapter

import keyturn
from keyturn.client.requests import Auth
from tests.scenarios.drivers.base import TIMEOUT, Driver, Got, Sent, Streamed, Watch


class Requests:
    """A `Session`."""

    library = "requests"
    adapter = "auth"
    mode: Literal["sync"] = "sync"
    carriers: tuple[Literal["bearer", "cookies"], ...] = ("bearer", "cookies")
    takes = frozenset(
        {"file", "file-from-the-middle", "file-in-memory", "file-in-memory-from-the-middle"}
        | {"spooled-file", "iterator", "map", "pipe", "read-once"}
    )
    shares = True

    def open(
        self, credentials: keyturn.Credentials, *, connections: int, redirects: bool, watch: Watch | None
    ) -> Any:
        session = requests.Session()
        session.trust_env = False
        session.auth = Auth(credentials)
        session.mount("http://", HTTPAdapter(pool_maxsize=connections, pool_block=True))
        if not redirects:
            session.max_redirects = 0
        if watch is not None:
            session.hooks["response"].append(lambda response, **_: watch(response.status_code))
        return session

    def close(self, client: Any) -> None:
        client.close()

    def send(self, client: Any, sent: Sent) -> Got:
        how = arguments(client, sent)
        response = client.request(sent.method, sent.url, timeout=TIMEOUT, **how)
        return Got(response.status_code, response.url, response.headers, response.content)

    def stream(self, client: Any, url: str) -> Streamed:
        with client.get(url, stream=True, timeout=TIMEOUT) as response:
            unread = response._content is False and not response._content_consumed
            size = sum(len(chunk) for chunk in response.iter_content(65536))
            return Streamed(response.status_code, unread, size)


def arguments(client: Any, sent: Sent) -> dict[str, Any]:
    """Return what `Session.request` of requests and of niquests takes."""
    headers, data = dict(sent.headers), sent.data if sent.content is None else sent.content
    if sent.json is not None:
        headers["Content-Type"] = "application/json"
        data = json.dumps(sent.json, separators=(",", ":"), ensure_ascii=False).encode()
    given = {"data": data, "files": sent.files, "headers": headers}
    if sent.bare:
        given["auth"] = lambda request: request
    return given | {"allow_redirects": client.max_redirects > 0}


DRIVERS: list[Driver] = [Requests()]

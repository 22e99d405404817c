"""What the tests of the adapters for requests and niquests share."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import niquests
import pytest
import requests

import keyturn
import keyturn.client.niquests
import keyturn.client.requests
from keyturn.client import grants
from keyturn.testing import StrictServer
from tests.kit import credentials_for


@dataclass(frozen=True)
class Library:
    """One of the two libraries and keyturn's adapter for it. Their types differ, their shape does not."""

    lib: Any
    adapter: Any

    def __str__(self) -> str:
        return str(self.lib.__name__)

    def session(self, credentials: keyturn.Credentials, **attributes: Any) -> Any:
        """Return a session with `Auth`, which the environment says nothing to."""
        session = self.lib.Session()
        session.auth = self.adapter.Auth(credentials)
        for name, value in ({"trust_env": False} | attributes).items():
            setattr(session, name, value)
        return session


LIBRARIES = [Library(requests, keyturn.client.requests), Library(niquests, keyturn.client.niquests)]
both = pytest.mark.parametrize("library", LIBRARIES, ids=str)


def cookie_credentials(server: StrictServer, **options: Any) -> keyturn.Credentials:
    """Return credentials for the strict server whose tokens ride in cookies."""
    grant = grants.Cookies(server.url + "/token/refresh")
    return credentials_for(server, server.sign_in_cookies(), grant=grant, **options)


class Scripted:
    """An adapter to mount on a session that answers by itself, and keeps what it was to send.

    `answer` is given the request and returns a status and headers.
    """

    def __init__(self, library: Library, answer: Callable[[Any], tuple[int, dict[str, str]]]) -> None:
        self.sent: list[tuple[str, dict[str, str]]] = []
        self.how: list[dict[str, Any]] = []
        self.content = b"content"
        self.breaks_off: int | None = None  # the status of the responses whose bodies cannot be read
        self.closed: list[int] = []  # the statuses of the responses that were closed unread
        self._library, self._answer = library, answer

    def on(self, session: Any) -> Scripted:
        """Mount it for everything."""
        scripted, base = self, cast(type, self._library.lib.adapters.BaseAdapter)

        class Adapter(base):  # type: ignore[misc, valid-type]
            def send(self, request: Any, **how: Any) -> Any:
                scripted.sent.append((request.url, dict(request.headers)))
                scripted.how.append(how)
                return scripted.respond(request, self)

            def close(self) -> None:
                pass

        for prefix in ("http://", "https://"):
            session.mount(prefix, Adapter())
        return self

    def respond(self, request: Any, adapter: Any) -> Any:
        """Return the response to a request."""
        status, headers = self._answer(request)
        response = self._library.lib.Response()
        response.status_code, response.url = status, request.url
        response.headers.update(headers)
        response.request, response.connection = request, adapter
        response.raw = self._raw(status)
        return response

    def _raw(self, status: int) -> Any:
        content = io.BytesIO(self.content)

        def read(*_: object, **__: object) -> bytes:
            if status == self.breaks_off:
                raise ConnectionResetError
            return content.read()

        return SimpleNamespace(
            read=read,
            close=lambda: self.closed.append(status),
            release_conn=lambda: None,
            headers={},
            trailers={},
            extension=None,
            status=status,
            closed=False,
            _original_response=None,
        )

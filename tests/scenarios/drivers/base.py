"""What a driver is: an HTTP library with keyturn's adapter on it, as the table of scenarios drives it.

The table says what to send as a `Sent` and reads a `Got`; how a library
writes it is the driver's to know. The methods of a driver whose `mode` is
"async" are coroutine functions and run on the caller's loop; the others block.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import keyturn

TIMEOUT = 60.0

Watch = Callable[[int], None]


@dataclass(frozen=True)
class Sent:
    """A request: at most one of `json`, `content` and a form (`data`, `files`) is its body.

    `content` is bytes, text, a file or whatever of `Driver.takes` a test
    made; `files` is as httpx and requests have it. `bare` opts out of keyturn.
    """

    method: str
    url: str
    json: Any = None
    content: Any = None
    data: Mapping[str, str] | None = None
    files: list[tuple[str, tuple[str, Any, str]]] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    bare: bool = False


@dataclass(frozen=True)
class Got:
    """A response, read. `url` is the final one; `headers` is case-insensitive."""

    status_code: int
    url: str
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        """Return the body as text."""
        return self.content.decode()

    def json(self) -> Any:
        """Return the body, decoded."""
        return json.loads(self.content)


@dataclass(frozen=True)
class Streamed:
    """A response that was streamed: whether it was still unread when the caller got it, and its size."""

    status_code: int
    unread: bool
    size: int


class Driver(Protocol):
    """An HTTP library, one of its modes, and one of keyturn's adapters for it.

    `takes` names the kinds of body in tests/scenarios/test_10_bodies.py that
    the library takes beside those that every one does. `shares` is false where
    threads must not share a client, for reasons of the library's own.
    A driver whose library speaks HTTP/2 has an `open_http2(credentials, ca)`,
    too, and `shares_http2`, which says the same of such a client.
    """

    @property
    def library(self) -> str: ...
    @property
    def adapter(self) -> str: ...
    @property
    def mode(self) -> Literal["sync", "async"]: ...
    @property
    def carriers(self) -> tuple[Literal["bearer", "cookies"], ...]: ...
    @property
    def takes(self) -> frozenset[str]: ...
    @property
    def shares(self) -> bool: ...

    def open(
        self, credentials: keyturn.Credentials, *, connections: int, redirects: bool, watch: Watch | None
    ) -> Any:
        """Return a client with keyturn on it, whose pool holds `connections`.

        `redirects` are followed or not; `watch` is called with the status of
        each response, redirects included, before the next hop is sent.
        """

    def close(self, client: Any) -> Any:
        """Close it."""

    def send(self, client: Any, sent: Sent) -> Any:
        """Send a request and return what came as a `Got`."""

    def stream(self, client: Any, url: str) -> Any:
        """Stream a GET and return the `Streamed`."""

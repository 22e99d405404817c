"""One request of requests or niquests, as authflow sees it: translations without I/O.

The two libraries share their shape, not their types; the protocols below are
that shape.
"""

from __future__ import annotations

import re
import time
from typing import Any, Protocol, cast

from keyturn.client.answer import Answer, set_cookies
from keyturn.client.carriers import Carrier
from keyturn.client.credentials import Credentials
from keyturn.client.origins import Origin
from keyturn.client.snapshot import Snapshot

# Stricter than any of the parsers that a library sends by: what these could read differently is nobody's.
_ORIGIN = re.compile(
    r"(https?)://(?:[^\s\\/?#@\[\]]*@)?(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]*))?(?=[/?#]|\Z)",
    re.IGNORECASE,
)
_IN_MEMORY = (bytes, str, type(None), bytearray, memoryview)


class Request(Protocol):
    """A prepared request of the family."""

    @property
    def method(self) -> str | None: ...
    @property
    def url(self) -> str | None: ...
    @property
    def headers(self) -> Any: ...
    @property
    def body(self) -> object: ...
    def copy(self) -> Any: ...


class Response(Protocol):
    """A response of the family."""

    @property
    def status_code(self) -> Any: ...
    @property
    def headers(self) -> Any: ...
    @property
    def request(self) -> Any: ...


class _File(Protocol):
    def seekable(self) -> bool: ...
    def seek(self, offset: int, /) -> object: ...


class PreparedCall:
    """One prepared request, or one hop of it, as authflow sees it."""

    __slots__ = ("_carrier", "_sent", "request", "snapshot")

    def __init__(self, request: Request, carrier: Carrier, *, sent: bool) -> None:
        self.request = request
        self.snapshot: Snapshot | None = None
        self._carrier, self._sent = carrier, sent

    @property
    def method(self) -> str:
        """Return the method of the request."""
        return self.request.method or ""

    @property
    def destination(self) -> str:
        """Return the origin that the request is bound for."""
        match = _ORIGIN.match(self.request.url or "")
        if match is None:
            return "a URL without an origin"
        scheme, address, name, port = match.groups()
        return f"{scheme}://{name or f'[{address}]'}{f':{port}' if port else ''}".lower()

    def serves(self, credentials: Credentials) -> bool:
        """Tell whether the request is bound for one of the credentials' origins."""
        return origin_of(self.request.url or "") in credentials.origins

    def attach(self, snapshot: Snapshot) -> None:
        """Write the tokens into the headers, and rewind the body if it was sent before."""
        if self._sent and not isinstance(self.request.body, _IN_MEMORY):
            cast(_File, self.request.body).seek(_start(self.request))
        self._sent, self.snapshot = True, snapshot
        self._carrier.attach(self.request.headers, snapshot)

    def withhold(self) -> None:
        """Take out of a request to another origin what is ours."""
        self._carrier.withhold(self.request.headers)

    def refused(self, response: Response) -> bool:
        """Tell whether the response refuses the tokens."""
        return self._carrier.refused(response.status_code, response.headers)

    def arrived_at(self, response: Response) -> None:
        """Stay: every hop of a redirect is told of by itself."""

    def carries(self, snapshot: Snapshot) -> bool:
        """Tell whether the request still carries the tokens."""
        return self._carrier.carries(self.request.headers, snapshot)

    def replayable(self) -> bool:
        """Tell whether the body can be sent again, whole: bytes can, and a file from where it stood.

        What else there is may be a generator, which would be empty the second
        time, or would have to be rewound by awaiting.
        """
        body = self.request.body
        if isinstance(body, _IN_MEMORY):
            return True
        if hasattr(body, "__aiter__"):
            return False
        try:
            return bool(cast(_File, body).seekable()) and _start(self.request) >= 0
        except (AttributeError, OSError, ValueError):
            return False

    def status(self, response: Response) -> int:
        """Return the status."""
        return int(response.status_code)

    def answer(self, response: Response) -> Answer:
        """Return the response as a carrier reads it."""
        headers = response.headers
        elapsed = getattr(response, "elapsed", None)
        sent_at = time.time() - (0.0 if elapsed is None else elapsed.total_seconds())
        # The values of a header are joined in `headers`; behind `raw` they are apart.
        apart = getattr(getattr(response, "raw", None), "headers", headers)
        content = getattr(response, "_content", None) or b""  # there once it was read; never read it here
        return Answer(response.status_code, headers, sent_at, set_cookies(apart), content)


def is_in_memory(body: object) -> bool:
    """Tell whether a body can be sent again without a thought."""
    return isinstance(body, _IN_MEMORY)


def origin_of(url: str) -> Origin | None:
    """Return the origin of a URL, None where it has none that can be told for certain."""
    match = _ORIGIN.match(url)
    if match is None:
        return None
    scheme, address, name, port = match.groups()
    return scheme.lower(), (address or name).lower().encode(), int(port) if port else None


def prefixes(origins: frozenset[Origin]) -> tuple[str, ...]:
    """Return what a URL may begin with to be one of ours, without a further thought."""
    hosts = ((scheme, host.decode("ascii"), port) for scheme, host, port in origins)
    return tuple(
        f"{scheme}://{f'[{host}]' if ':' in host else host}{'' if port is None else f':{port}'}/"
        for scheme, host, port in hosts
    )


def _start(request: Request) -> int:
    """Return where the body stood when the request was prepared. Raises ValueError where nobody knows."""
    position = getattr(request, "_body_position", None)
    if isinstance(position, int):
        return position
    raise ValueError("nobody knows where the body stood")

"""One request of httpx2 or httpx, as authflow sees it: translations without I/O.

The two libraries share their shape, not their types; the protocols below are
that shape.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Generic, Protocol, TypeVar, cast

from keyturn.client.answer import Answer, set_cookies
from keyturn.client.bodies import rewinder
from keyturn.client.credentials import Credentials
from keyturn.client.snapshot import Snapshot
from keyturn.errors import SessionEnded


class URL(Protocol):
    """A URL of the family."""

    @property
    def scheme(self) -> str: ...
    @property
    def raw_host(self) -> bytes: ...
    @property
    def port(self) -> int | None: ...


class Request(Protocol):
    """A request of the family."""

    headers: Any  # of the library's own class: a mutable mapping of texts that copies another

    @property
    def method(self) -> str: ...
    @property
    def url(self) -> URL: ...
    @property
    def stream(self) -> object: ...
    @property
    def extensions(self) -> MutableMapping[str, Any]: ...


class Response(Protocol):
    """A response of the family."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def content(self) -> bytes: ...
    def read(self) -> bytes: ...
    async def aread(self) -> bytes: ...
    def close(self) -> None: ...
    async def aclose(self) -> None: ...


RequestT = TypeVar("RequestT", bound=Request)
ResponseT = TypeVar("ResponseT", bound=Response)

_BEGUN = "keyturn.begun"  # in a redirected request's extensions: the epoch that it was sent under, and its id


class FamilyCall(Generic[RequestT, ResponseT]):
    """One request of the family, as authflow sees it.

    `byte_stream` is the library's class of bodies that are bytes in memory.
    """

    __slots__ = ("_carrier", "_rewind", "_sent", "_sent_at", "request")

    def __init__(self, request: RequestT, credentials: Credentials, byte_stream: type) -> None:
        self.request = request
        self._carrier = credentials.carrier
        self._sent, self._sent_at = False, 0.0
        stream = request.stream
        self._rewind = _nothing if isinstance(stream, byte_stream) else rewinder(stream)

    @property
    def method(self) -> str:
        """Return the method of the request as it stands."""
        return self.request.method

    @property
    def destination(self) -> str:
        """Return the origin that the request is bound for."""
        url = self.request.url
        port = "" if url.port is None else f":{url.port}"
        return f"{url.scheme}://{url.raw_host.decode('ascii', 'replace')}{port}"

    def serves(self, credentials: Credentials) -> bool:
        """Tell whether the request is bound for one of the credentials' origins."""
        url = self.request.url
        return (url.scheme, url.raw_host, url.port) in credentials.origins

    def attach(self, snapshot: Snapshot) -> None:
        """Write the tokens into the headers, and rewind the body if it was sent before."""
        if self._sent and self._rewind is not None:
            self._rewind()
        self._sent, self._sent_at = True, time.time()
        self._carrier.attach(self.request.headers, snapshot)

    def withhold(self) -> None:
        """Take out of a request to another origin what is ours."""
        self._carrier.withhold(self.request.headers)

    def refused(self, response: ResponseT) -> bool:
        """Tell whether the response refuses the tokens."""
        return self._carrier.refused(response.status_code, response.headers)

    def arrived_at(self, response: ResponseT) -> None:
        """Go on from the request that was answered."""
        last = cast(RequestT, getattr(response, "_request", None) or self.request)
        if last is not self.request:
            if last.stream is not self.request.stream:  # the redirect dropped the body
                self._rewind = rewinder(last.stream)
            self.request = last

    def carries(self, snapshot: Snapshot) -> bool:
        """Tell whether the request still carries the tokens."""
        return self._carrier.carries(self.request.headers, snapshot)

    def replayable(self) -> bool:
        """Tell whether the body can be sent again, whole."""
        return self._rewind is not None

    def status(self, response: ResponseT) -> int:
        """Return the status."""
        return response.status_code

    def answer(self, response: ResponseT) -> Answer:
        """Return the response as a carrier reads it."""
        content = response.content if self._carrier.body else b""
        headers = response.headers
        return Answer(response.status_code, headers, self._sent_at, set_cookies(headers), content)


class HopCall(FamilyCall[RequestT, ResponseT]):
    """One hop, as a transport sends it: the caller's headers get no token, so no redirect can copy one.

    The tokens are written into a copy, which is the request's until `detach`.
    """

    __slots__ = ("_epoch", "_theirs")

    def __init__(
        self, request: RequestT, credentials: Credentials, byte_stream: type, sent: Snapshot | None
    ) -> None:
        super().__init__(request, credentials, byte_stream)
        self._theirs = request.headers
        self._epoch = None if sent is None else sent.epoch

    def attach(self, snapshot: Snapshot) -> None:
        """Write the tokens into a copy of the caller's headers.

        Raises SessionEnded where the hop before was sent under another sign-in.
        """
        begun = self.request.extensions.get(_BEGUN)
        if begun is not None and begun[0] != snapshot.epoch and begun[1] != id(self.request):
            raise SessionEnded(
                "somebody signed in anew between two hops of a redirect", reason="replaced", epoch=begun[0]
            )
        self._epoch = snapshot.epoch
        self.request.headers = type(self._theirs)(self._theirs)
        super().attach(snapshot)

    def detach(self) -> None:
        """Put the caller's own headers back."""
        self.request.headers = self._theirs

    def handed_over(self, response: ResponseT) -> ResponseT:
        """Return the response; a redirect's request takes a note of its sign-in along to the next hop."""
        if self._epoch is not None and 300 <= response.status_code < 400:
            note(self.request, self._epoch)
        return response

    def carries(self, snapshot: Snapshot) -> bool:
        """Say yes: between `attach` and the answer nobody touches a hop."""
        return True

    def arrived_at(self, response: ResponseT) -> None:
        """Stay: a hop is answered as it was sent."""


def embarker(
    credentials: Credentials, byte_stream: type, *, hop: bool = False
) -> Callable[[Request], Snapshot | None]:
    """Return a function that attaches fresh tokens to a request that needs no thought until it is refused.

    It returns what it attached; None for a request that must go the whole
    journey. A `hop` gets the tokens in a copy of its headers. Nearly every
    request goes this way, so what does not change is looked up here, and the
    parts of a URL are read where the libraries keep them: three properties
    cost as much as all the rest. What is not found there to be bound for one
    of our origins is asked by its properties, on the whole journey.
    """
    attach, fresh = credentials.carrier.attach, credentials.fresh
    origins = frozenset((scheme, host.decode("ascii"), port) for scheme, host, port in credentials.origins)

    def embark(request: Request) -> Snapshot | None:
        parts = getattr(request.url, "_uri_reference", None)
        if (
            parts is None
            or (parts.scheme, parts.host, parts.port) not in origins
            or not isinstance(request.stream, byte_stream)
            or (snapshot := fresh()) is None
        ):
            return None
        headers = request.headers
        if hop:
            if _BEGUN in request.extensions:
                return None
            headers = type(headers)(headers)
        attach(headers, snapshot)
        request.headers = headers
        return snapshot

    return _stay if credentials.carrier.adopts else embark


def note(request: Request, epoch: str) -> None:
    """Have a redirected request take a note of its sign-in along to the next hop.

    httpx hands a request's extensions on to the one that follows it.
    """
    request.extensions[_BEGUN] = epoch, id(request)


def _stay(request: Request) -> None:
    """Send every request on the whole journey."""


def _nothing() -> None:
    """Rewind what needs no rewinding: bytes."""

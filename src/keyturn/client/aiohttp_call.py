"""One request of aiohttp, as authflow sees it: translations without I/O.

aiohttp makes a request anew for each hop of a redirect, of the caller's own
headers, and passes each through its middlewares. So a hop is attached and
judged by itself, and what is written into one never reaches the next.
"""

from __future__ import annotations

import time
from contextvars import ContextVar

from aiohttp import ClientRequest, ClientResponse

from keyturn.client.aiohttp_bodies import Body, is_repeatable, keep_apart
from keyturn.client.answer import Answer, set_cookies
from keyturn.client.carriers import Carrier
from keyturn.client.credentials import Credentials
from keyturn.client.origins import Origin
from keyturn.client.snapshot import Snapshot
from keyturn.client.state import REPLACED
from keyturn.errors import SessionEnded

Address = tuple[str, str | None, int | None]
Kept = tuple[tuple[str, list[str]], ...]

_WEBSOCKET = {"http": "ws", "https": "wss"}
_Begun = tuple[object, dict[Credentials, str]]

# What the last request of this task that may go on, by a redirect or a retry, was sent under:
# aiohttp's timer, which is one for all hops and attempts of a request, and an epoch for each credentials.
_begun: ContextVar[_Begun | None] = ContextVar("keyturn_begun", default=None)


def addresses(origins: frozenset[Origin]) -> frozenset[Address]:
    """Return origins as aiohttp's URLs spell them; a WebSocket belongs to the origin of its handshake."""
    spelled = {(scheme, host.decode("ascii"), port) for scheme, host, port in origins}
    return frozenset(spelled | {(_WEBSOCKET[scheme], host, port) for scheme, host, port in spelled})


class HopCall:
    """One hop of a request."""

    __slots__ = ("_body", "_kept", "_ours", "_repeatable", "_sent_at", "content", "credentials", "request")

    def __init__(self, request: ClientRequest, credentials: Credentials, ours: frozenset[Address]) -> None:
        self.request = request
        self.content = b""
        self.credentials, self._ours = credentials, ours
        self._kept: Kept | None = None
        self._sent_at = 0.0
        self._body: Body | None = None
        self._repeatable = False

    @property
    def method(self) -> str:
        """Return the method."""
        return self.request.method

    @property
    def destination(self) -> str:
        """Return the origin that the request is bound for."""
        return str(self.request.url.origin())

    def serves(self, credentials: Credentials) -> bool:
        """Tell whether the request is bound for one of the credentials' origins."""
        url = self.request.url
        return (url.scheme, url.raw_host, url.port) in self._ours

    def attach(self, snapshot: Snapshot) -> None:
        """Write the tokens into the headers until `detach`; aiohttp itself takes a file back to its start.

        Raises SessionEnded where an earlier hop or attempt was sent under another sign-in.
        """
        epoch = begun_under(self.request, self.credentials)
        if epoch is not None and epoch != snapshot.epoch:
            raise SessionEnded(REPLACED, reason="replaced", epoch=epoch)
        self.request.update_expect_continue()  # an attempt uses up the 100 that it waits for
        self._sent_at = time.time()
        self._kept = put_on(self.request, self.credentials.carrier, snapshot)
        may_go_on(self.request, self.credentials, snapshot)

    def detach(self) -> None:
        """Put the caller's own headers back, if tokens were attached."""
        kept, self._kept = self._kept, None
        if kept is not None:
            take_off(self.request, self.credentials.carrier, kept)

    def withhold(self) -> None:
        """Take out of a request to another origin what is ours."""
        self.credentials.carrier.withhold(self.request.headers)

    def refused(self, response: ClientResponse) -> bool:
        """Tell whether the response refuses the tokens."""
        return self.credentials.carrier.refused(response.status, response.headers)

    def arrived_at(self, response: ClientResponse) -> None:
        """Stay: a hop is answered as it was sent."""

    def carries(self, snapshot: Snapshot) -> bool:
        """Say yes: between `attach` and the answer nobody touches a hop."""
        return True

    def replayable(self) -> bool:
        """Tell whether the body can be sent again, whole; a middleware further in may have put it there."""
        body = self.request.body
        if body is not self._body:
            self._body, self._repeatable = body, is_repeatable(body)
            if self._repeatable:
                keep_apart(body)
        return self._repeatable

    def status(self, response: ClientResponse) -> int:
        """Return the status."""
        return response.status

    def answer(self, response: ClientResponse) -> Answer:
        """Return the response as a carrier reads it; `content` is what the driver has read of it."""
        headers = response.headers
        return Answer(response.status, headers, self._sent_at, set_cookies(headers), self.content)


def put_on(request: ClientRequest, carrier: Carrier, snapshot: Snapshot) -> Kept:
    """Write the tokens into the headers of a request, and return the caller's own that give way."""
    headers = request.headers
    kept: Kept = ()
    for name in carrier.headers:
        if name in headers:
            kept = (*kept, (name, headers.getall(name)))
    carrier.attach(headers, snapshot)
    return kept


def take_off(request: ClientRequest, carrier: Carrier, kept: Kept) -> None:
    """Put the caller's own headers back: aiohttp shows them in a response, and in its errors."""
    headers = request.headers
    for name in carrier.headers:
        headers.popall(name, None)
    for name, values in kept:
        for value in values:
            headers.add(name, value)


def begun_under(request: ClientRequest, credentials: Credentials) -> str | None:
    """Return the epoch that an earlier hop or attempt of this request was sent under, None for a first one.

    A middleware further out that runs this one in a task of its own hides its note from the next hop.
    """
    begun = _begun.get()
    if begun is None or begun[0] is not _timer(request):
        return None
    return begun[1].get(credentials)


def may_go_on(request: ClientRequest, credentials: Credentials, snapshot: Snapshot) -> None:
    """Note the sign-in for what may be sent next: another hop, or this one again."""
    timer, begun = _timer(request), _begun.get()
    if begun is None or begun[0] is not timer:
        _begun.set((timer, {credentials: snapshot.epoch}))
    else:
        begun[1].setdefault(credentials, snapshot.epoch)


def _timer(request: ClientRequest) -> object:
    return getattr(request, "_timer", request)

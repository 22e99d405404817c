"""What httpx2 and httpx have in common: authflow in their idiom, with its drivers.

The two libraries share their shape, not their types; the protocols below are
that shape. An `Auth` works above redirects: it sees the last response of a
chain, and httpx itself keeps or drops the Authorization header on the way. A
transport works below them and sees every hop.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, MutableMapping
from typing import Any, Generic, Protocol, TypeVar, cast

from keyturn.client.answer import Answer, set_cookies
from keyturn.client.authflow import Journey, Step, authflow
from keyturn.client.bodies import rewinder
from keyturn.client.credentials import Credentials
from keyturn.client.snapshot import Snapshot
from keyturn.errors import ConfigurationError, SessionEnded


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

    @property
    def method(self) -> str: ...
    @property
    def url(self) -> URL: ...
    @property
    def headers(self) -> MutableMapping[str, str]: ...
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
Sent = TypeVar("Sent", contravariant=True)
Got = TypeVar("Got", covariant=True)

_BEGUN = "keyturn.begun"  # in a redirected request's extensions: the epoch that it was sent under, and its id


class FamilyCall(Generic[RequestT, ResponseT]):
    """One request of the family, as authflow sees it.

    `byte_stream` is the library's class of bodies that are bytes in memory.
    """

    __slots__ = ("_carrier", "_epoch", "_rewind", "_saved", "_sent", "_sent_at", "request")

    def __init__(self, request: RequestT, credentials: Credentials, byte_stream: type) -> None:
        self.request = request
        self._carrier = credentials.carrier
        self._sent, self._sent_at = False, 0.0
        self._saved: list[tuple[str, str | None]] = []
        self._epoch: str | None = None
        stream = request.stream
        self._rewind = _nothing if isinstance(stream, byte_stream) else rewinder(stream)

    @property
    def method(self) -> str:
        """Return the method of the request as it stands."""
        return self.request.method

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
    """One hop, as a transport sends it: the caller's request keeps no token, so no redirect can copy one."""

    __slots__ = ()

    def attach(self, snapshot: Snapshot) -> None:
        """Write the tokens into the headers until `detach`.

        Raises SessionEnded where the hop before was sent under another sign-in.
        """
        begun = self.request.extensions.get(_BEGUN)
        if begun is not None and begun[0] != snapshot.epoch and begun[1] != id(self.request):
            raise SessionEnded(
                "somebody signed in anew between two hops of a redirect", reason="replaced", epoch=begun[0]
            )
        self._epoch = snapshot.epoch
        headers = self.request.headers
        self._saved = [(name, headers.get(name)) for name in self._carrier.headers]
        super().attach(snapshot)

    def detach(self) -> None:
        """Put the caller's own headers back."""
        headers = self.request.headers
        for name, value in self._saved:
            if value is not None:
                headers[name] = value
            elif name in headers:
                del headers[name]
        self._saved = []

    def handed_over(self, response: ResponseT) -> ResponseT:
        """Return the response; a redirect's request takes a note of its sign-in along to the next hop.

        httpx hands a request's extensions on to the one that follows it.
        """
        if self._epoch is not None and 300 <= response.status_code < 400:
            self.request.extensions[_BEGUN] = self._epoch, id(self.request)
        return response

    def carries(self, snapshot: Snapshot) -> bool:
        """Say yes: between `attach` and the answer nobody touches a hop."""
        return True

    def arrived_at(self, response: ResponseT) -> None:
        """Stay: a hop is answered as it was sent."""


def _check_carrier(credentials: Credentials) -> Credentials:
    """Return credentials that `Auth` can carry. Raises ConfigurationError for others.

    httpx applies auth above its redirects: it would take a cookie or a CSRF
    header along to another origin.
    """
    if not isinstance(credentials, Credentials):
        raise ConfigurationError(f"Auth takes keyturn.Credentials, not {type(credentials).__name__}")
    if credentials.carrier.headers != ("authorization",):
        raise ConfigurationError(
            "Auth cannot keep cookies and CSRF headers from another origin when httpx follows a redirect: "
            "use Client(transport=Transport(credentials)), or AsyncTransport for an AsyncClient"
        )
    return credentials


def _auth_flow(
    credentials: Credentials, request: RequestT, byte_stream: type
) -> Generator[RequestT, ResponseT, None]:
    """Drive authflow as httpx's synchronous auth flow."""
    response: ResponseT | None = None
    snapshot = _embark(credentials, request, byte_stream)
    if snapshot is not None:
        response = yield request
        if not credentials.carrier.refused(response.status_code, response.headers):
            return
    call = FamilyCall[RequestT, ResponseT](request, credentials, byte_stream)
    flow = authflow(credentials, call, _refusal(snapshot, response))
    try:
        step = next(flow)
        while True:
            reply: object = None
            if step is Step.SEND:
                reply = response = yield call.request
            elif isinstance(step, Step):
                cast(ResponseT, response).read()
            else:
                reply = step.wait()
            step = flow.send(reply)
    except StopIteration:
        return
    finally:
        flow.close()


async def _async_auth_flow(
    credentials: Credentials, request: RequestT, byte_stream: type
) -> AsyncGenerator[RequestT, ResponseT]:
    """Drive authflow as httpx's asynchronous auth flow."""
    response: ResponseT | None = None
    snapshot = _embark(credentials, request, byte_stream)
    if snapshot is not None:
        response = yield request
        if not credentials.carrier.refused(response.status_code, response.headers):
            return
    call = FamilyCall[RequestT, ResponseT](request, credentials, byte_stream)
    flow = authflow(credentials, call, _refusal(snapshot, response))
    try:
        step = next(flow)
        while True:
            reply: object = None
            if step is Step.SEND:
                reply = response = yield call.request
            elif isinstance(step, Step):
                await cast(ResponseT, response).aread()
            else:
                reply = await step.wait_async()
            step = flow.send(reply)
    except StopIteration:
        return
    finally:
        flow.close()


def _handle(
    credentials: Credentials, call: HopCall[RequestT, ResponseT], send: Callable[[RequestT], ResponseT]
) -> ResponseT:
    """Drive authflow around a transport's `handle_request`."""
    flow: Journey[ResponseT] = authflow(credentials, call)
    response: ResponseT | None = None
    try:
        step = next(flow)
        while True:
            reply: object = None
            if step is Step.SEND:
                try:
                    reply = response = send(call.request)
                finally:
                    call.detach()
            elif isinstance(step, Step):
                cast(ResponseT, response).read()
            else:
                reply = step.wait()
            step = flow.send(reply)
    except StopIteration as end:
        return call.handed_over(cast(ResponseT, end.value))
    except BaseException:
        if response is not None:
            response.close()
        raise
    finally:
        flow.close()


async def _handle_async(
    credentials: Credentials,
    call: HopCall[RequestT, ResponseT],
    send: Callable[[RequestT], Awaitable[ResponseT]],
) -> ResponseT:
    """Drive authflow around a transport's `handle_async_request`."""
    flow: Journey[ResponseT] = authflow(credentials, call)
    response: ResponseT | None = None
    try:
        step = next(flow)
        while True:
            reply: object = None
            if step is Step.SEND:
                try:
                    reply = response = await send(call.request)
                finally:
                    call.detach()
            elif isinstance(step, Step):
                await cast(ResponseT, response).aread()
            else:
                reply = await step.wait_async()
            step = flow.send(reply)
    except StopIteration as end:
        return call.handed_over(cast(ResponseT, end.value))
    except BaseException:
        if response is not None:
            await response.aclose()
        raise
    finally:
        flow.close()


class Auth(Generic[RequestT, ResponseT]):
    """Attach the credentials' bearer token; on a refusal, refresh once for everyone and send again.

    For `Client(auth=…)`, `AsyncClient(auth=…)` or one request; `auth=None` on
    a request leaves it alone. May be shared by any number of clients.

    Raises ConfigurationError for credentials that ride in cookies (see
    `Transport`). Requests raise what `Credentials.get_tokens` raises, and
    NotReplayable.
    """

    _byte_stream: type

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = _check_carrier(credentials)

    def sync_auth_flow(self, request: RequestT) -> Generator[RequestT, ResponseT, None]:
        """Take one request of a `Client` through."""
        return _auth_flow(self._credentials, request, self._byte_stream)

    def async_auth_flow(self, request: RequestT) -> AsyncGenerator[RequestT, ResponseT]:
        """Take one request of an `AsyncClient` through."""
        return _async_auth_flow(self._credentials, request, self._byte_stream)


class SyncInner(Protocol[Sent, Got]):
    """A transport of the family."""

    def handle_request(self, request: Sent) -> Got: ...
    def close(self) -> None: ...


class AsyncInner(Protocol[Sent, Got]):
    """An asynchronous transport of the family."""

    async def handle_async_request(self, request: Sent) -> Got: ...
    async def aclose(self) -> None: ...


class Transport(Generic[RequestT, ResponseT]):
    """Wrap a transport, so that every hop of a redirect is attached and judged by itself.

    For `Client(transport=Transport(credentials))`, with any carrier; `inner`
    is a new `HTTPTransport` unless given. The caller's request never holds a
    token, so that no redirect takes one along. Raises as `Auth`.
    """

    _byte_stream: type
    _default: Callable[[], SyncInner[RequestT, ResponseT]]

    def __init__(self, credentials: Credentials, inner: SyncInner[RequestT, ResponseT] | None = None) -> None:
        self._credentials = credentials
        self._inner = self._default() if inner is None else inner

    def handle_request(self, request: RequestT) -> ResponseT:
        """Take one hop through."""
        call = HopCall[RequestT, ResponseT](request, self._credentials, self._byte_stream)
        return _handle(self._credentials, call, self._inner.handle_request)

    def close(self) -> None:
        """Close the wrapped transport."""
        self._inner.close()


class AsyncTransport(Generic[RequestT, ResponseT]):
    """Do as `Transport` does, for `AsyncClient(transport=AsyncTransport(credentials))`."""

    _byte_stream: type
    _default: Callable[[], AsyncInner[RequestT, ResponseT]]

    def __init__(
        self, credentials: Credentials, inner: AsyncInner[RequestT, ResponseT] | None = None
    ) -> None:
        self._credentials = credentials
        self._inner = self._default() if inner is None else inner

    async def handle_async_request(self, request: RequestT) -> ResponseT:
        """Take one hop through."""
        call = HopCall[RequestT, ResponseT](request, self._credentials, self._byte_stream)
        return await _handle_async(self._credentials, call, self._inner.handle_async_request)

    async def aclose(self) -> None:
        """Close the wrapped transport."""
        await self._inner.aclose()


def _embark(credentials: Credentials, request: Request, byte_stream: type) -> Snapshot | None:
    """Attach fresh tokens and return them, where a request needs no more thought until it is refused.

    That is nearly every request, so it is kept short; None sends it on the
    whole journey.
    """
    url = request.url
    if (
        (url.scheme, url.raw_host, url.port) not in credentials.origins
        or not isinstance(request.stream, byte_stream)
        or (snapshot := credentials.fresh()) is None
        or credentials.carrier.adopts
    ):
        return None
    credentials.carrier.attach(request.headers, snapshot)
    return snapshot


def _refusal(snapshot: Snapshot | None, response: ResponseT | None) -> tuple[Snapshot, ResponseT] | None:
    return None if snapshot is None or response is None else (snapshot, response)


def _nothing() -> None:
    """Rewind what needs no rewinding: bytes."""

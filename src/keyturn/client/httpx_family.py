"""What httpx2 and httpx have in common: their `Auth` and transports, and the drivers of authflow.

An `Auth` works above redirects: it sees the last response of a chain, and
httpx itself keeps or drops the Authorization header on the way. A transport
works below them and sees every hop.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Generic, Protocol, TypeVar, cast

from keyturn.client.authflow import Journey, Step, authflow
from keyturn.client.credentials import Credentials
from keyturn.client.httpx_call import FamilyCall, HopCall, RequestT, ResponseT, embarker, note
from keyturn.client.snapshot import Snapshot
from keyturn.errors import ConfigurationError

Sent = TypeVar("Sent", contravariant=True)
Got = TypeVar("Got", covariant=True)


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


def _handle(
    credentials: Credentials,
    call: HopCall[RequestT, ResponseT],
    send: Callable[[RequestT], ResponseT],
    refused: tuple[Snapshot, ResponseT] | None,
) -> ResponseT:
    """Drive authflow around a transport's `handle_request`."""
    flow: Journey[ResponseT] = authflow(credentials, call, refused)
    response: ResponseT | None = None if refused is None else refused[1]
    try:
        step = next(flow)
        while True:
            reply: object = None
            if step is Step.SEND:
                reply = response = send(call.request)
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
        call.detach()


async def _handle_async(
    credentials: Credentials,
    call: HopCall[RequestT, ResponseT],
    send: Callable[[RequestT], Awaitable[ResponseT]],
    refused: tuple[Snapshot, ResponseT] | None,
) -> ResponseT:
    """Drive authflow around a transport's `handle_async_request`."""
    flow: Journey[ResponseT] = authflow(credentials, call, refused)
    response: ResponseT | None = None if refused is None else refused[1]
    try:
        step = next(flow)
        while True:
            reply: object = None
            if step is Step.SEND:
                reply = response = await send(call.request)
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
        call.detach()


class Auth(Generic[RequestT, ResponseT]):
    """Attach the credentials' bearer token; on a refusal, refresh once for everyone and send again.

    For `Client(auth=…)`, `AsyncClient(auth=…)` or one request; `auth=None` on
    a request leaves it alone. May be shared by any number of clients. A
    caller's own Authorization header gives way on a request to our origins.
    Time-outs hold for each attempt; waiting for a refresh is not counted.

    httpx follows redirects below its auth, and decides there what becomes of
    the header: it drops it for another origin, but not for a redirect from
    http to https on the same host. `Transport` sees every hop; use it where
    that matters, and where a redirect may carry a newer pair to adopt.

    Raises ConfigurationError for credentials that ride in cookies (see
    `Transport`). Requests raise what `Credentials.get_tokens` raises, and
    NotReplayable.
    """

    _byte_stream: type

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = _check_carrier(credentials)
        self._embark = embarker(credentials, self._byte_stream)
        self._refused = credentials.carrier.refused

    def sync_auth_flow(self, request: RequestT) -> Generator[RequestT, ResponseT, None]:
        """Take one request of a `Client` through."""
        response: ResponseT | None = None
        snapshot = self._embark(request)
        if snapshot is not None:
            response = yield request
            if not self._refused(response.status_code, response.headers):
                return
        call, flow = self._journey(request, snapshot, response)
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

    async def async_auth_flow(self, request: RequestT) -> AsyncGenerator[RequestT, ResponseT]:
        """Take one request of an `AsyncClient` through."""
        response: ResponseT | None = None
        snapshot = self._embark(request)
        if snapshot is not None:
            response = yield request
            if not self._refused(response.status_code, response.headers):
                return
        call, flow = self._journey(request, snapshot, response)
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

    def _journey(
        self, request: RequestT, snapshot: Snapshot | None, response: ResponseT | None
    ) -> tuple[FamilyCall[RequestT, ResponseT], Journey[ResponseT]]:
        """Return what authflow makes of a request, or of the refusal of one that has embarked."""
        call = FamilyCall[RequestT, ResponseT](request, self._credentials, self._byte_stream)
        refused = None if snapshot is None or response is None else (snapshot, response)
        return call, authflow(self._credentials, call, refused)


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
        self._embark = embarker(credentials, self._byte_stream, hop=True)
        self._refused = credentials.carrier.refused
        self._inner = self._default() if inner is None else inner

    def handle_request(self, request: RequestT) -> ResponseT:
        """Take one hop through."""
        theirs, send = request.headers, self._inner.handle_request
        snapshot, refused = self._embark(request), None
        if snapshot is not None:
            try:
                response = send(request)
            finally:
                request.headers = theirs
            status = response.status_code
            if not self._refused(status, response.headers):
                if 300 <= status < 400:
                    note(request, snapshot.epoch)
                return response
            refused = snapshot, response
        call = HopCall[RequestT, ResponseT](request, self._credentials, self._byte_stream, snapshot)
        return _handle(self._credentials, call, send, refused)

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
        self._embark = embarker(credentials, self._byte_stream, hop=True)
        self._refused = credentials.carrier.refused
        self._inner = self._default() if inner is None else inner

    async def handle_async_request(self, request: RequestT) -> ResponseT:
        """Take one hop through."""
        theirs, send = request.headers, self._inner.handle_async_request
        snapshot, refused = self._embark(request), None
        if snapshot is not None:
            try:
                response = await send(request)
            finally:
                request.headers = theirs
            status = response.status_code
            if not self._refused(status, response.headers):
                if 300 <= status < 400:
                    note(request, snapshot.epoch)
                return response
            refused = snapshot, response
        call = HopCall[RequestT, ResponseT](request, self._credentials, self._byte_stream, snapshot)
        return await _handle_async(self._credentials, call, send, refused)

    async def aclose(self) -> None:
        """Close the wrapped transport."""
        await self._inner.aclose()

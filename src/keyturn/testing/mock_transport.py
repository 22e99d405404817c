"""MockTransport: the token end point of the strict server, without process and socket."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from typing import TypeVar, Unpack, cast

import httpx2

from keyturn.clocks import monotonic, now
from keyturn.errors import ConfigurationError, KeyturnError
from keyturn.testing import control, dialects
from keyturn.testing.handle import Handle
from keyturn.testing.messages import Answer, Request
from keyturn.testing.records import Settings, Switches
from keyturn.testing.server import Server
from keyturn.testing.state import World
from keyturn.tokens import Tokens

T = TypeVar("T")

_NOT_HERE = {
    "renews": "an API of the strict server",
    "spread": "an API of the strict server",
    "spread_over": "an API of the strict server",
    "client_key": "private_key_jwt",
}
_numbers = itertools.count()


class MockTransport(Handle, httpx2.AsyncBaseTransport, httpx2.BaseTransport):
    """A strict token end point in memory, as a transport of httpx2: for the exchange of any grant.

    Every grant takes one: `grants.OAuth2(url, http=mock.client)`. All URLs
    are answered, and each request by what it holds: a form is one of OAuth
    2.0 (a refresh, client credentials, a revocation); in anything else, be it
    JSON, a bearer header or cookies, the refresh token is found by its value.
    The answer has the names of RFC 6749 §5.1, or sets flask-jwt-extended's
    cookies where the token came in one; for a house with names of its own
    `answer` makes it of the new tokens. What opens nothing is refused with a
    401, an OAuth 2.0 form as RFC 6749 §5.2 has it. A grant with a
    `revoke_url` that is not OAuth 2.0's says it here, too.

    Takes the settings of `Settings` by name, but those of the API. `clock`
    gives POSIX seconds. There is nothing to close.

    Raises ConfigurationError for a setting that is none.
    """

    def __init__(
        self,
        *,
        answer: Callable[[Tokens], httpx2.Response] | None = None,
        revoke_url: str | None = None,
        clock: Callable[[], float] = now,
        **settings: Unpack[Switches],
    ) -> None:
        super().__init__(settings, clock)
        self._server = Server(Settings().changed(settings), self._respond, clock)
        self._written = answer
        self._revokes_at = None if revoke_url is None else httpx2.URL(revoke_url).path

    def __repr__(self) -> str:
        return "<MockTransport>"

    def client(self) -> httpx2.AsyncClient:
        """Return a client whose every request comes here: what a grant takes as `http`."""
        return httpx2.AsyncClient(transport=self)

    # As a transport

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer a request of an asyncio client. Raises httpx2.RemoteProtocolError for a drop."""
        await request.aread()
        trace = request.extensions.get("trace")
        if trace is not None:  # tells that from here on the request may have arrived, as a socket's does
            await trace("http11.send_request_headers.started", {"request": request})
        # Who gives up waiting does not stop a server.
        answer = await asyncio.shield(
            asyncio.wrap_future(_on_the_loop(self._server.respond(_taken(request))))
        )
        return _response(request, answer)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer a request of a blocking client. Raises httpx2.RemoteProtocolError for a drop."""
        request.read()
        return _response(request, _on_the_loop(self._server.respond(_taken(request))).result())

    # As a server

    async def _respond(self, world: World, request: Request) -> Answer | None:
        return await dialects.respond(world, request, self._write, revokes=request.path == self._revokes_at)

    def _write(self, tokens: Tokens) -> Answer | None:
        """Return the answer that the user's callable makes of new tokens, None without one."""
        if self._written is None:
            return None
        response = self._written(tokens)
        return Answer(response.status_code, response.content, tuple(response.headers.multi_items()))

    def _ask(self, path: str, body: bytes, answers_within: float) -> tuple[int, bytes, Iterable[str]]:
        headers = {control.HEADER: self._server.secret, "content-type": "application/json"}
        request = Request(_Arrived(), "POST", path, "", headers, monotonic(), bytearray(body), complete=True)
        answer = cast(Answer, _on_the_loop(self._server.respond(request)).result(answers_within))
        return answer.status, answer.body, [value for name, value in answer.headers if name == "Set-Cookie"]

    def _check(self, settings: Switches) -> None:
        super()._check(settings)
        for name in settings:
            if name in _NOT_HERE:
                raise ConfigurationError(f"{name} is for {_NOT_HERE[name]}, which takes a StrictServer")
        if settings.get("client_auth") == "private_key_jwt":  # whose audience is a URL that is known
            raise ConfigurationError("private_key_jwt is checked by a StrictServer only")


class _Arrived:
    """The connection of one request, of which all has arrived."""

    def __init__(self) -> None:
        self.serial = next(_numbers)

    async def read_body(self, request: Request) -> None:
        """Nothing is left to read."""


def _taken(request: httpx2.Request) -> Request:
    url = request.url
    return Request(
        _Arrived(),
        request.method,
        url.path,
        url.query.decode("ascii"),
        {name.lower(): value for name, value in request.headers.items()},
        monotonic(),
        bytearray(request.content),
        complete=True,
    )


def _response(request: httpx2.Request, answer: Answer | None) -> httpx2.Response:
    if answer is None:
        raise httpx2.RemoteProtocolError("the connection was closed without an answer", request=request)
    return httpx2.Response(answer.status, headers=answer.headers, content=answer.body, request=request)


# The loop that all of them answer on: not keyturn's own, nor the caller's, so that a test may ask from any.


class _Loop(asyncio.SelectorEventLoop):
    def __del__(self) -> None:
        """Say nothing: the loop lives as long as the process."""

    def time(self) -> float:
        """Return seconds of a clock that no test freezes."""
        return monotonic()


_guard = threading.Lock()
_loop: _Loop | None = None
_thread: threading.Thread | None = None


def _on_the_loop(answering: Coroutine[object, object, T]) -> Future[T]:
    global _loop, _thread
    if threading.current_thread() is _thread:
        answering.close()
        raise KeyturnError("the callable that writes the mock's answers cannot ask the mock")
    with _guard:
        if _loop is None or _thread is None or not _thread.is_alive():  # or this is a forked child
            _loop = _Loop()
            _thread = threading.Thread(target=_loop.run_forever, name="keyturn-testing", daemon=True)
            _thread.start()
    return asyncio.run_coroutine_threadsafe(answering, _loop)

"""The HTTP grants: how a refresh is sent, each over a connection of its own.

A fresh connection costs one handshake a refresh and spares the worst case: a
kept-alive connection that the server has just closed makes a request fail in
a way that does not tell whether it was processed.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import importlib
import os
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeVar, runtime_checkable

import httpx2

from keyturn.client.answer import Answer, set_cookies
from keyturn.client.carriers import Bearer, Carrier
from keyturn.client.grants import answers
from keyturn.errors import ConfigurationError, NotSignedIn
from keyturn.tokens import Tokens

HTTPFactory = Callable[[], httpx2.AsyncClient]
Factory = TypeVar("Factory")


@runtime_checkable
class _Connection(Protocol):
    async def aclose(self) -> None: ...


@dataclass(slots=True)
class Wire:
    """What is known of one exchange while it runs.

    `sent` turns true when its request may have left this machine,
    `connecting` when it got as far as opening a connection; `begun` is false
    while the request is still being built. `clock` gives
    POSIX seconds; what an answer says of its life counts from before sending.
    """

    clock: Callable[[], float] = time.time
    begun: bool = True
    connecting: bool = False
    sent: bool = False
    _connection: object = None

    async def trace(self, name: str, info: Mapping[str, object]) -> None:
        """Take note of httpcore's trace event `name`."""
        if name.endswith("connect_tcp.started"):
            self.connecting = True
        elif name.endswith("connect_tcp.complete"):
            self._connection = info.get("return_value")
        elif name.endswith("start_tls.failed") and isinstance(self._connection, _Connection):
            await self._connection.aclose()  # httpcore leaves it open where the handshake is cancelled
        elif name.endswith("send_request_headers.started"):
            request = info.get("request")
            if getattr(request, "method", b"") != b"CONNECT":  # a proxy's handshake carries no token
                self.sent = True


class Grant(Protocol):
    """How a new pair is bought.

    `rotates` says whether an exchange spends the refresh token;
    `replay_window` for how many seconds after a rotation the server answers
    the same refresh token again (0: never); `timeout` bounds one exchange,
    in seconds; `carrier` is how these tokens ride on a request unless the
    credentials say otherwise; `needs_refresh_token` whether there is no
    exchange without one. One exchange runs at a time.
    """

    rotates: bool
    replay_window: float
    timeout: float
    carrier: Carrier
    needs_refresh_token: bool

    async def exchange(self, tokens: Tokens, wire: Wire) -> Tokens:
        """Return the pair that `tokens` buys, or raise one of the errors of `keyturn.errors`."""
        ...


class HTTPGrant(abc.ABC):
    """The grants that post one request to one end point."""

    carrier: Carrier = Bearer()
    needs_refresh_token = True

    def __init__(
        self,
        url: str,
        *,
        http: HTTPFactory | None,
        rotates: bool,
        replay_window: timedelta,
        timeout: timedelta,
    ) -> None:
        try:
            address = httpx2.URL(url)
        except (httpx2.InvalidURL, TypeError):  # whose text may quote a password
            raise ConfigurationError("the refresh end point must be an http or https URL") from None
        if address.scheme not in ("http", "https") or not address.host:
            raise ConfigurationError(
                "the refresh end point must be a full URL, as in https://id.example/token"
            )
        self.url = address
        self.rotates = rotates
        self.replay_window, self.timeout = window_and_timeout(replay_window, timeout)
        self._http = default_http(self.timeout) if http is None else check_factory("http", http)
        import_transport()

    def __repr__(self) -> str:
        url = self.url.copy_with(query=None, fragment=None, username=None, password=None)
        return f"<{type(self).__name__} {url}>"

    async def exchange(self, tokens: Tokens, wire: Wire) -> Tokens:
        """Send the refresh and read its answer; see `Grant.exchange`."""
        wire.begun = False
        form = self._request(tokens)
        async with self._http() as http:
            request = http.build_request("POST", self.url, **form)  # type: ignore[arg-type]  # Form's keys are its arguments
            request.extensions = {**request.extensions, "trace": wire.trace}
            sent_at, wire.begun = wire.clock(), True
            response = await http.send(request, auth=None, follow_redirects=False)
            wire.sent = True  # which a transport of the user's own may not have told
        headers = response.headers
        answer = Answer(response.status_code, headers, sent_at, set_cookies(headers), response.content)
        if answer.status not in answers.OVERLOADED:
            self._raise_for_end(answer)
        answers.raise_for_refusal(answer)
        return self._pair(answer, tokens)

    @abc.abstractmethod
    def _request(self, tokens: Tokens) -> Mapping[str, object]:
        """Return what to post, as arguments of `build_request`. Raise NotSignedIn without a refresh token."""

    @abc.abstractmethod
    def _raise_for_end(self, answer: Answer) -> None:
        """Raise SessionEnded where the answer is what this grant declares final."""

    @abc.abstractmethod
    def _pair(self, answer: Answer, tokens: Tokens) -> Tokens:
        """Return the pair of a success; raise OutcomeUnknown where there is none."""


def refresh_token(tokens: Tokens) -> str:
    """Return the refresh token. Raises NotSignedIn where there is none."""
    if tokens.refresh is None:
        raise NotSignedIn("there is no refresh token: sign in again")
    return tokens.refresh


def window_and_timeout(window: timedelta, timeout: timedelta) -> tuple[float, float]:
    """Return both in seconds, the time-out below the window, so that a retry still falls into it."""
    for name, value in (("replay_window", window), ("timeout", timeout)):
        if not isinstance(value, timedelta):
            raise ConfigurationError(f"{name} must be a datetime.timedelta")
    seconds, bound = window.total_seconds(), timeout.total_seconds()
    if seconds < 0 or bound <= 0:
        raise ConfigurationError("replay_window must not be negative, and timeout must be above 0")
    return seconds, min(bound, seconds / 2) if seconds else bound


def check_factory(name: str, factory: Factory) -> Factory:
    """Return `factory` as given. Raises ConfigurationError where it is a client, or anything else."""
    if not callable(factory):
        raise ConfigurationError(f"{name} takes a factory, as in {name}=lambda: httpx2.…Client(…)")
    return factory


def import_transport() -> None:
    """Import now what httpx2 leaves to its first request.

    That would be on keyturn's thread, where a fork in the middle of it leaves
    the child an import lock that nobody will ever release.
    """
    importlib.import_module("httpcore2")
    with contextlib.suppress(ImportError):  # what anyio itself imports for a first socket
        importlib.import_module("anyio._backends._asyncio")


def default_http(timeout: float) -> HTTPFactory:
    """Return a factory of clients that share one TLS context, since building one takes long."""
    return lambda: httpx2.AsyncClient(timeout=timeout, verify=tls())


@functools.cache
def tls() -> ssl.SSLContext:
    """Return the TLS context of every exchange.

    A fork waits until it is made: in a child that inherits OpenSSL's locks
    taken, nobody could ever make one.
    """
    with _making_tls:
        return httpx2.create_ssl_context()


_making_tls = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_making_tls.acquire, after_in_parent=_making_tls.release, after_in_child=_making_tls.release
    )

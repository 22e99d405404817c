"""What requests and niquests have in common: the passage of a prepared request, and the drivers of its legs.

An auth of theirs writes into the prepared request, and a hook of the request
is told of each response, a redirect's included, before the caller's own hooks
are. A replay is sent by the connection that brought the refusal, as their
digest authentication does it, so that the caller's hooks run once, on what
came in the end.

A redirected request is a copy of the one before. What becomes of our headers
is decided where the library writes the copy's cookies: there its URL is known.
"""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Callable
from datetime import timedelta
from http.cookiejar import CookieJar
from typing import Any, Self, cast

from keyturn.client.authflow import Journey, Step
from keyturn.client.carriers import Cookies
from keyturn.client.credentials import Credentials
from keyturn.client.legs import Embarked, embark, land
from keyturn.client.requests_call import PreparedCall, is_in_memory, prefixes
from keyturn.client.snapshot import Snapshot
from keyturn.errors import ConfigurationError


class Office:
    """What every request under one `Auth` shares: the credentials, and what they are asked for each time."""

    def __init__(self, name: str, credentials: Credentials, hop_cookies: type[HopCookies]) -> None:
        if not isinstance(credentials, Credentials):
            raise ConfigurationError(f"{name} takes keyturn.Credentials, not {type(credentials).__name__}")
        self.credentials, self.hop_cookies = credentials, hop_cookies
        self.carrier = carrier = credentials.carrier
        self.attach, self._refused, self.fresh = carrier.attach, carrier.refused, credentials.fresh
        self._renews, self._adopts = carrier.renews, carrier.adopts
        self._by_cookie = isinstance(carrier, Cookies)
        # What the library itself would not take out of a redirected request: cookies, and where it goes on
        # from http to https on the same host.
        self.exposed = "cookie" in carrier.headers or any(
            (scheme, port) == ("http", 80) for scheme, _, port in credentials.origins
        )
        self._ours = prefixes(credentials.origins)

    def begin(self, request: Any) -> Snapshot | None:
        """Attach fresh tokens and return them, where a request needs no more thought until it is answered.

        That is nearly every request, so it is kept short; None sends it on
        its first leg.
        """
        if (
            request.url.startswith(self._ours)
            and not self._renews
            and ((body := request.body) is None or is_in_memory(body))
            and (snapshot := self.fresh()) is not None
        ):
            self.attach(request.headers, snapshot)
            return snapshot
        return None

    def ends(self, status: int, headers: Any) -> bool:
        """Tell whether a response is what the caller gets, and brings nothing."""
        return not (
            status >= 300
            or (self._adopts and (not self._by_cookie or "set-cookie" in headers))
            or self._refused(status, headers)
        )


class Passage:
    """One prepared request, from its first leg to its final answer: what its hooks lead to.

    `snapshot` is what it carried last, None where it was bound for another
    origin so far.
    """

    __slots__ = ("_embarked", "_office", "snapshot")

    def __init__(self, office: Office, snapshot: Snapshot | None = None) -> None:
        self._office, self.snapshot = office, snapshot
        self._embarked: Embarked | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """Travel in a pickled response as hooks that do nothing, without the credentials."""
        return _Past, ()

    def first_leg(self, request: Any) -> Journey[None]:
        """Attach the tokens to leave with; withhold what is ours from a request to another origin."""
        credentials = self._office.credentials
        call = PreparedCall(request, self._office.carrier, sent=False)
        if call.serves(credentials):
            self._embarked = yield from embark(credentials, call)
            self.snapshot = self._embarked.snapshot
        else:
            call.withhold()
            credentials.strayed(call.destination)

    def second_leg(self, response: Any) -> Journey[Any]:
        """Take on a response that may be more than what the caller gets."""
        credentials = self._office.credentials
        call = PreparedCall(response.request, self._office.carrier, sent=True)
        # Who came here from another origin carries nothing, and is sent again with what is current.
        snapshot = self.snapshot or credentials.tokens
        if snapshot is not None and call.serves(credentials):
            embarked, self._embarked = self._embarked or Embarked(snapshot), None
            response = yield from land(credentials, call, embarked, response)
            self.snapshot = call.snapshot or snapshot
        if 300 <= response.status_code < 400:
            self.watch_cookies(response.request)
        return response

    def watch_cookies(self, request: Any) -> None:
        """Have `hop` called with each request that follows this one by a redirect."""
        if not isinstance(request._cookies, HopCookies):
            request._cookies = self._office.hop_cookies(self.hop).take(request._cookies)

    def hop(self, request: Any) -> None:
        """Give a request that a redirect made its tokens where it is bound for us, else take ours from it.

        Raises what has become of the sign-in that the hop before was sent under.
        """
        office, headers, carrier = self._office, request.headers, self._office.carrier
        call = PreparedCall(request, carrier, sent=False)
        if self.snapshot is not None:
            for name in carrier.headers:
                if name != "cookie":  # which holds others' too
                    headers.pop(name, None)
        carrier.withhold(headers)
        # Where every answer renews, a hop leaves bare, is refused, and sent again as one that is noted.
        if not call.serves(office.credentials):
            office.credentials.strayed(call.destination)
            return
        if carrier.renews:
            return
        if self.snapshot is None:
            self.snapshot = office.fresh()
        else:
            self.snapshot = office.credentials.successor(self.snapshot)
        if self.snapshot is not None:
            carrier.attach(headers, self.snapshot)

    def arrived(self, response: Any, **how: Any) -> Any:
        """Take on a response: the hook."""
        if self._office.ends(response.status_code, response.headers):
            return None
        return drive(self.second_leg(response), response, how)


class _Past:
    """The hooks of a request that was answered long ago, in another process maybe."""

    def hop(self, request: object) -> None:
        """Do nothing."""

    def arrived(self, response: object, **how: object) -> None:
        """Do nothing."""


class HopCookies(CookieJar):
    """The cookies of a request, and of those that follow it by a redirect; `hop` is called with each such.

    A base for a class of jars of requests' or niquests' own.
    """

    def __init__(self, hop: Callable[[Any], None]) -> None:
        super().__init__()
        self._hop = hop

    def take(self, jar: CookieJar | None) -> Self:
        """Take over the policy and the cookies of a jar."""
        if jar is not None:
            self.set_policy(cast(Any, jar)._policy)
            for cookie in jar:
                self.set_cookie(cookie)
        return self

    def copy(self) -> Self:
        """Return a jar with the same cookies, which calls `hop` too."""
        return type(self)(self._hop).take(self)

    def add_cookie_header(self, request: Any) -> None:
        """Write the cookies that a request gets, and have a look at it."""
        super().add_cookie_header(request)
        prepared, written = request._r, request.get_new_headers()
        if "Cookie" in written:
            prepared.headers["Cookie"] = written.pop("Cookie")
        self._hop(prepared)


def run(flow: Journey[None]) -> None:
    """Drive a first leg, which only ever waits."""
    try:
        step = next(flow)
        while True:
            step = flow.send(cast(Any, step).wait())
    except StopIteration:
        return
    finally:
        flow.close()


async def run_async(flow: Journey[None]) -> None:
    """Drive a first leg, awaiting."""
    try:
        step = next(flow)
        while True:
            step = flow.send(await cast(Any, step).wait_async())
    except StopIteration:
        return
    finally:
        flow.close()


def drive(flow: Journey[Any], response: Any, how: dict[str, Any]) -> Any:
    """Drive a second leg; replays are sent as the request was, which `how` says."""
    request, last = response.request, response
    try:
        step = next(flow)
        while True:
            reply: object = None
            if step is Step.SEND:
                began = time.perf_counter()
                sent = last.connection.send(request, **_alone(how))
                reply = last = _follows(sent, last, began)
            elif step is Step.READ:
                _ = last.content
            elif step is Step.RELEASE:
                _as_it_was(last)
                with contextlib.suppress(OSError, RuntimeError):  # cut off, or read already
                    _ = last.content
                last.close()
            else:
                reply = cast(Any, step).wait()
            step = flow.send(reply)
    except StopIteration as end:
        return _poured(end.value, response, how)
    except BaseException:
        last.close()
        raise
    finally:
        flow.close()


async def drive_async(flow: Journey[Any], response: Any, how: dict[str, Any]) -> Any:
    """Drive a second leg, awaiting."""
    request, last = response.request, response
    try:
        step = next(flow)
        while True:
            reply: object = None
            if step is Step.SEND:
                began = time.perf_counter()
                sent = await last.connection.send(request, **_alone(how))
                reply = last = _follows(sent, last, began)
            elif step is Step.READ:
                await _awaited(last.content)
            elif step is Step.RELEASE:
                _as_it_was(last)
                with contextlib.suppress(OSError, RuntimeError):
                    await _awaited(last.content)
                await _awaited(last.close())
            else:
                reply = await cast(Any, step).wait_async()
            step = flow.send(reply)
    except StopIteration as end:
        return _poured(end.value, response, how)
    except BaseException:
        await _awaited(last.close())
        raise
    finally:
        flow.close()


async def _awaited(value: Any) -> None:
    """Await what is not there yet: niquests reads some of its responses ahead."""
    if inspect.isawaitable(value):
        await value


def _alone(how: dict[str, Any]) -> dict[str, Any]:
    """Return how to send a replay: niquests must bring its answer now, not when it is asked for."""
    return {**how, "multiplexed": False} if "multiplexed" in how else how


def _as_it_was(refused: Any) -> None:
    """Let a refused response keep its request as it was sent; the one to be sent again is changed."""
    refused.request = refused.request.copy()


def _follows(response: Any, refused: Any, began: float) -> Any:
    """Finish the response to a replay as the session would; the library persists its history's cookies."""
    response.elapsed = timedelta(seconds=time.perf_counter() - began)
    response.history = [*refused.history, refused]
    return response


def _poured(final: Any, response: Any, how: dict[str, Any]) -> Any:
    """Return the final response, in the object that the caller holds already where niquests multiplexes."""
    if final is response or not how.get("multiplexed"):
        return final
    final.__dict__, response.__dict__ = response.__dict__, final.__dict__
    response.history = [final if one is response else one for one in response.history]
    return response

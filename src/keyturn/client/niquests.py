"""keyturn for niquests: `Auth` for a Session and `AsyncAuth` for an AsyncSession, for any carrier."""

from __future__ import annotations

import inspect
from typing import Any

from keyturn.client import requests_family as family
from keyturn.client.credentials import Credentials
from keyturn.errors import ConfigurationError, MissingExtra

try:
    import niquests
    from niquests.adapters import AsyncBaseAdapter
    from niquests.auth import AuthBase
    from niquests.cookies import RequestsCookieJar
except ImportError as error:
    raise MissingExtra("keyturn.client.niquests needs niquests: pip install 'keyturn[niquests]'") from error


class Auth(AuthBase):
    """Attach the credentials' tokens; on a refusal, refresh once for everyone and send again.

    For `Session(auth=Auth(credentials))` or `auth=` of one request, with any
    carrier; `AsyncAuth` is for an `AsyncSession`. May be shared by any number
    of sessions and threads. A request opts out with `auth=lambda request:
    request`, because `auth=None` means the session's. An `Authorization`
    header and cookies of our names that the caller set give way on a request
    to our origins.

    The session's hooks and the request's run once, on what came in the end;
    responses that were refused are in its `history`, before it. With
    `multiplexed=True` a refusal is dealt with when its response is gathered;
    a redirect that answers a replay is then handed over, not followed.

    Every hop of a redirect is judged by itself. A hop to another origin
    leaves without anything of ours, a change from http to https on the same
    host included, unless `origins` names both; one that comes back to our
    origins gets its tokens again.

    A body of bytes, text, JSON, a form or a multipart form is sent again, and
    so is a file that can seek, from where it stood. A refused generator raises
    NotReplayable. Time-outs hold for each attempt; waiting for a refresh is
    not counted. Requests also raise what `Credentials.get_tokens` raises.
    Raises ConfigurationError for anything but Credentials, and from a request
    of an `AsyncSession`. A session with an `Auth` cannot be pickled, because
    its credentials cannot.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._office = family.Office("Auth", credentials, _HopCookies)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._office.credentials,)

    def __call__(self, r: niquests.PreparedRequest) -> niquests.PreparedRequest:
        """Have the tokens attached when the request leaves."""
        passage = _Passage(self._office)
        r.register_hook("pre_request", passage.departing)
        r.register_hook("response", passage.arrived)
        return r


class AsyncAuth(AuthBase):
    """Do as `Auth` does, for `AsyncSession(auth=AsyncAuth(credentials))`.

    May be shared by any number of sessions and event loops. A body that is
    read by awaiting, a file's too, cannot be sent again. A request of a
    `Session` raises ConfigurationError.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._office = family.Office("AsyncAuth", credentials, _HopCookies)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._office.credentials,)

    def __call__(self, r: niquests.PreparedRequest) -> niquests.PreparedRequest:
        """Have the tokens attached when the request leaves."""
        passage = _AsyncPassage(self._office)
        r.register_hook("pre_request", [passage.departing, _must_be_awaited])
        r.register_hook("response", passage.arrived)
        return r


class _Begun(family.Passage):
    """A passage that begins when the session sends, and is told of every hop that the session sends."""

    __slots__ = ("_begun",)

    def __init__(self, office: family.Office) -> None:
        super().__init__(office)
        self._begun = False

    def _needs_thought(self, request: niquests.PreparedRequest) -> bool:
        """Attach tokens that are at hand, to a hop too; tell whether the first leg must be taken."""
        office = self._office
        if self._begun:
            self.hop(request)
            return False
        self._begun = True
        if office.exposed:  # who multiplexes tells of no redirect
            self.watch_cookies(request)
        self.snapshot = office.begin(request)
        return self.snapshot is None


class _Passage(_Begun):
    """A passage in a Session."""

    __slots__ = ()

    def departing(self, request: niquests.PreparedRequest) -> None:
        """Attach the tokens to a request that is about to be sent."""
        if self._needs_thought(request):
            family.run(self.first_leg(request))

    def arrived(self, response: Any, **how: Any) -> Any:
        """Take on a response: the hook."""
        state = response.__dict__  # niquests looks for laziness at each access to an attribute
        if isinstance(state.get("connection"), AsyncBaseAdapter):
            raise ConfigurationError("Auth is for a niquests.Session: an AsyncSession takes AsyncAuth")
        if self.is_plain(state["status_code"], state["headers"]):
            return None
        return family.drive(self.second_leg(response), response, how)


class _AsyncPassage(_Begun):
    """A passage in an AsyncSession."""

    __slots__ = ()

    async def departing(self, request: niquests.PreparedRequest) -> None:
        """Attach the tokens to a request that is about to be sent."""
        if self._needs_thought(request):
            await family.run_async(self.first_leg(request))

    async def arrived(self, response: Any, **how: Any) -> Any:
        """Take on a response: the hook. Those in its history are read, and need not be awaited any more."""
        state = response.__dict__
        if self.is_plain(state["status_code"], state["headers"]):
            return None
        final = await family.drive_async(self.second_leg(response), response, how)
        for refused in final.history:
            refused.__class__ = niquests.Response
        return final


class _HopCookies(family.HopCookies, RequestsCookieJar):
    pass


def _must_be_awaited(request: object) -> None:
    """Refuse a Session: it took the hook before this one for a plain function, and did not await it."""
    if inspect.iscoroutine(request):
        request.close()
        raise ConfigurationError("AsyncAuth is for a niquests.AsyncSession: a Session takes Auth")

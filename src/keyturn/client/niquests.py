"""keyturn for niquests: `Auth` for a Session and `AsyncAuth` for an AsyncSession, for any carrier."""

from __future__ import annotations

from types import CoroutineType
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
    a redirect that answers a replay is then handed over, not followed. Do not
    multiplex where every answer carries a new pair: what has not been
    gathered cannot be adopted.

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
        """Attach the tokens to a request that has been prepared."""
        office = self._office
        snapshot = office.begin(r)
        passage = _Passage(office, snapshot)
        if snapshot is None:
            family.run(passage.first_leg(r))
        if office.exposed:
            passage.watch_cookies(r)
        r.hooks["response"].append(passage.arrived)  # first: the caller's are added after this
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
        """Attach tokens that are at hand to a request that has been prepared; others when it leaves."""
        office = self._office
        snapshot = office.begin(r)
        passage = _AsyncPassage(office, snapshot)
        if snapshot is None:
            r.register_hook("pre_request", [_FirstLeg(passage).take, _must_be_awaited])
        if office.exposed:
            passage.watch_cookies(r)
        hooks: list[Any] = r.hooks["response"]
        hooks += passage.arrived, _must_be_awaited
        return r


class _Passage(family.Passage):
    """A passage in a Session."""

    __slots__ = ()

    def arrived(self, response: Any, **how: Any) -> Any:
        """Take on a response: the hook."""
        state = _state(response)
        if isinstance(state.get("connection"), AsyncBaseAdapter):
            raise ConfigurationError("Auth is for a niquests.Session: an AsyncSession takes AsyncAuth")
        if self._office.ends(state["status_code"], state["headers"]):
            return None
        return family.drive(self.second_leg(response), response, how)


class _AsyncPassage(family.Passage):
    """A passage in an AsyncSession."""

    __slots__ = ()

    async def arrived(self, response: Any, **how: Any) -> Any:
        """Take on a response: the hook. Those in its history are read, and need not be awaited any more."""
        state = _state(response)
        hooks = state["request"].hooks["response"]
        if _must_be_awaited in hooks[:2]:  # this was awaited: the hook after it has nothing left to say
            hooks.remove(_must_be_awaited)
        if self._office.ends(state["status_code"], state["headers"]):
            return None
        final = await family.drive_async(self.second_leg(response), response, how)
        for refused in final.history:
            refused.__class__ = niquests.Response
        return final


class _FirstLeg:
    """The first leg of a passage in an AsyncSession, to be taken once: a hop has the hook, too."""

    __slots__ = ("_passage",)

    def __init__(self, passage: family.Passage) -> None:
        self._passage: family.Passage | None = passage

    async def take(self, request: niquests.PreparedRequest) -> None:
        """Attach the tokens when they are there: the hook."""
        passage, self._passage = self._passage, None
        if passage is not None:
            await family.run_async(passage.first_leg(request))


class _HopCookies(family.HopCookies, RequestsCookieJar):
    pass


def _state(response: object) -> dict[str, Any]:
    """Return the attributes of a response as they are: niquests' own access looks for laziness each time."""
    state: dict[str, Any] = object.__getattribute__(response, "__dict__")
    return state


def _must_be_awaited(request: object) -> None:
    """Refuse a Session: it took the hook before this one for a plain function, and did not await it."""
    if isinstance(request, CoroutineType):
        request.close()
        raise ConfigurationError("AsyncAuth is for a niquests.AsyncSession: a Session takes Auth")

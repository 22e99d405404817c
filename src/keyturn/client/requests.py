"""keyturn for requests: `Auth`, for any carrier."""

from __future__ import annotations

from keyturn.client import requests_family as family
from keyturn.client.credentials import Credentials
from keyturn.errors import MissingExtra

try:
    import requests
    from requests.auth import AuthBase
    from requests.cookies import RequestsCookieJar
except ImportError as error:
    raise MissingExtra("keyturn.client.requests needs requests: pip install 'keyturn[requests]'") from error


class Auth(AuthBase):
    """Attach the credentials' tokens; on a refusal, refresh once for everyone and send again.

    For `session.auth = Auth(credentials)` or `auth=` of one request, with any
    carrier. May be shared by any number of sessions and threads. A request
    opts out with `auth=lambda request: request`, because `auth=None` means
    the session's. An `Authorization` header and cookies of our names that the
    caller set give way on a request to our origins.

    The tokens are written when the request is prepared. The session's hooks
    and the request's run once, on what came in the end; responses that were
    refused are in its `history`, before it.

    Every hop of a redirect is judged by itself. A hop to another origin
    leaves without anything of ours, a change from http to https on the same
    host included, unless `origins` names both; one that comes back to our
    origins gets its tokens again.

    A body of bytes, text, JSON, a form or a multipart form is sent again, and
    so is a file that can seek, from where it stood. A refused generator raises
    NotReplayable. Time-outs hold for each attempt; waiting for a refresh is
    not counted. Requests also raise what `Credentials.get_tokens` raises.
    Raises ConfigurationError for anything but Credentials. A session with an
    `Auth` cannot be pickled, because its credentials cannot.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._office = family.Office("Auth", credentials, _HopCookies)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._office.credentials,)

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        """Attach the tokens to a request that has been prepared."""
        snapshot = self._office.begin(r)
        passage = family.Passage(self._office, snapshot)
        if snapshot is None:
            family.run(passage.first_leg(r))
        r.hooks["response"].append(passage.arrived)  # first: the caller's are added after this
        return r


class _HopCookies(family.HopCookies, RequestsCookieJar):
    pass

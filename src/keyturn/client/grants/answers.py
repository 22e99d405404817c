"""What the answer of an end point means, and what its absence means.

    2xx                       a new pair, to be read; none in it: ambiguous
    2xx with an error code    what the code says: `server_error` is a 500,
                              `temporarily_unavailable` a 503, any other a 400
    what the grant says       ended (OAuth 2.0: `invalid_grant`, nothing else)
    429, 503                  overloaded: nothing was spent, try later
    other 5xx                 ambiguous: the token may be spent
    any other 3xx, 4xx        misconfigured; a redirect is never followed
    no connection             not sent: nothing was spent, try later
    no answer after sending   ambiguous

Ambiguous is only what nobody can tell: a server that answers 200 and an error
code has said that it refuses.

The meanings are raised as the errors of `keyturn.errors`; their texts hold
nothing of what was sent or answered but status and error codes.
"""

from __future__ import annotations

import ssl
import traceback
from collections.abc import Callable, Mapping

import httpx2

from keyturn.client import schedule
from keyturn.client.grants.grant import Wire
from keyturn.client.grants.reply import Reply
from keyturn.errors import (
    ConfigurationError,
    KeyturnError,
    NotSignedIn,
    OutcomeUnknown,
    RefreshError,
    RefreshMisconfigured,
    RefreshUnavailable,
    SessionEnded,
)

Ended = Callable[[int, Mapping[str, object]], bool]

OVERLOADED = (429, 503)

_NOT_CONNECTED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)


def ended(reply: Reply, detail: str = "") -> SessionEnded:
    """Return the error for an answer that the grant declares final."""
    detail = f"{reply.status}{detail}"
    return SessionEnded(
        f"the session has ended ({detail}): sign in again", reason="refused", **reply.evidence()
    )


def check_ended(says: Ended | None) -> Ended | None:
    """Return `says` as given. Raises ConfigurationError for what cannot be called."""
    if says is not None and not callable(says):
        raise ConfigurationError("ended must be a callable (status, body) -> bool")
    return says


def raise_for_grant(reply: Reply) -> None:
    """Raise SessionEnded for an `invalid_grant` (RFC 6749 §5.2), whatever status below 500 it comes with."""
    if reply.status < 500 and reply.error_code() == "invalid_grant":
        raise ended(reply, ", invalid_grant")


def raise_for_ended(reply: Reply, says: Ended | None) -> None:
    """Raise SessionEnded where the user's callable `(status, body) -> bool` says so."""
    body = reply.body()
    if says is not None and body is not None and reply.status < 500 and says(reply.status, body):
        raise ended(reply, ", by the answer's body")


def no_pair(reply: Reply, what: str) -> RefreshError:
    """Return what a success without `what` means: an error code says it, else the token may be spent."""
    return _error_in_success(reply) or OutcomeUnknown(
        f"the refresh was answered {reply.status} without {what}"
        + (", and not in JSON" if reply.body() is None else ""),
        status=reply.status,
    )


def raise_for_refusal(reply: Reply) -> None:
    """Raise what a status other than 2xx means, if nothing more particular is known; return for a 2xx."""
    if reply.status in OVERLOADED:
        raise _overloaded(reply)
    if reply.status >= 500:
        raise _failed(reply)
    if not 200 <= reply.status < 300:
        raise _refused(reply)


def raise_for_error_in_success(reply: Reply) -> None:
    """Raise what an error code in a 2xx means; return where there is none."""
    error = _error_in_success(reply)
    if error is not None:
        raise error


def _error_in_success(reply: Reply) -> RefreshError | None:
    code = reply.error_code()
    if code is None:
        return None
    return {"server_error": _failed, "temporarily_unavailable": _overloaded}.get(code, _refused)(reply)


def _overloaded(reply: Reply) -> RefreshUnavailable:
    wait = schedule.retry_after(reply.headers.get("retry-after"), reply.headers.get("date"), reply.sent_at)
    return RefreshUnavailable(
        f"the {reply.errand} end point is overloaded ({reply.status})", status=reply.status, retry_after=wait
    )


def _failed(reply: Reply) -> OutcomeUnknown:
    return OutcomeUnknown(f"the {reply.errand} end point failed ({reply.status})", status=reply.status)


def _refused(reply: Reply) -> RefreshMisconfigured:
    evidence = reply.evidence()
    detail = f"{reply.status}" if evidence["error"] is None else f"{reply.status}, {evidence['error']}"
    if 300 <= reply.status < 400:
        detail += ", a redirect, which is not followed"
    return RefreshMisconfigured(
        f"the {reply.errand} end point refuses the request ({detail})", status=reply.status, **evidence
    )


def failure(error: BaseException, wire: Wire) -> KeyturnError:
    """Return what an exception of a request to an end point means."""
    if isinstance(error, RefreshError | NotSignedIn) or (isinstance(error, KeyturnError) and not wire.sent):
        return error  # any other, once sent, is an answer that could not be read: Tokens that cannot be made
    errand = wire.errand
    if not wire.begun:
        return RefreshMisconfigured(
            f"the {errand} could not be prepared: {type(error).__name__} {_origin(error)}"
        )
    if isinstance(error, httpx2.HTTPStatusError):
        return _status_error(error, wire.clock())
    unreached = isinstance(error, _NOT_CONNECTED) or (isinstance(error, TimeoutError) and wire.connecting)
    if unreached and not wire.sent:
        why = _root(error)
        if isinstance(why, ssl.SSLCertVerificationError):
            return RefreshMisconfigured(f"the {errand} end point's certificate is not trusted")
        return RefreshUnavailable(f"the {errand} end point cannot be reached ({type(why).__name__})")
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.InvalidURL):
        return RefreshMisconfigured(f"the {errand} end point's address is not an http or https URL")
    if isinstance(error, httpx2.TransportError | TimeoutError):
        return OutcomeUnknown(f"the {errand} was sent and got no answer ({type(error).__name__})")
    return OutcomeUnknown(f"the {errand} failed on {type(error).__name__} {_origin(error)}")


def _status_error(error: httpx2.HTTPStatusError, now: float) -> KeyturnError:
    """Return what a callable's `response.raise_for_status()` stands for."""
    response = error.response
    try:
        content = response.content
    except httpx2.StreamError:  # the callable streamed it away
        content = b""
    reply = Reply(response.status_code, response.headers, now, (), content)
    if reply.status < 500 and reply.error_code() == "invalid_grant":
        return ended(reply, ", invalid_grant")
    try:
        raise_for_refusal(reply)
    except RefreshError as meaning:
        return meaning
    return OutcomeUnknown(f"the grant refused the answer ({reply.status})", status=reply.status)


def _root(error: BaseException) -> BaseException:
    """Return the first exception of a chain: ConnectionRefusedError rather than ConnectError."""
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    return error


def _origin(error: BaseException) -> str:
    """Return where an exception was raised; its text may hold a token, so it is left out."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"at {frames[-1].filename}:{frames[-1].lineno}" if frames else "before it began"

"""What the answer of a refresh end point means, and what its absence means.

    2xx                       a new pair, to be read; unreadable: ambiguous
    what the grant says       ended (OAuth 2.0: `invalid_grant`, nothing else)
    429, 503                  overloaded: nothing was spent, try later
    other 5xx                 ambiguous: the token may be spent
    any other 3xx, 4xx        misconfigured; a redirect is never followed
    no connection             not sent: nothing was spent, try later
    no answer after sending   ambiguous

The meanings are raised as the errors of `keyturn.errors`; their texts hold
nothing of what was sent or answered but status and error codes.
"""

from __future__ import annotations

import re
import traceback
from typing import TYPE_CHECKING

import httpx2

from keyturn.client import schedule
from keyturn.client.answer import Answer
from keyturn.errors import (
    KeyturnError,
    NotSignedIn,
    OutcomeUnknown,
    RefreshError,
    RefreshMisconfigured,
    RefreshUnavailable,
    SessionEnded,
)

if TYPE_CHECKING:
    from keyturn.client.grants.http import Wire

OVERLOADED = (429, 503)

_NOT_CONNECTED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
_ERROR_CODE = re.compile(r"[a-z_.-]{1,64}", re.IGNORECASE)  # words only: a token that is echoed has digits


def error_code(answer: Answer) -> str | None:
    """Return the error code of RFC 6749 §5.2, None where there is none that looks like a code."""
    code = (answer.json() or {}).get("error")
    return code if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else None


def ended(detail: str) -> SessionEnded:
    """Return the error for an answer that the grant declares final."""
    return SessionEnded(f"the session has ended ({detail}): sign in again", reason="refused")


def unreadable(answer: Answer, what: str) -> OutcomeUnknown:
    """Return the error for a success that holds no pair: the token is spent, and the new one is not here."""
    return OutcomeUnknown(f"the refresh was answered {answer.status} without {what}", status=answer.status)


def raise_for_refusal(answer: Answer) -> None:
    """Raise what a status other than 2xx means, if nothing more particular is known; return for a 2xx."""
    status = answer.status
    if 200 <= status < 300:
        return
    if status in OVERLOADED:
        wait = schedule.retry_after(
            answer.headers.get("retry-after"), answer.headers.get("date"), answer.sent_at
        )
        raise RefreshUnavailable(
            f"the refresh end point is overloaded ({status})", status=status, retry_after=wait
        )
    if status >= 500:
        raise OutcomeUnknown(
            f"the refresh end point failed ({status}) and may have spent the token", status=status
        )
    code = error_code(answer)
    detail = f"{status}" if code is None else f"{status}, {code}"
    if status < 400:
        detail += ", a redirect, which is not followed"
    raise RefreshMisconfigured(
        f"the refresh end point refuses the request ({detail})", status=status, error=code
    )


def failure(error: BaseException, wire: Wire) -> KeyturnError:
    """Return what an exception of an exchange means."""
    if isinstance(error, RefreshError | NotSignedIn) or (isinstance(error, KeyturnError) and not wire.sent):
        return error  # any other, once sent, is an answer that could not be read: Tokens that cannot be made
    if not wire.begun:
        return RefreshMisconfigured(
            f"the refresh could not be prepared: {type(error).__name__} {_origin(error)}"
        )
    if isinstance(error, httpx2.HTTPStatusError):
        return _status_error(error, wire.clock())
    unreached = isinstance(error, _NOT_CONNECTED) or (isinstance(error, TimeoutError) and wire.connecting)
    if unreached and not wire.sent:
        return RefreshUnavailable(f"the refresh end point cannot be reached ({type(error).__name__})")
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.InvalidURL):
        return RefreshMisconfigured("the refresh end point's address is not an http or https URL")
    if isinstance(error, httpx2.TransportError | TimeoutError):
        return OutcomeUnknown(f"the refresh was sent and got no answer ({type(error).__name__})")
    return OutcomeUnknown(f"the refresh failed on {type(error).__name__} {_origin(error)}")


def _status_error(error: httpx2.HTTPStatusError, now: float) -> KeyturnError:
    """Return what a callable's `response.raise_for_status()` stands for."""
    response = error.response
    try:
        content = response.content
    except httpx2.StreamError:  # the callable streamed it away
        content = b""
    answer = Answer(response.status_code, response.headers, now, (), content)
    if answer.status < 500 and error_code(answer) == "invalid_grant":
        return ended(f"{answer.status}, invalid_grant")
    try:
        raise_for_refusal(answer)
    except RefreshError as meaning:
        return meaning
    return OutcomeUnknown(f"the grant refused the answer ({answer.status})", status=answer.status)


def _origin(error: BaseException) -> str:
    """Return where an exception was raised; its text may hold a token, so it is left out."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"at {frames[-1].filename}:{frames[-1].lineno}" if frames else "before it began"

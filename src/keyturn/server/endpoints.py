"""The HTTP end points, from values to values: no I/O but the issuer's store, and no framework.

An adapter turns its host's request into a `Request`, calls one of these and
turns the `Answer` back. What it does not do is decide anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from keyturn import errors
from keyturn.errors import ConfigurationError, KeyturnError, RequestMalformed, StoreUnavailable, TokenRefused
from keyturn.server.access_tokens import Claims
from keyturn.server.delivery import Bearer, Cookies, Delivery, Fields
from keyturn.server.issuer import Issuer, TokenPair
from keyturn.server.messages import Answer, Request
from keyturn.server.session import JSON

ANSWERED: Final = (TokenRefused, RequestMalformed, StoreUnavailable)
"""The errors that have an answer of their own. Any other is a fault, of the application or of ours."""

_OVER: Final = (
    errors.SessionUnknown,
    errors.SessionOver,
    errors.SessionExpired,
    errors.SessionIdle,
    errors.TokenReused,
)

DeliveryChoice: TypeAlias = Literal["cookies", "bearer"] | Delivery


class Endpoints:
    """The end points of one issuer with one delivery."""

    def __init__(self, issuer: Issuer, delivery: DeliveryChoice = "cookies") -> None:
        self.issuer = issuer
        self.delivery = _chosen(delivery)

    def refresh(self, request: Request) -> Answer:
        """Answer a request for new tokens."""
        try:
            shown = self.delivery.refresh_token(request, self.issuer.csrf)
            return self.issued(self.issuer.refresh(shown.token, client=shown.client))
        except ANSWERED as error:
            return self.refused(error, refreshing=True)

    def logout(self, request: Request) -> Answer:
        """Answer a request to sign out.

        The refresh token says which session, superseded or not, or else the
        access token. A token that opens nothing is no session to end
        (RFC 7009 §2.2). Refused is a request that may be another site's
        (CSRF) or cannot be read, and one while the store is down.
        """
        try:
            self._sign_out(request)
        except (errors.TokenMalformed, errors.TokenForged):
            pass
        except ANSWERED as error:
            if not (isinstance(error, errors.TokenMissing) and self.delivery.ambient):
                return self.refused(error)
        return self.delivery.signed_out()

    def authenticate(self, request: Request, *, live: bool = False) -> Claims:
        """Return the claims of a request to a protected route, or raise one of ANSWERED."""
        return self.issuer.verify(self.delivery.access_token(request, self.issuer.csrf), live=live)

    def issued(self, pair: TokenPair, extra: Mapping[str, JSON] | None = None) -> Answer:
        """Return the answer that hands a pair out."""
        return self.delivery.issued(pair, self.issuer.csrf, extra or {})

    def _sign_out(self, request: Request) -> None:
        try:
            shown = self.delivery.refresh_token(request, self.issuer.csrf)
        except errors.TokenMissing:
            self.issuer.sign_out(self.authenticate(request).sid)
        else:
            self.issuer.sign_out_token(shown.token)

    def refused(self, error: KeyturnError, *, refreshing: bool = False) -> Answer:
        """Return the answer to one of ANSWERED."""
        if isinstance(error, StoreUnavailable):
            body = _body("temporarily_unavailable", error.code, error)
            answer = self.delivery.refused(error, error.status, body, refreshing=refreshing, over=False)
            retry_after = ("Retry-After", str(max(1, math.ceil(error.retry_after))))
            return Answer(answer.status, (*answer.headers, retry_after), answer.body)
        if isinstance(error, RequestMalformed):
            body = _body(error.code, error.code, error)
            return self.delivery.refused(error, error.status, body, refreshing=refreshing, over=False)
        if not isinstance(error, TokenRefused):
            raise error
        body = _body(_rfc_code(error, refreshing=refreshing), error.code, error)
        over = isinstance(error, _OVER)
        return self.delivery.refused(error, error.status, body, refreshing=refreshing, over=over)


def _rfc_code(error: TokenRefused, *, refreshing: bool) -> str:
    """Say it in the words of the end point: RFC 6749 §5.2 for a refresh, RFC 6750 §3.1 elsewhere."""
    if isinstance(error, errors.TokenMissing | errors.CSRFRefused):
        return "invalid_request"
    return "invalid_grant" if refreshing else "invalid_token"


def _body(error: str, code: str, cause: KeyturnError) -> Fields:
    return {"error": error, "code": code, "error_description": str(cause)}


def _chosen(delivery: DeliveryChoice) -> Delivery:
    if isinstance(delivery, Cookies | Bearer):
        return delivery
    if delivery == "cookies":
        return Cookies()
    if delivery == "bearer":
        return Bearer()
    raise ConfigurationError(
        f'delivery must be "cookies", "bearer", or a configured Cookies or Bearer, not {delivery!r}'
    )

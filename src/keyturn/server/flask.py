"""keyturn behind Flask: the end points mounted, a decorator for protected views.

    auth = Keyturn(issuer, delivery="cookies")
    auth.init_app(app)

    @app.get("/statistics")
    @auth.required
    def statistics(): ...

Everything here only translates between Flask and `keyturn.server.endpoints`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Final, ParamSpec

from keyturn.errors import ConfigurationError, KeyturnError, MissingExtra, RequestMalformed

try:
    import flask
except ImportError as _absent:
    raise MissingExtra(
        "keyturn.server.flask needs Flask: pip install 'keyturn[flask]'", name=_absent.name
    ) from None

from flask.typing import ResponseReturnValue

from keyturn.server.access_tokens import Claims
from keyturn.server.bodies import LARGEST
from keyturn.server.endpoints import ANSWERED, DeliveryChoice, Endpoints
from keyturn.server.issuer import Issuer
from keyturn.server.messages import Answer, Request
from keyturn.server.session import JSON

P = ParamSpec("P")

# Kept with the request and not in flask.g, which lives as long as an application context may:
# one that is pushed around several requests would show the claims of one to the next.
_CLAIMS: Final = "keyturn.claims"
_WHO: Final = "keyturn.endpoints"


class Keyturn:
    """Signs in, protects views, and mounts refresh and sign-out on Flask applications.

    `delivery` is "cookies", "bearer", or a configured `Cookies` or `Bearer`.
    `logout_path` may be None, to mount none. With `live` every protected
    view asks the store whether the session goes on, so that a sign-out holds
    at once and not only when the access token expires.
    """

    def __init__(
        self,
        issuer: Issuer,
        delivery: DeliveryChoice = "cookies",
        *,
        refresh_path: str = "/auth/refresh",
        logout_path: str | None = "/auth/logout",
        live: bool = False,
    ) -> None:
        if not isinstance(issuer, Issuer):
            raise ConfigurationError("Keyturn takes an Issuer; the application goes to init_app(app)")
        self.issuer = issuer
        self._endpoints = Endpoints(issuer, delivery)
        self._refresh_path = refresh_path
        self._logout_path = logout_path
        self._live = live
        for path in (refresh_path, logout_path):
            if path is not None and not path.startswith("/"):
                raise ConfigurationError("a path begins with /")

    def init_app(self, app: flask.Flask) -> None:
        """Mount the end points on `app`, and answer refusals in its views.

        Raises ConfigurationError where that was done before.
        """
        mounted: list[Keyturn] = app.extensions.setdefault("keyturn", [])
        if self in mounted:
            raise ConfigurationError("init_app was called for this application before")
        mounted.append(self)
        app.add_url_rule(
            self._refresh_path, f"keyturn:{self._refresh_path}", self._answering(self._endpoints.refresh),
            methods=["POST"],
        )  # fmt: skip
        if self._logout_path is not None:
            app.add_url_rule(
                self._logout_path, f"keyturn:{self._logout_path}", self._answering(self._endpoints.logout),
                methods=["POST"],
            )  # fmt: skip
        for error in ANSWERED:
            app.register_error_handler(error, self._refusal)

    def sign_in(
        self,
        subject: str,
        *,
        claims: Mapping[str, JSON] | None = None,
        client: str | None = None,
        body: Mapping[str, JSON] | None = None,
    ) -> flask.Response:
        """Start a session for `subject` and return the response that hands its tokens out.

        `claims` go into every access token; `body` is added to the
        response's JSON. With `client` a refresh must name it as `client_id`,
        which only bearer delivery can. Raises as `Issuer.sign_in` does.
        """
        if client is not None and self._endpoints.delivery.ambient:
            raise ConfigurationError("cookies cannot be bound to a client: a browser names none")
        flask.request.environ[_WHO] = self._endpoints
        pair = self.issuer.sign_in(subject, claims=claims, client=client)
        try:
            return _response(self._endpoints.issued(pair, body))
        except ConfigurationError:
            self.issuer.sign_out(pair.sid)  # nobody gets its tokens, so that it should not go on
            raise

    def sign_out(self) -> flask.Response:
        """End the session of this request's claims and return the response that says so."""
        self.issuer.sign_out(self.claims.sid)
        return _response(self._endpoints.delivery.signed_out())

    def required(self, view: Callable[P, ResponseReturnValue]) -> Callable[P, ResponseReturnValue]:
        """Run `view` only for a request with a good access token; `claims` are its."""

        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> ResponseReturnValue:
            if self not in flask.current_app.extensions.get("keyturn", ()):
                raise RuntimeError("@auth.required needs auth.init_app(app) first")
            flask.request.environ[_WHO] = self._endpoints
            claims = self._endpoints.authenticate(_request(body=b""), live=self._live)
            flask.request.environ[_CLAIMS] = claims
            returned: ResponseReturnValue = flask.current_app.ensure_sync(view)(*args, **kwargs)
            return returned

        return guarded

    @property
    def claims(self) -> Claims:
        """The claims of this request. Raises RuntimeError outside of a protected view."""
        claims = flask.request.environ.get(_CLAIMS) if flask.has_request_context() else None
        if not isinstance(claims, Claims):
            raise RuntimeError("auth.claims are there only in a view with @auth.required")  # noqa: TRY004
        return claims

    def _answering(self, endpoint: Callable[[Request], Answer]) -> Callable[[], flask.Response]:
        def answer() -> flask.Response:
            flask.request.environ[_WHO] = self._endpoints
            return _response(endpoint(_request(body=_body())))

        return answer

    def _refusal(self, error: KeyturnError) -> flask.Response:
        # An application may have more than one Keyturn: the request's own one answers.
        who = flask.request.environ.get(_WHO)
        endpoints = who if isinstance(who, Endpoints) else self._endpoints
        return _response(endpoints.refused(error))


def _request(*, body: bytes) -> Request:
    return Request(flask.request.method, tuple(flask.request.headers.items()), body)


def _body() -> bytes:
    """Read the body, but never more than an end point takes, however long it says or turns out to be."""
    if (flask.request.content_length or 0) > LARGEST:
        raise RequestMalformed(f"the body is larger than {LARGEST} bytes")
    if flask.request.content_length is not None:
        return flask.request.get_data()
    return flask.request.stream.read(LARGEST + 1)


def _response(answer: Answer) -> flask.Response:
    return flask.Response(answer.body, answer.status, list(answer.headers))

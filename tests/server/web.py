"""A small Flask application with sign-in and one protected view, and ways to look at its answers."""

from __future__ import annotations

from http.cookies import Morsel, SimpleCookie

import flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from keyturn.server import Issuer
from keyturn.server.endpoints import DeliveryChoice
from keyturn.server.flask import Keyturn


def application(issuer: Issuer, delivery: DeliveryChoice, **paths: object) -> flask.Flask:
    app = flask.Flask("web")
    auth = Keyturn(issuer, delivery, **paths)  # type: ignore[arg-type]
    auth.init_app(app)

    @app.post("/login")
    def login() -> flask.Response:
        return auth.sign_in("alice", claims={"role": "admin"}, body={"name": "Alice"})

    @app.route("/me", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    @auth.required
    def me() -> dict[str, object]:
        return {"subject": auth.claims.subject, "role": auth.claims["role"]}

    @app.post("/sign-out")
    @auth.required
    def sign_out() -> flask.Response:
        return auth.sign_out()

    return app


def cookies_set(response: TestResponse) -> dict[str, Morsel[str]]:
    """The cookies that a response sets, by name."""
    jar: SimpleCookie = SimpleCookie()
    for header in response.headers.getlist("Set-Cookie"):
        jar.load(header)
    return dict(jar)


def cookie(client: FlaskClient, name: str) -> str:
    found = client.get_cookie(name)
    assert found is not None, name
    return found.value


def csrf(client: FlaskClient, kind: str) -> dict[str, str]:
    """The header that a page makes of the readable cookie."""
    return {"X-CSRF-TOKEN": cookie(client, f"csrf_{kind}_token")}

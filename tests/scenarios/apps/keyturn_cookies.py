"""keyturn behind Flask: HttpOnly cookies with double-submit CSRF, every refresh token good for one use."""

from __future__ import annotations

from datetime import timedelta

import flask

from keyturn.server import Issuer, Rotation
from keyturn.server.delivery import Cookies
from keyturn.server.flask import Keyturn

from .record import Record


def create_app() -> flask.Flask:
    app = flask.Flask("keyturn_cookies")
    record = Record(app)
    issuer = Issuer(
        secret="a secret of the tests, 32 bytes or more",
        store="memory://",
        rotation=Rotation(window=timedelta(0)),
        access_lifetime=timedelta(minutes=1),
        now=record.now,
    )
    auth = Keyturn(issuer, Cookies(secure=False), refresh_path="/token/refresh")
    auth.init_app(app)

    @app.post("/login")
    def login() -> flask.Response:
        return auth.sign_in("alice")

    @app.route("/protected/<name>", methods=["GET", "POST", "PUT", "DELETE"])
    @auth.required
    def protected(name: str) -> dict[str, str]:
        return {"name": name, "subject": auth.claims.subject}

    return app

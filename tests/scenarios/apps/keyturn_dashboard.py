"""A dashboard's back end: bearer tokens, access for a minute, refresh for a month.

Refresh tokens are good for one use, and a refresh ends the access tokens
before it: the API takes those of the newest generation only.
"""

from __future__ import annotations

from datetime import timedelta

import flask

from keyturn.server import Issuer, Rotation
from keyturn.server.flask import Keyturn

from .record import Record


def create_app() -> flask.Flask:
    app = flask.Flask("keyturn_dashboard")
    record = Record(app)
    issuer = Issuer(
        secret="a secret of the tests, 32 bytes or more",
        store="memory://",
        rotation=Rotation(window=timedelta(0)),
        access_lifetime=timedelta(minutes=1),
        session_lifetime=timedelta(days=30),
        now=record.now,
    )
    auth = Keyturn(issuer, "bearer", refresh_path="/auth/refresh-token")
    auth.init_app(app)

    @app.post("/auth/login")
    def login() -> flask.Response:
        return auth.sign_in("alice", body={"name": "Alice"})

    @app.get("/<name>")
    @auth.required
    def statistics(name: str) -> tuple[dict[str, str], int]:
        session = issuer.store.get(auth.claims.sid)
        if session is None or session.counter != auth.claims.generation:
            return {"error": "superseded"}, 401
        return {"name": name}, 200

    return app

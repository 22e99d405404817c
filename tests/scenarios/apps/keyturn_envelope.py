"""A house format: `POST /token/refreshToken {"refreshToken": …}`, always 200, `success` in the body."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import flask

from keyturn.server import Issuer, Rotation
from keyturn.server.delivery import Bearer
from keyturn.server.flask import Keyturn
from keyturn.server.session import JSON

from .record import Record


def _envelope(fields: Mapping[str, JSON]) -> Mapping[str, JSON]:
    return {"success": True, "customResult": dict(fields)}


def _refusal(fields: Mapping[str, JSON]) -> Mapping[str, JSON]:
    return {"success": False, "message": fields["code"]}


def create_app() -> flask.Flask:
    app = flask.Flask("keyturn_envelope")
    record = Record(app)
    issuer = Issuer(
        secret="a secret of the tests, 32 bytes or more",
        store="memory://",
        rotation=Rotation(window=timedelta(0)),
        access_lifetime=timedelta(minutes=1),
        now=record.now,
    )
    house = Bearer(
        takes="refreshToken",
        access="accessToken",
        refresh="refreshToken",
        expires_in="expiresIn",
        token_type=None,
        envelope=_envelope,
        refusal_envelope=_refusal,
        refused_status=200,
    )
    auth = Keyturn(issuer, house, refresh_path="/token/refreshToken")
    auth.init_app(app)

    @app.post("/login")
    def login() -> flask.Response:
        return auth.sign_in("alice")

    @app.post("/everyone-out")
    def everyone_out() -> dict[str, int]:
        return {"ended": issuer.sign_out_everywhere("alice")}

    @app.route("/api/<name>", methods=["GET", "POST"])
    @auth.required
    def api(name: str) -> dict[str, str]:
        return {"name": name}

    return app

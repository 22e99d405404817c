"""flask-jwt-extended as its documentation shows it: tokens in cookies, CSRF protection, explicit refreshes.

Its refresh keeps the refresh token. With the switch `rotates` it is what
people add by hand: a new refresh token each time, the old ones on a
blocklist, and the session revoked when one of those comes back.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import flask
from flask_jwt_extended import (
    JWTManager,
    create_access_token,
    create_refresh_token,
    get_jwt,
    get_jwt_identity,
    jwt_required,
    set_access_cookies,
    set_refresh_cookies,
)

from .record import Record


def create_app() -> flask.Flask:
    app = flask.Flask("jwt_extended_cookies")
    app.config["JWT_TOKEN_LOCATION"] = ["cookies"]
    app.config["JWT_COOKIE_CSRF_PROTECT"] = True
    app.config["JWT_COOKIE_SECURE"] = False
    app.config["JWT_SECRET_KEY"] = "a secret of the tests, 32 bytes or more"
    app.config["JWT_ACCESS_TOKEN_EXPIRES"] = timedelta(minutes=1)
    record = Record(app)
    jwt = JWTManager(app)
    blocklist: set[str] = set()
    revoked: set[str] = set()

    @jwt.token_in_blocklist_loader
    def blocked(header: dict[str, Any], payload: dict[str, Any]) -> bool:
        if payload["type"] == "refresh" and payload["jti"] in blocklist:
            revoked.add(payload["family"])
        return payload.get("family") in revoked

    def signed_in(family: str, expires: timedelta | None = None) -> flask.Response:
        response = flask.jsonify({"msg": "login successful"})
        claims = {"family": family}
        access = create_access_token("alice", additional_claims=claims, expires_delta=expires)
        set_access_cookies(response, access)
        set_refresh_cookies(response, create_refresh_token("alice", additional_claims=claims))
        return response

    @app.post("/login")
    def login() -> flask.Response:
        family = flask.request.args["family"]
        if flask.request.args.get("expired") != "1":
            return signed_in(family)
        # A token that is born expired saves the test from waiting; only who sets the cookie must not mind.
        app.config["JWT_DECODE_LEEWAY"] = 10
        try:
            return signed_in(family, timedelta(seconds=-1))
        finally:
            app.config["JWT_DECODE_LEEWAY"] = 0

    @app.post("/token/refresh")
    @jwt_required(refresh=True)  # type: ignore[untyped-decorator]
    def refresh() -> flask.Response:
        if record.switches.get("rotates"):
            blocklist.add(get_jwt()["jti"])
            return signed_in(get_jwt()["family"])
        response = flask.jsonify({"refresh": True})
        set_access_cookies(response, create_access_token(get_jwt_identity()))
        return response

    @app.route("/protected/<name>", methods=["GET", "POST", "PUT", "DELETE"])
    @jwt_required()  # type: ignore[untyped-decorator]
    def protected(name: str) -> dict[str, str]:
        return {"name": name, "subject": get_jwt_identity()}

    return app

"""flask-jwt-extended as its documentation shows it without cookies: both tokens as bearer headers.

Its refresh gives an access token alone and keeps the refresh token. A sign-out
puts the token that it is shown on a blocklist.
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
)

from .record import Record


def create_app() -> flask.Flask:
    app = flask.Flask("jwt_extended_headers")
    app.config["JWT_SECRET_KEY"] = "a secret of the tests, 32 bytes or more"
    app.config["JWT_ACCESS_TOKEN_EXPIRES"] = timedelta(minutes=1)
    Record(app)
    jwt = JWTManager(app)
    blocklist: set[str] = set()

    @jwt.token_in_blocklist_loader
    def blocked(header: dict[str, Any], payload: dict[str, Any]) -> bool:
        return payload["jti"] in blocklist

    @app.post("/login")
    def login() -> dict[str, str]:
        expires = timedelta(seconds=-1) if flask.request.args.get("expired") == "1" else None
        return {
            "access_token": create_access_token("alice", expires_delta=expires),
            "refresh_token": create_refresh_token("alice"),
        }

    @app.post("/token/refresh")
    @jwt_required(refresh=True)  # type: ignore[untyped-decorator]
    def refresh() -> dict[str, str]:
        return {"access_token": create_access_token(get_jwt_identity())}

    @app.post("/auth/logout")
    @jwt_required(verify_type=False)  # type: ignore[untyped-decorator]
    def logout() -> dict[str, str]:
        blocklist.add(get_jwt()["jti"])
        return {"msg": f"{get_jwt()['type']} token revoked"}

    @app.get("/protected/<name>")
    @jwt_required()  # type: ignore[untyped-decorator]
    def protected(name: str) -> dict[str, str]:
        return {"name": name, "subject": get_jwt_identity()}

    return app

"""`python -m keyturn.demo.server`: a strict keyturn behind Flask.

It says on stdout where it listens, and lives as long as its stdin is open:
however its parent ends, it ends too. Its sessions are in memory, so that
nothing of it is left on a disk.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import threading
import time
from datetime import timedelta

import flask
from werkzeug.serving import WSGIRequestHandler, make_server

from keyturn.demo import scene
from keyturn.server import Issuer, Rotation
from keyturn.server.flask import Keyturn
from keyturn.server.session_stores import open_store


def create_app() -> flask.Flask:
    """Return the dashboard's back end, in which every refresh token works once."""
    secret, store = secrets.token_bytes(32), open_store("memory://")

    def issuer(access_lifetime: float) -> Issuer:
        return Issuer(
            secret=secret,
            store=store,
            rotation=Rotation(window=timedelta(0)),
            access_lifetime=timedelta(seconds=access_lifetime),
        )

    # Nobody wants to wait for the first access token to expire, nor to see a later one expire.
    login = Keyturn(issuer(scene.FIRST_ACCESS_TOKEN_LIVES), delivery="bearer")
    auth = Keyturn(issuer(scene.ACCESS_TOKEN_LIVES), delivery="bearer", refresh_path=scene.REFRESH)
    app = flask.Flask("keyturn.demo")
    auth.init_app(app)

    @app.before_request
    def travel() -> None:
        time.sleep(scene.DISTANCE)
        if flask.request.path == scene.REFRESH:
            time.sleep(scene.REFRESH_TAKES)

    @app.post(scene.LOGIN)
    def sign_in() -> flask.Response:
        return login.sign_in("alice")

    @app.get("/<path:name>")
    @auth.required
    def dashboard(name: str) -> flask.Response:
        time.sleep(scene.answer_takes(f"/{name}"))
        return flask.jsonify(name=name)

    return app


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept, as they are anywhere else
    disable_nagle_algorithm = True

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing: the requests are drawn by who sent them."""


def main() -> None:
    """Serve on a free loopback port until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = make_server("127.0.0.1", 0, create_app(), threaded=True, request_handler=_Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{server.server_port}"}) + "\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    os._exit(0)  # at once: nothing here is worth waiting for a request that is being answered


if __name__ == "__main__":
    main()

"""A service with sign-in, refresh, sign-out and one protected view, set up by environment variables.

STORE is the session store's file, CLOCK a file with the seconds by which
all its clocks are ahead, WINDOW and MAX_AHEAD the policy of refresh.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import flask

from keyturn.server import Issuer, Rotation
from keyturn.server.flask import Keyturn
from keyturn.server.session_stores.sqlite import SQLiteStore

CLOCK = Path(os.environ["CLOCK"])


def now() -> float:
    return time.time() + float(CLOCK.read_text())


issuer = Issuer(
    secret="a secret that only tests would write down",
    store=SQLiteStore(os.environ["STORE"], clock=now, timeout=30),
    rotation=Rotation(
        window=timedelta(seconds=float(os.environ["WINDOW"])), max_ahead=int(os.environ["MAX_AHEAD"])
    ),
    now=now,
)
auth = Keyturn(issuer, "bearer", refresh_path="/auth/refresh", live=True)
app = flask.Flask(__name__)
auth.init_app(app)


@app.post("/login")
def login() -> flask.Response:
    return auth.sign_in("alice")


@app.get("/statistics")
@auth.required
def statistics() -> dict[str, object]:
    return {"subject": auth.claims.subject, "worker": os.getpid()}

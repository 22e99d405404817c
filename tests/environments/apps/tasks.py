"""Celery tasks that call an API, with credentials made when MADE says: "at import", or "in the hook".

The broker is BROKER, whose keys begin with PREFIX; SERVER is the API and the
token end point; TOKENS is a pair as JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import celery
import httpx2
from celery.signals import worker_process_init

import keyturn
from keyturn.client import grants
from keyturn.client.httpx2 import Auth

SERVER = os.environ["SERVER"]
KEYS = {"global_keyprefix": os.environ["PREFIX"]}

app = celery.Celery("tasks", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.update(
    broker_transport_options=KEYS,
    result_backend_transport_options=KEYS,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)
clients: list[httpx2.Client] = []


def sign_in() -> None:
    """Make the credentials of this process, and the client that uses them."""
    tokens, grant = None, grants.ClientCredentials(SERVER + "/token", client_id="app", client_secret="hush")
    if "TOKENS" in os.environ:
        tokens = keyturn.Tokens(**json.loads(os.environ["TOKENS"]))
    credentials = keyturn.Credentials(
        grant if tokens is None else grants.OAuth2(SERVER + "/token", client_id="app"),
        tokens=tokens,
        origins=[SERVER],
    )
    auth = Auth(credentials)
    clients.append(httpx2.Client(base_url=SERVER, auth=auth, timeout=30, verify=False, trust_env=False))


if os.environ["MADE"] == "at import":
    sign_in()
else:
    worker_process_init.connect(lambda **_: sign_in(), weak=False)

task: Callable[[Callable[[], Any]], Any] = app.task


@task
def call() -> tuple[int, str]:
    """Call the API; return this process and what came of it."""
    try:
        return os.getpid(), str(clients[0].get("/statistics").status_code)
    except keyturn.KeyturnError as error:
        return os.getpid(), f"{type(error).__name__}: {error}"

"""A WSGI service that calls an API with credentials of its own; MADE says "at import", or "in the hook".

SERVER is the API and the token end point; TOKENS is a pair as JSON, and
without it each process asks for tokens of its own (client credentials).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable

import httpx2

import keyturn
from keyturn.client import grants
from keyturn.client.httpx2 import Auth

SERVER = os.environ["SERVER"]


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


def app(
    environ: dict[str, object], start_response: Callable[[str, list[tuple[str, str]]], object]
) -> Iterable[bytes]:
    """Call the API; say what came of it, and in which process."""
    try:
        said = str(clients[0].get("/statistics").status_code)
    except keyturn.KeyturnError as error:
        said = f"{type(error).__name__}: {error}"
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"worker": os.getpid(), "said": said}).encode()]

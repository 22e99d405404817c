"""What the programs share that the tests fork and end: run as `python -m tests.scenarios.programs.<name>`.

A program gets credentials as JSON in its first argument, says where it is in
lines on stdout, and goes on when it is told a line on stdin.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

# What is registered before keyturn is imported runs after what keyturn does at exit.
after_keyturn: list[str] = []
atexit.register(lambda: say(*after_keyturn))

import httpx2  # noqa: E402

import keyturn  # noqa: E402
from keyturn.client import events, grants  # noqa: E402

# Python 3.12 and later warn of every fork beside threads; what it warns of is what is tested here.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

# In development mode asyncio warns of callbacks that take 100 ms, as any may on a busy machine.
logging.getLogger("asyncio").addFilter(lambda record: not record.getMessage().startswith("Executing "))

# What keyturn logs is its own business; stderr is for what Python complains of.
logging.getLogger("keyturn.client").addHandler(logging.NullHandler())

given: dict[str, Any] = json.loads(sys.argv[1])


CHILD_WITHIN = 40  # seconds, after which a child that hangs says where, and is killed
LONG = timedelta(seconds=100)  # for an exchange that is held: longer than any test


def http() -> httpx2.AsyncClient:
    """Return a client without a TLS context, which takes long to make."""
    return httpx2.AsyncClient(verify=False, trust_env=False)


def credentials(
    grant: grants.Grant | grants.Function | None = None,
    url: str = given["url"],
    tokens: dict[str, Any] = given["tokens"],
    on_event: events.Callback | None = None,
    retry_for: timedelta = timedelta(seconds=30),
) -> keyturn.Credentials:
    """Return credentials for the server that the test has started."""
    oauth2 = grants.OAuth2(url + "/token", client_id="programs", http=http, timeout=LONG)
    return keyturn.Credentials(
        oauth2 if grant is None else grant,
        tokens=keyturn.Tokens(**tokens),
        origins=[url],
        on_event=on_event,
        retry_for=retry_for,
    )


def say(*lines: object) -> None:
    """Write each line to stdout at once."""
    for line in lines:
        os.write(1, f"{line}\n".encode())


def told() -> str:
    """Wait for a line on stdin, byte by byte: a fork must not inherit what was read ahead."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit("nobody is left to tell me anything")
        line += byte
    return line.decode().strip()


def outcome(call: Callable[[], Any]) -> str:
    """Say what a call came to: the generation of its tokens, its status, or the name of its error."""
    try:
        answer = call()
    except keyturn.KeyturnError as error:
        return type(error).__name__
    return str(getattr(answer, "generation", getattr(answer, "status_code", answer)))

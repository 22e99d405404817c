"""What can become of a refresh, as the tables of errors in docs/from have it, and what keyturn says of it."""

from __future__ import annotations

from collections.abc import Callable

import keyturn
from keyturn.testing import StrictServer

LIVES = 3600.0  # seconds, more than any library's leeway

Arrange = Callable[[StrictServer], None]

FAULTS: dict[str, Arrange] = {
    "the session is over": lambda server: server.revoke(),
    "the client is refused": lambda server: server.fail_refresh(401, body={"error": "invalid_client"}),
    "a page of HTML": lambda server: server.fail_refresh(403, body="<html>"),
    "overload": lambda server: server.fail_refresh(503, headers={"Retry-After": "3600"}, times=9),
    "the answer was lost": lambda server: server.drop_refresh(),
}
OURS: dict[str, type[keyturn.KeyturnError]] = {
    "the session is over": keyturn.SessionEnded,
    "the client is refused": keyturn.RefreshMisconfigured,
    "a page of HTML": keyturn.RefreshMisconfigured,
    "overload": keyturn.RefreshUnavailable,
    "the answer was lost": keyturn.OutcomeUnknown,
}


def begin_anew(server: StrictServer) -> None:
    """Forget all that was, and issue tokens that live for long."""
    server.reset()
    server.configure(ttl=LIVES)


def arrange(server: StrictServer, fault: str) -> keyturn.Tokens:
    """Begin anew with tokens that have expired, and with a token end point that fails; return the tokens."""
    begin_anew(server)
    tokens = server.sign_in(ttl=0)
    FAULTS[fault](server)
    return tokens

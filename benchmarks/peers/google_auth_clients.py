"""google-auth: an `AuthorizedSession` on `google.oauth2.credentials.Credentials`, shared by all threads.

`token_uri` names the strict server's end point. It refreshes on expiry and on
a 401. Its asynchronous credentials know no refresh token.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from benchmarks.peers.peer import CLIENT_ID, TIMEOUT, Connect, Peer
from google.auth.transport.requests import AuthorizedSession
from google.oauth2.credentials import Credentials

import keyturn


def _threads(url: str, tokens: keyturn.Tokens) -> Connect:
    expiry = datetime.fromtimestamp(tokens.expires_at or 0.0, UTC).replace(tzinfo=None)  # as it wants it
    credentials = Credentials(
        tokens.access,
        refresh_token=tokens.refresh,
        token_uri=url + "/token",
        client_id=CLIENT_ID,
        client_secret="secret",
        expiry=expiry,
    )

    @contextmanager
    def connect() -> Any:
        with AuthorizedSession(credentials) as session:
            yield lambda url, timeout=TIMEOUT: session.get(url, timeout=timeout).status_code

    return connect


PEERS = [Peer("google-auth", "requests", "threads", _threads, "google-auth")]

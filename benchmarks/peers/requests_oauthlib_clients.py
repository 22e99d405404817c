"""requests-oauthlib: an `OAuth2Session` with `auto_refresh_url` and `token_updater`, shared by all threads.

It refreshes when the token has expired by its own reckoning, and not on a
401. `OAUTHLIB_INSECURE_TRANSPORT` lets it speak to loopback without TLS.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import Any

from benchmarks.peers.peer import CLIENT_ID, TIMEOUT, Connect, Peer
from requests_oauthlib import OAuth2Session

import keyturn


def _threads(url: str, tokens: keyturn.Tokens) -> Connect:
    os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
    token = {
        "token_type": "Bearer",
        "access_token": tokens.access,
        "refresh_token": tokens.refresh,
        "expires_at": tokens.expires_at,
    }

    @contextmanager
    def connect() -> Any:
        with OAuth2Session(
            CLIENT_ID,
            token=token,
            auto_refresh_url=url + "/token",
            auto_refresh_kwargs={"client_id": CLIENT_ID},
            token_updater=lambda new: None,  # the session itself keeps it
        ) as session:
            yield lambda url, timeout=TIMEOUT: session.get(url, timeout=timeout).status_code

    return connect


PEERS = [Peer("requests-oauthlib", "requests", "threads", _threads, "requests-oauthlib")]

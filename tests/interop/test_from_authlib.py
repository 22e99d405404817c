"""docs/from/authlib.md: both of its programs run, and what it says was seen."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
import requests
from authlib.integrations.base_client import InvalidTokenError, MissingTokenError, OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.integrations.requests_client import OAuth2Session

import keyturn
from keyturn.testing import StrictServer
from tests.interop.calls import CALLS, call, call_in_tasks, call_in_threads
from tests.interop.faults import FAULTS, OURS, arrange, begin_anew
from tests.interop.pages import DOCS, blocks
from tests.kit import run_in_loop
from tests.waiting import start, until

THEIRS: dict[str, type[Exception]] = {
    "the session is over": OAuthError,
    "the client is refused": OAuthError,
    "a page of HTML": httpx2.HTTPStatusError,
    "overload": httpx2.HTTPStatusError,
    "the answer was lost": httpx2.RemoteProtocolError,
}
IN_REQUESTS: dict[type[Exception], type[Exception]] = {
    OAuthError: OAuthError,
    httpx2.HTTPStatusError: requests.HTTPError,
    httpx2.RemoteProtocolError: requests.ConnectionError,
}


@pytest.fixture
def now(server: StrictServer) -> SimpleNamespace:
    return blocks(DOCS / "from/authlib.md", issuer=server.url, api=server.url)[0]


@pytest.fixture
def then(server: StrictServer) -> SimpleNamespace:
    return blocks(DOCS / "from/authlib.md", issuer=server.url, api=server.url)[1]


def token_of(tokens: keyturn.Tokens) -> dict[str, Any]:
    return {
        "token_type": "Bearer",
        "access_token": tokens.access,
        "refresh_token": tokens.refresh,
        "expires_at": int(tokens.expires_at or 0),
    }


def nobody(new: object) -> None:
    """Save nothing."""


def synchronous(kind: Any, server: StrictServer, tokens: keyturn.Tokens) -> Any:
    return kind(
        client_id="dashboard",
        token_endpoint_auth_method="none",
        token_endpoint=server.url + "/token",
        token=token_of(tokens),
    )


def test_the_token_that_the_library_holds_goes_on_under_keyturn_and_what_it_becomes_is_saved(
    server: StrictServer, now: Any, then: Any
) -> None:
    theirs: list[Any] = []
    assert call_in_tasks(now.connect(token_of(server.sign_in(ttl=0)), theirs.append), server) == [200] * CALLS
    assert len(theirs) == server.stats.refreshes == 1  # one client, one loop: its lock holds

    ours: list[keyturn.Tokens] = []
    server.expire()
    server.hold_api(CALLS)
    assert call_in_tasks(then.connect(theirs[0], ours.append), server) == [200] * CALLS
    until(lambda: bool(ours))
    assert server.stats.refreshes == 2
    assert server.alive(ours[0])


@pytest.mark.parametrize("kind", [OAuth2Client, OAuth2Session])
def test_threads_that_find_a_token_expired_end_the_session_there(server: StrictServer, kind: Any) -> None:
    server.hold_refresh()
    with synchronous(kind, server, server.sign_in(ttl=0)) as client:
        calls = start(lambda: call_in_threads(client, server))
        server.wait_for(refreshes=CALLS)
        server.release()
        assert 200 not in calls.result(60)
    assert server.stats.sessions_live == 0


def test_two_clients_with_one_token_end_the_session_there(server: StrictServer, now: Any) -> None:
    token = token_of(server.sign_in(ttl=0))

    async def main() -> list[Any]:
        server.hold_refresh()
        async with now.connect(token, nobody) as one, now.connect(dict(token), nobody) as other:
            calls = asyncio.gather(
                *(client.get(server.url + "/statistics") for client in (one, other)), return_exceptions=True
            )
            await asyncio.to_thread(server.wait_for, refreshes=2)
            await asyncio.to_thread(server.release)
            return await calls

    run_in_loop(main)
    assert server.stats.sessions_live == 0


def test_a_401_before_its_time_is_the_answer_there_and_renewed_here(
    server: StrictServer, now: Any, then: Any
) -> None:
    token = token_of(server.sign_in())
    server.expire()
    assert call_in_tasks(now.connect(token, nobody), server) == [401] * CALLS
    assert server.stats.refreshes == 0

    assert call_in_tasks(then.connect(token, nobody), server) == [200] * CALLS
    assert server.stats.refreshes == 1


def test_a_session_that_has_ended_is_asked_for_by_each_call_there_and_once_here(
    server: StrictServer, now: Any, then: Any
) -> None:
    for connect, error, refreshes in (
        (now.connect, OAuthError, CALLS),
        (then.connect, keyturn.SessionEnded, 1),
    ):
        token = token_of(arrange(server, "the session is over"))
        assert call_in_tasks(connect(token, nobody), server) == [error] * CALLS
        assert server.stats.refreshes == refreshes


def test_a_token_that_lives_a_minute_is_renewed_for_every_call_there_and_lives_its_life_here(
    server: StrictServer, now: Any, then: Any
) -> None:
    for connect, refreshes, sessions in ((now.connect, CALLS, 0), (then.connect, 0, 1)):
        begin_anew(server)
        server.configure(ttl=60)
        statuses = call_in_tasks(connect(token_of(server.sign_in()), nobody), server)
        assert (statuses == [200] * CALLS) is bool(sessions)
        assert (server.stats.refreshes, server.stats.sessions_live) == (refreshes, sessions)


@pytest.mark.parametrize("fault", FAULTS)
def test_an_error_of_theirs_is_an_error_of_ours(
    server: StrictServer, now: Any, then: Any, fault: str
) -> None:
    for connect, expected in ((now.connect, THEIRS[fault]), (then.connect, OURS[fault])):
        token = token_of(arrange(server, fault))
        assert call_in_tasks(connect(token, nobody), server)[0] is expected
    with synchronous(OAuth2Session, server, arrange(server, fault)) as session:
        assert call(session, server) is IN_REQUESTS[THEIRS[fault]]


def test_without_a_refresh_token_or_any_token_nobody_is_signed_in(
    server: StrictServer, now: Any, then: Any
) -> None:
    token = {**token_of(server.sign_in(ttl=0)), "refresh_token": None}
    assert call_in_tasks(now.connect(token, nobody), server) == [InvalidTokenError] * CALLS
    assert call_in_tasks(now.connect(None, nobody), server) == [MissingTokenError] * CALLS
    assert call_in_tasks(then.connect(token, nobody), server) == [keyturn.NotSignedIn] * CALLS

"""docs/from/singleflight-auth.md: both of its programs run, and what it says was seen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import singleflight_auth

import keyturn
from keyturn.testing import StrictServer
from tests.interop.calls import CALLS, call_in_tasks
from tests.interop.faults import FAULTS, OURS, arrange, begin_anew
from tests.interop.leaders import call_from_two_loops, follow_a_cancelled_leader
from tests.interop.pages import DOCS, blocks
from tests.kit import run_in_loop


@pytest.fixture
def now(server: StrictServer) -> SimpleNamespace:
    return blocks(DOCS / "from/singleflight-auth.md", issuer=server.url, api=server.url)[0]


@pytest.fixture
def then(server: StrictServer) -> SimpleNamespace:
    return blocks(DOCS / "from/singleflight-auth.md", issuer=server.url, api=server.url)[1]


def store_of(tokens: keyturn.Tokens) -> dict[str, Any]:
    return {"access_token": tokens.access, "refresh_token": tokens.refresh}


def test_what_the_store_holds_goes_on_under_keyturn_and_both_refresh_once(
    server: StrictServer, now: Any, then: Any
) -> None:
    store = store_of(server.sign_in())
    for connect, refreshes in ((now.connect, 1), (then.connect, 2)):
        server.expire()
        server.hold_api(CALLS)
        assert call_in_tasks(connect(store), server) == [200] * CALLS
        assert server.stats.refreshes == refreshes


def test_a_cancelled_caller_takes_the_session_along_there_and_nobody_here(
    server: StrictServer, now: Any, then: Any
) -> None:
    for connect, outcome, sessions in (
        (now.connect, singleflight_auth.RefreshFailedError, 0),
        (then.connect, 200, 1),
    ):
        begin_anew(server)
        client = connect(store_of(server.sign_in()))
        server.expire()
        assert follow_a_cancelled_leader(client, server) == outcome
        assert server.stats.sessions_live == sessions


def test_two_loops_lose_the_session_there_and_share_one_refresh_here(
    server: StrictServer, now: Any, then: Any
) -> None:
    for connect, refreshes, sessions in ((now.connect, 2, 0), (then.connect, 1, 1)):
        begin_anew(server)
        client = connect(store_of(server.sign_in()))
        server.expire()
        call_from_two_loops([client, httpx.AsyncClient(auth=client.auth)], server, refreshes)
        assert (server.stats.refreshes, server.stats.sessions_live) == (refreshes, sessions)


def test_a_known_expiry_costs_refusals_there_and_none_here(server: StrictServer, now: Any, then: Any) -> None:
    for connect, refused in ((now.connect, CALLS), (then.connect, 0)):
        begin_anew(server)
        tokens = server.sign_in(ttl=0)
        server.hold_api(CALLS)
        client = connect({**store_of(tokens), "expires_at": tokens.expires_at})
        assert call_in_tasks(client, server) == [200] * CALLS
        assert (server.stats.refused, server.stats.refreshes) == (refused, 1)


def test_a_refusal_after_the_refresh_is_an_error_there_and_the_answer_here(
    server: StrictServer, now: Any, then: Any
) -> None:
    for connect, outcome in ((now.connect, singleflight_auth.MaxRetriesExceededError), (then.connect, 401)):
        begin_anew(server)
        server.fail_api(401, times=99)
        assert call_in_tasks(connect(store_of(server.sign_in())), server) == [outcome] * CALLS


@pytest.mark.parametrize("fault", FAULTS)
def test_an_error_of_theirs_is_an_error_of_ours(
    server: StrictServer, now: Any, then: Any, fault: str
) -> None:
    for connect, expected in (
        (now.connect, singleflight_auth.RefreshFailedError),
        (then.connect, OURS[fault]),
    ):
        store = store_of(arrange(server, fault))
        assert call_in_tasks(connect(store), server)[0] is expected


def test_a_body_that_cannot_be_sent_twice_is_never_sent_empty(
    server: StrictServer, now: Any, then: Any
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"once"

    async def send(client: httpx.AsyncClient) -> None:
        async with client:
            await client.post(server.url + "/statistics", content=body())

    for connect, expected in (
        (now.connect, singleflight_auth.NonReplayableBodyError),
        (then.connect, keyturn.NotReplayable),
    ):
        begin_anew(server)
        client = connect(store_of(server.sign_in()))
        server.expire()
        with pytest.raises(expected):
            run_in_loop(partial(send, client))
    server.wait_for(refreshes=1)  # the refusal has been reported

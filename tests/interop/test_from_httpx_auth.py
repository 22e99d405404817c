"""docs/from/httpx-auth.md: both of its programs run, and what it says was seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

import keyturn
from keyturn.client.httpx2 import Auth
from keyturn.testing import StrictServer
from tests.interop.calls import CALLS, Outcome, call, call_async, call_in_tasks
from tests.interop.faults import FAULTS, OURS, arrange, begin_anew
from tests.interop.leaders import call_from_two_loops, follow_a_cancelled_leader
from tests.interop.pages import DOCS, blocks
from tests.kit import run_in_loop
from tests.waiting import start, until

THEIRS: dict[str, type[Exception]] = {
    "the session is over": httpx2.HTTPStatusError,
    "the client is refused": httpx2.HTTPStatusError,
    "a page of HTML": httpx2.HTTPStatusError,
    "overload": httpx2.HTTPStatusError,
    "the answer was lost": httpx2.RemoteProtocolError,
}


@pytest.fixture
def now(server: StrictServer) -> SimpleNamespace:
    return blocks(DOCS / "from/httpx-auth.md", issuer=server.url, api=server.url)[0]


@pytest.fixture
def then(server: StrictServer) -> SimpleNamespace:
    return blocks(DOCS / "from/httpx-auth.md", issuer=server.url, api=server.url)[1]


def signed_in(server: StrictServer, connect: Any) -> Any:
    """Return a client whose access token is refused from now on."""
    tokens = server.sign_in()
    server.expire()
    return connect(tokens.access, tokens.refresh)


def test_what_the_class_holds_goes_on_under_keyturn_and_both_refresh_once(
    server: StrictServer, now: Any, then: Any
) -> None:
    client = signed_in(server, now.connect)
    server.hold_api(CALLS)
    assert call_in_tasks(client, server) == [200] * CALLS
    assert server.stats.refreshes == 1

    server.expire()
    server.hold_api(CALLS)
    client = then.connect(client.auth.access, client.auth.refresh)
    assert call_in_tasks(client, server) == [200] * CALLS
    assert server.stats.refreshes == 2


def test_a_cancelled_task_takes_the_session_along_there_and_nobody_here(
    server: StrictServer, now: Any, then: Any
) -> None:
    for connect, outcome, sessions in ((now.connect, httpx2.HTTPStatusError, 0), (then.connect, 200, 1)):
        begin_anew(server)
        assert follow_a_cancelled_leader(signed_in(server, connect), server) == outcome
        assert server.stats.sessions_live == sessions


def test_a_session_that_is_over_costs_ten_refreshes_there_and_one_here(
    server: StrictServer, now: Any, then: Any
) -> None:
    for connect, refreshes, error in (
        (now.connect, CALLS, httpx2.HTTPStatusError),
        (then.connect, 1, keyturn.SessionEnded),
    ):
        begin_anew(server)
        client = signed_in(server, connect)
        server.revoke()
        server.hold_api(CALLS)
        assert call_in_tasks(client, server) == [error] * CALLS
        assert server.stats.refreshes == refreshes


def test_the_lock_belongs_to_one_loop_there(server: StrictServer, now: Any) -> None:
    ours, other = (signed_in(server, now.connect) for _ in range(2))
    other.auth = ours.auth

    async def two(client: httpx2.AsyncClient) -> list[Outcome]:
        async with client:
            return await asyncio.gather(*(call_async(client, server) for _ in range(2)))

    async def one(client: httpx2.AsyncClient) -> Outcome:
        async with client:
            return await call_async(client, server)

    server.hold_refresh()
    first = start(lambda: run_in_loop(lambda: two(ours)))
    until(lambda: ours.auth.lock._loop is not None)  # somebody waits for it there
    assert run_in_loop(lambda: one(other)) is RuntimeError
    server.release()
    assert first.result(60) == [200, 200]


def test_two_loops_share_one_refresh_here(server: StrictServer, then: Any) -> None:
    client = signed_in(server, then.connect)
    other = httpx2.AsyncClient(auth=client.auth)

    assert call_from_two_loops([client, other], server, refreshes=1) == [200, 200]
    assert server.stats.refreshes == 1


def test_a_synchronous_client_sends_no_token_there_and_refreshes_here(
    server: StrictServer, now: Any, then: Any
) -> None:
    for connect, outcome in ((now.connect, 401), (then.connect, 200)):
        auth = signed_in(server, connect).auth
        with httpx2.Client(auth=auth) as client:
            assert call(client, server) == outcome

    assert "authorization" not in server.seen[0].headers


def test_a_known_expiry_costs_a_refusal_there_and_none_here(server: StrictServer, now: Any) -> None:
    tokens = server.sign_in(ttl=0)
    assert call_in_tasks(now.connect(tokens.access, tokens.refresh), server) == [200] * CALLS
    assert server.stats.refused > 0

    begin_anew(server)
    grant = keyturn.client.grants.OAuth2(server.url + "/token", client_id="dashboard")
    credentials = keyturn.Credentials(grant, tokens=server.sign_in(ttl=0), origins=[server.url])
    assert call_in_tasks(httpx2.AsyncClient(auth=Auth(credentials)), server) == [200] * CALLS
    assert server.stats.refused == 0


def test_another_origin_gets_the_token_there_and_none_here(
    server: StrictServer, other_server: StrictServer, now: Any, then: Any
) -> None:
    async def visit(client: httpx2.AsyncClient) -> None:
        async with client:
            await client.get(other_server.url + "/public/page")

    for connect in (now.connect, then.connect):
        run_in_loop(partial(visit, connect("access", "refresh")))

    assert ["authorization" in seen.headers for seen in other_server.seen] == [True, False]


def test_an_answer_that_was_lost_costs_the_session_there_and_is_told_here(
    server: StrictServer, now: Any, then: Any
) -> None:
    for connect, error, sessions in (
        (now.connect, httpx2.HTTPStatusError, 0),
        (then.connect, keyturn.OutcomeUnknown, 1),
    ):
        begin_anew(server)
        client = signed_in(server, connect)
        server.drop_refresh()
        outcomes = call_in_tasks(client, server)
        assert outcomes[-1] is error
        assert server.stats.sessions_live == sessions


@pytest.mark.parametrize("fault", FAULTS)
def test_an_error_of_theirs_is_an_error_of_ours(
    server: StrictServer, now: Any, then: Any, fault: str
) -> None:
    for connect, expected in ((now.connect, THEIRS[fault]), (then.connect, OURS[fault])):
        tokens = arrange(server, fault)
        assert call_in_tasks(connect(tokens.access, tokens.refresh), server)[0] is expected


def test_an_answer_without_a_refresh_token_is_no_key_error_here(
    server: StrictServer, now: Any, then: Any
) -> None:
    for connect, outcome in ((now.connect, KeyError), (then.connect, 401)):
        begin_anew(server)
        client = signed_in(server, connect)
        server.fail_refresh(200, body={"access_token": "another", "expires_in": 60})
        assert outcome in call_in_tasks(client, server), "whoever is refused late refreshes once more"


def test_a_body_that_cannot_be_sent_twice_is_never_sent_empty(
    server: StrictServer, now: Any, then: Any
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"once"

    async def send(client: httpx2.AsyncClient) -> None:
        async with client:
            await client.post(server.url + "/statistics", content=body())

    for connect, expected in ((now.connect, httpx2.StreamConsumed), (then.connect, keyturn.NotReplayable)):
        begin_anew(server)
        client = signed_in(server, connect)
        with pytest.raises(expected):
            run_in_loop(partial(send, client))
    server.wait_for(refreshes=1)  # the refusal has been reported

"""docs/from/google-auth.md: both of its programs run, and what it says was seen."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from google.auth.exceptions import RefreshError, TransportError
from google.oauth2.credentials import Credentials

import keyturn
from keyturn.testing import StrictServer
from tests.interop.calls import CALLS, call, call_in_threads
from tests.interop.faults import FAULTS, OURS, arrange, begin_anew
from tests.interop.pages import DOCS, blocks
from tests.waiting import start

THEIRS: dict[str, type[Exception]] = {
    "the session is over": RefreshError,
    "the client is refused": RefreshError,
    "a page of HTML": RefreshError,
    "overload": RefreshError,
    "the answer was lost": TransportError,
}


@pytest.fixture
def now(server: StrictServer) -> SimpleNamespace:
    return blocks(DOCS / "from/google-auth.md", issuer=server.url, api=server.url)[0]


@pytest.fixture
def then(server: StrictServer) -> SimpleNamespace:
    return blocks(DOCS / "from/google-auth.md", issuer=server.url, api=server.url)[1]


def credentials_of(server: StrictServer, tokens: keyturn.Tokens) -> Any:
    expiry = datetime.fromtimestamp(tokens.expires_at or 0.0, UTC).replace(tzinfo=None)
    made: Any = Credentials
    return made(
        tokens.access,
        refresh_token=tokens.refresh,
        token_uri=server.url + "/token",
        client_id="dashboard",
        client_secret="hush",
        expiry=expiry,
    )


def test_the_credentials_of_the_library_go_on_under_keyturn(
    server: StrictServer, now: Any, then: Any
) -> None:
    credentials = credentials_of(server, server.sign_in(ttl=0))
    with now.connect(credentials) as session:
        assert call(session, server) == 200
    assert then.tokens_of(credentials).expires_at == pytest.approx(server_time(credentials), abs=1)

    server.expire()
    server.hold_api(CALLS)
    with then.connect(credentials) as session:
        assert call_in_threads(session, server) == [200] * CALLS
    assert server.stats.refreshes == 2
    assert server.seen[-1].status == 200


def server_time(credentials: Any) -> float:
    return float(credentials.expiry.replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize("known", [True, False], ids=["expired by the clock", "refused"])
def test_threads_end_the_session_there_and_share_one_refresh_here(
    server: StrictServer, now: Any, then: Any, known: bool
) -> None:
    def credentials() -> Any:
        begin_anew(server)
        tokens = server.sign_in(ttl=0 if known else None)
        server.expire()
        return credentials_of(server, tokens)

    with now.connect(credentials()) as session:
        server.hold_refresh()
        calls = start(lambda: call_in_threads(session, server))
        server.wait_for(refreshes=CALLS)
        server.release()
        assert 200 not in calls.result(60)
    assert server.stats.sessions_live == 0

    with then.connect(credentials()) as session:
        assert call_in_threads(session, server) == [200] * CALLS
    assert server.stats.refreshes == 1


def test_an_overloaded_end_point_is_tried_three_times_by_each_call_there(
    server: StrictServer, now: Any
) -> None:
    tokens = arrange(server, "overload")
    with now.connect(credentials_of(server, tokens)) as session, pytest.raises(RefreshError):
        session.get(server.url + "/statistics")
    assert server.stats.refreshes == 3


def test_a_token_that_lives_three_minutes_is_renewed_for_every_call_there_and_lives_its_life_here(
    server: StrictServer, now: Any, then: Any
) -> None:
    for connect, refreshes in ((now.connect, 3), (then.connect, 0)):
        begin_anew(server)
        server.configure(ttl=180)
        with connect(credentials_of(server, server.sign_in())) as session:
            assert [call(session, server) for _ in range(3)] == [200] * 3
        assert server.stats.refreshes == refreshes


def test_another_origin_gets_the_token_there_and_none_here(
    server: StrictServer, other_server: StrictServer, now: Any, then: Any
) -> None:
    credentials = credentials_of(server, server.sign_in())
    for connect in (now.connect, then.connect):
        with connect(credentials) as session:
            session.get(other_server.url + "/public/page", timeout=30)

    assert ["authorization" in seen.headers for seen in other_server.seen] == [True, False]


@pytest.mark.parametrize("fault", FAULTS)
def test_an_error_of_theirs_is_an_error_of_ours(
    server: StrictServer, now: Any, then: Any, fault: str
) -> None:
    for connect, expected in ((now.connect, THEIRS[fault]), (then.connect, OURS[fault])):
        with connect(credentials_of(server, arrange(server, fault))) as session:
            assert call(session, server) is expected

"""docs/from/requests-oauthlib.md: both of its programs run, and what it says was seen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import oauthlib.oauth2
import pytest
import requests
from requests_oauthlib import OAuth2Session, TokenUpdated

import keyturn
from keyturn.testing import StrictServer
from tests.interop.calls import CALLS, call, call_in_threads
from tests.interop.faults import FAULTS, OURS, arrange, begin_anew
from tests.interop.pages import DOCS, blocks
from tests.waiting import start, until

THEIRS: dict[str, type[Exception]] = {
    "the session is over": oauthlib.oauth2.InvalidGrantError,
    "the client is refused": oauthlib.oauth2.InvalidClientError,
    "a page of HTML": oauthlib.oauth2.MissingTokenError,
    "overload": oauthlib.oauth2.MissingTokenError,
    "the answer was lost": requests.ConnectionError,
}


@pytest.fixture(autouse=True)
def loopback_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")


@pytest.fixture
def now(server: StrictServer) -> SimpleNamespace:
    return blocks(DOCS / "from/requests-oauthlib.md", issuer=server.url, api=server.url)[0]


@pytest.fixture
def then(server: StrictServer) -> SimpleNamespace:
    return blocks(DOCS / "from/requests-oauthlib.md", issuer=server.url, api=server.url)[1]


def token_of(tokens: keyturn.Tokens) -> dict[str, Any]:
    return {
        "token_type": "Bearer",
        "access_token": tokens.access,
        "refresh_token": tokens.refresh,
        "expires_at": tokens.expires_at,
    }


def test_the_token_that_the_library_holds_goes_on_under_keyturn_and_what_it_becomes_is_saved(
    server: StrictServer, now: Any, then: Any
) -> None:
    theirs: list[Any] = []
    with now.connect(token_of(server.sign_in(ttl=0)), theirs.append) as session:
        assert call(session, server) == 200
    assert len(theirs) == 1  # refreshed by the library, for the last time

    ours: list[keyturn.Tokens] = []
    server.expire()
    server.hold_api(CALLS)
    with then.connect(theirs[0], ours.append) as session:
        assert call_in_threads(session, server) == [200] * CALLS
        until(lambda: bool(ours))
        assert session.auth is not None
    assert server.stats.refreshes == 2
    assert server.alive(ours[0])


def test_threads_that_find_a_token_expired_end_the_session_there_and_share_one_refresh_here(
    server: StrictServer, now: Any, then: Any
) -> None:
    server.hold_refresh()
    with now.connect(token_of(server.sign_in(ttl=0)), lambda token: None) as session:
        calls = start(lambda: call_in_threads(session, server))
        server.wait_for(refreshes=CALLS)
        server.release()
        assert 200 not in calls.result(60)
    assert server.stats.sessions_live == 0

    begin_anew(server)
    with then.connect(token_of(server.sign_in(ttl=0)), lambda tokens: None) as session:
        assert call_in_threads(session, server) == [200] * CALLS
    assert server.stats.refreshes == 1


def test_a_401_before_its_time_is_the_answer_there_and_renewed_here(
    server: StrictServer, now: Any, then: Any
) -> None:
    token = token_of(server.sign_in())
    server.expire()
    with now.connect(token, lambda token: None) as session:
        assert call(session, server) == 401
    assert server.stats.refreshes == 0

    with then.connect(token, lambda tokens: None) as session:
        assert call(session, server) == 200
    assert server.stats.refreshes == 1


def test_another_origin_gets_the_token_there_and_none_here(
    server: StrictServer, other_server: StrictServer, now: Any, then: Any
) -> None:
    token = token_of(server.sign_in())
    for connect in (now.connect, then.connect):
        with connect(token, lambda new: None) as session:
            session.get(other_server.url + "/public/page", timeout=30)

    carried = ["authorization" in seen.headers for seen in other_server.seen]
    assert carried == [True, False]


@pytest.mark.parametrize("fault", FAULTS)
def test_an_error_of_theirs_is_an_error_of_ours(
    server: StrictServer, now: Any, then: Any, fault: str
) -> None:
    for connect, expected in ((now.connect, THEIRS[fault]), (then.connect, OURS[fault])):
        token = token_of(arrange(server, fault))
        with connect(token, lambda new: None) as session:
            assert call(session, server) is expected


def test_without_somebody_to_tell_the_first_refresh_there_raises(server: StrictServer) -> None:
    session = OAuth2Session(
        "dashboard",
        token=token_of(server.sign_in(ttl=0)),
        auto_refresh_url=server.url + "/token",
        auto_refresh_kwargs={"client_id": "dashboard"},
    )
    with session, pytest.raises(TokenUpdated):
        session.get(server.url + "/statistics", timeout=30)


def test_without_an_end_point_an_expired_token_raises_there(server: StrictServer) -> None:
    with OAuth2Session("dashboard", token=token_of(server.sign_in(ttl=0))) as session:
        assert call(session, server) is oauthlib.oauth2.TokenExpiredError


def test_plain_http_is_refused_there_unless_a_variable_allows_it(
    server: StrictServer, now: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OAUTHLIB_INSECURE_TRANSPORT")
    with now.connect(token_of(server.sign_in()), lambda token: None) as session:
        assert call(session, server) is oauthlib.oauth2.InsecureTransportError

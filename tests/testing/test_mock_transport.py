"""The token end point in memory: the strict server's rules for every grant, without process and socket."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import freezegun
import httpx2
import pytest

import keyturn
from keyturn.client import carriers, grants
from keyturn.testing import Clock, MockTransport
from keyturn.testing.records import Switches
from tests.kit import in_threads

URL = "https://id.example/oauth/token"
API = "https://api.example"
HOUSE = {"access": "result.accessToken", "refresh": "result.refreshToken", "expires_in": "result.expiresIn"}
NAMES = carriers.CookieNames(
    access="at", refresh="rt", access_csrf="ac", refresh_csrf="rc", header="X-Double"
)


def house(tokens: keyturn.Tokens) -> httpx2.Response:
    """Return the answer of a house with names of its own."""
    result = {"accessToken": tokens.access, "refreshToken": tokens.refresh, "expiresIn": tokens.lifetime}
    return httpx2.Response(200, json={"success": True, "result": result})


def own_cookies(tokens: keyturn.Tokens) -> httpx2.Response:
    """Return the answer of a server that calls its cookies otherwise."""
    values = {
        "at": tokens.access,
        "rt": tokens.refresh,
        "ac": tokens.extra["csrf_access_token"],
        "rc": tokens.extra["csrf_refresh_token"],
    }
    return httpx2.Response(204, headers=[("Set-Cookie", f"{name}={one}") for name, one in values.items()])


async def by_hand(tokens: keyturn.Tokens, http: httpx2.AsyncClient) -> keyturn.Tokens:
    """Refresh as a user's own async function does."""
    answer = await http.post(URL, json={"token": tokens.refresh})
    body = answer.raise_for_status().json()
    return keyturn.Tokens(body["access_token"], body["refresh_token"])


def by_hand_blocking(tokens: keyturn.Tokens, http: httpx2.Client) -> keyturn.Tokens:
    """Refresh as a user's own plain function does."""
    body = http.post(URL, json={"token": tokens.refresh}).raise_for_status().json()
    return keyturn.Tokens(body["access_token"], body["refresh_token"])


@dataclass(frozen=True)
class Case:
    """A grant, and what the mock must be told to serve it."""

    name: str
    grant: Callable[[MockTransport], grants.Grant]
    answer: Callable[[keyturn.Tokens], httpx2.Response] | None = None
    cookies: carriers.CookieNames | None = None

    def sign_in(self, mock: MockTransport) -> keyturn.Tokens:
        """Return the tokens of a new session, as the grant wants them."""
        if self.cookies is None:
            return mock.sign_in()
        tokens = mock.sign_in_cookies()
        renamed = {
            self.cookies.access_csrf: tokens.extra["csrf_access_token"],
            self.cookies.refresh_csrf: tokens.extra["csrf_refresh_token"],
        }
        return keyturn.Tokens(tokens.access, tokens.refresh, tokens.expires_at, extra=renamed)


CASES = [
    Case("OAuth2", lambda mock: grants.OAuth2(URL, client_id="mine", http=mock.client)),
    Case("JSON", lambda mock: grants.JSON(URL, http=mock.client)),
    Case(
        "JSON of a house",
        lambda mock: grants.JSON(URL, send="theToken", receive=HOUSE, http=mock.client),
        answer=house,
    ),
    Case("BearerRefresh", lambda mock: grants.BearerRefresh(URL, http=mock.client)),
    Case("Cookies", lambda mock: grants.Cookies(URL, http=mock.client), cookies=carriers.CookieNames()),
    Case(
        "Cookies of other names",
        lambda mock: grants.Cookies(URL, names=NAMES, http=mock.client),
        answer=own_cookies,
        cookies=NAMES,
    ),
    Case("an async function", lambda mock: grants.Call(by_hand, http=mock.client)),
    Case(
        "a plain function",
        lambda mock: grants.Call(by_hand_blocking, sync_http=lambda: httpx2.Client(transport=mock)),
    ),
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def credentials_of(
    mock: MockTransport, tokens: keyturn.Tokens | None = None, *, window: float = 0.0, timeout: float = 10.0
) -> keyturn.Credentials:
    """Return credentials that refresh at the mock, by OAuth 2.0."""
    grant = grants.OAuth2(
        URL, http=mock.client, replay_window=timedelta(seconds=window), timeout=timedelta(seconds=timeout)
    )
    return keyturn.Credentials(grant, tokens=tokens or mock.sign_in(ttl=0), origins=[API])


@each_case
def test_each_grant_refreshes_once_for_all_threads(case: Case) -> None:
    mock = MockTransport(answer=case.answer)
    mock.hold_refresh()
    tokens = case.sign_in(mock)
    credentials = keyturn.Credentials(case.grant(mock), tokens=tokens, origins=[API])
    old = credentials.get_tokens()
    mock.expire()
    assert not mock.accepts(old.access)
    threading.Timer(0.05, mock.release).start()

    new = in_threads(8, lambda _: credentials.renew(old))

    assert {one.generation for one in new} == {1}
    assert mock.accepts(new[0].access)
    assert mock.accepts(f"Bearer {new[0].access}")
    assert (mock.stats.refreshes, mock.stats.rotations, mock.stats.reuses) == (1, 1, 0)
    assert credentials.renew(new[0]).generation == 2


@each_case
def test_each_grant_learns_that_the_session_was_revoked(case: Case) -> None:
    mock = MockTransport(answer=case.answer)
    credentials = keyturn.Credentials(case.grant(mock), tokens=case.sign_in(mock), origins=[API])
    mock.revoke()

    with pytest.raises(keyturn.SessionEnded) as caught:
        credentials.renew(credentials.get_tokens())
    assert caught.value.reason == "refused"
    assert mock.stats.rotations == 0


@each_case
def test_a_refresh_token_that_comes_back_ends_the_session(case: Case) -> None:
    mock = MockTransport(answer=case.answer)
    tokens = case.sign_in(mock)
    for _ in range(2):
        credentials = keyturn.Credentials(case.grant(mock), tokens=tokens, origins=[API])
        with contextlib.suppress(keyturn.SessionEnded):
            credentials.renew(credentials.get_tokens())

    assert (mock.stats.rotations, mock.stats.reuses) == (1, 1)
    assert not mock.alive(tokens)


def test_a_cookie_without_its_double_submit_value_is_refused_and_spends_nothing() -> None:
    mock = MockTransport()
    tokens = mock.sign_in_cookies()
    with httpx2.Client(transport=mock) as http:
        cookie = {"Cookie": f"refresh_token_cookie={tokens.refresh}"}
        assert http.post(URL, headers=cookie).status_code == 401
        assert http.post(URL, headers={**cookie, "X-CSRF-TOKEN": "another"}).status_code == 401

    assert mock.stats.rotations == 0
    assert mock.alive(tokens)


def test_a_client_that_asks_for_a_token_of_its_own_is_given_one() -> None:
    mock = MockTransport(client_auth="client_secret_basic", client_id="mine", client_secret="hush")
    grant = grants.ClientCredentials(URL, client_id="mine", client_secret="hush", http=mock.client)
    credentials = keyturn.Credentials(grant, origins=[API])

    assert mock.accepts(credentials.get_tokens().access)
    assert (mock.stats.refreshes, mock.stats.issued) == (1, 1)


def test_a_wrong_secret_is_a_configuration_to_mend() -> None:
    mock = MockTransport(client_auth="client_secret_post", client_id="mine", client_secret="hush")
    grant = grants.OAuth2(
        URL, client_id="mine", client_secret="loud", client_auth="client_secret_post", http=mock.client
    )
    credentials = keyturn.Credentials(grant, tokens=mock.sign_in(ttl=0), origins=[API])

    with pytest.raises(keyturn.RefreshMisconfigured) as caught:
        credentials.get_tokens()
    assert caught.value.error == "invalid_client"


# Faults


def test_a_failed_answer_is_tried_again(mock_exchange: MockTransport) -> None:
    mock_exchange.fail_refresh(503, times=2)

    assert credentials_of(mock_exchange).get_tokens(timeout=30).generation == 1
    assert mock_exchange.stats.refreshes == 3


def test_a_dropped_answer_leaves_the_outcome_unknown(mock_exchange: MockTransport) -> None:
    mock_exchange.drop_refresh()

    with pytest.raises(keyturn.OutcomeUnknown):
        credentials_of(mock_exchange).get_tokens()
    assert mock_exchange.stats.rotations == 1


def test_a_dropped_answer_costs_nothing_where_the_server_answers_a_retry(
    mock_exchange: MockTransport,
) -> None:
    mock_exchange.configure(window=10.0)
    mock_exchange.drop_refresh()
    credentials = credentials_of(mock_exchange, window=10.0)

    assert credentials.get_tokens(timeout=30).generation == 1
    assert (mock_exchange.stats.rotations, mock_exchange.stats.replays) == (1, 1)


def test_a_delayed_answer_outlasts_a_caller_who_cannot_wait(mock_exchange: MockTransport) -> None:
    mock_exchange.configure(refresh_delay=0.2)
    credentials = credentials_of(mock_exchange)

    with pytest.raises(keyturn.RefreshTimeout):
        credentials.get_tokens(timeout=0.01)
    assert credentials.get_tokens(timeout=30).generation == 1
    assert mock_exchange.stats.refreshes == 1


def test_an_exchange_that_gives_up_waiting_does_not_stop_the_server(mock_exchange: MockTransport) -> None:
    mock_exchange.hold_refresh()
    credentials = credentials_of(mock_exchange, timeout=0.05)

    with pytest.raises(keyturn.OutcomeUnknown):
        credentials.get_tokens()
    mock_exchange.release()

    assert mock_exchange.wait_for(rotations=1).rotations == 1


def test_credentials_that_close_wait_for_an_exchange_that_has_arrived(mock_exchange: MockTransport) -> None:
    mock_exchange.hold_refresh()
    credentials = credentials_of(mock_exchange)
    ticket = credentials.ticket()
    mock_exchange.wait_for(refreshes=1)
    closing = threading.Thread(target=credentials.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    mock_exchange.release()
    closing.join(30)

    assert ticket.wait(30).generation == 1


# Revocation


@pytest.mark.parametrize(
    "make", [grants.OAuth2, grants.JSON, grants.BearerRefresh], ids=lambda make: str(make.__name__)
)
def test_a_sign_out_gives_the_session_up(
    make: type[grants.OAuth2 | grants.JSON | grants.BearerRefresh],
) -> None:
    mock = MockTransport(revoke_url="https://id.example/logout")
    tokens = mock.sign_in()
    grant = make(URL, revoke_url="https://id.example/logout", http=mock.client)
    credentials = keyturn.Credentials(grant, tokens=tokens, origins=[API])

    credentials.sign_out()

    assert not mock.alive(tokens)
    assert (mock.stats.revocations, mock.stats.refreshes) == (1, 0)


def test_a_revocation_of_oauth_2_is_known_by_its_form(mock_exchange: MockTransport) -> None:
    tokens = mock_exchange.sign_in()
    grant = grants.OAuth2(URL, revoke_url="https://id.example/revocation", http=mock_exchange.client)

    keyturn.Credentials(grant, tokens=tokens, origins=[API]).sign_out()

    assert not mock_exchange.alive(tokens)


# Around it


def test_each_test_has_one_of_its_own_and_it_says_what_it_saw(mock_exchange: MockTransport) -> None:
    assert mock_exchange.stats.sessions_live == 0
    credentials = credentials_of(mock_exchange)
    credentials.get_tokens()

    (seen,) = mock_exchange.seen
    assert (seen.method, seen.path, seen.status) == ("POST", "/oauth/token", 200)
    assert seen.headers["host"] == "id.example"
    mock_exchange.reset()
    assert mock_exchange.seen == []


def test_access_is_for_bearers_of_a_token_that_is_good_now(mock_exchange: MockTransport) -> None:
    tokens = mock_exchange.sign_in()

    assert mock_exchange.accepts(tokens.access)
    assert mock_exchange.accepts(f"Bearer {tokens.access}")
    for wrong in (None, "", "Bearer", "Bearer ", f"Basic {tokens.access}", tokens.refresh, "a.b.c"):
        assert not mock_exchange.accepts(wrong)


def test_a_clock_of_the_test_moves_both_sides() -> None:
    clock = Clock()
    mock = MockTransport(clock=clock)
    tokens = mock.sign_in()
    credentials = keyturn.Credentials(
        grants.OAuth2(URL, http=mock.client), tokens=tokens, origins=[API], clock=clock
    )
    assert credentials.get_tokens().generation == 0
    clock.advance(61)

    assert not mock.accepts(tokens.access)
    assert mock.accepts(credentials.get_tokens().access)
    assert mock.stats.refreshes == 1


def test_frozen_time_holds_nothing_up(mock_exchange: MockTransport) -> None:
    mock_exchange.configure(refresh_delay=0.05)
    tokens = mock_exchange.sign_in()
    credentials = credentials_of(mock_exchange, tokens)
    with freezegun.freeze_time() as frozen:
        frozen.tick(61)
        assert not mock_exchange.accepts(tokens.access)
        assert mock_exchange.accepts(credentials.get_tokens(timeout=30).access)

    assert mock_exchange.stats.refreshes == 1


def test_a_client_on_any_loop_may_use_it(mock_exchange: MockTransport) -> None:
    tokens = mock_exchange.sign_in()

    async def main() -> int:
        async with mock_exchange.client() as http:
            form = {"grant_type": "refresh_token", "refresh_token": tokens.refresh}
            return (await http.post(URL, data=form)).status_code

    assert [asyncio.run(main()) for _ in range(2)] == [200, 400]


@pytest.mark.parametrize(
    "settings",
    [{"renews": True}, {"spread": 1.0}, {"client_auth": "private_key_jwt"}, {"client_auth": "by_heart"}],
)
def test_a_setting_that_is_none_here_is_refused_at_once(settings: Switches) -> None:
    with pytest.raises(keyturn.ConfigurationError):
        MockTransport(**settings)
    with pytest.raises(keyturn.ConfigurationError):
        MockTransport().configure(**settings)


def test_an_answer_that_asks_the_mock_is_an_error_and_no_hang() -> None:
    def asking(tokens: keyturn.Tokens) -> httpx2.Response:
        return httpx2.Response(200, json={"access_token": tokens.access, "n": mock.stats.refreshes})

    mock = MockTransport(answer=asking)
    grant = grants.JSON(URL, http=mock.client)
    credentials = keyturn.Credentials(grant, tokens=mock.sign_in(ttl=0), origins=[API])

    with pytest.raises(keyturn.KeyturnError):
        credentials.get_tokens(timeout=5)


def test_its_repr_shows_no_token(mock_exchange: MockTransport) -> None:
    mock_exchange.sign_in()

    assert repr(mock_exchange) == "<MockTransport>"

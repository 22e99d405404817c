"""Scenario 2: four statistics at once after a minute, on a server that invalidates old tokens."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx2
import pytest

import keyturn
from keyturn.client import events, grants
from keyturn.testing import StrictServer
from tests.kit import Log, credentials_for

from .service import Service
from .ways import ALL, TLS, WITH_AUTH, Request, Way, announced, beside, statuses

STATISTICS = [
    Request(path) for path in ("/statistics", "/other-statistics", "/sales-statistics", "/visitor-statistics")
]
MINUTE_LATER = 61.0


@pytest.fixture(scope="module")
def process() -> Iterator[Service]:
    with Service("keyturn_dashboard") as service:
        yield service


@pytest.fixture
def dashboard(process: Service) -> Service:
    process.reset()
    return process


def _sign_in(dashboard: Service, log: Log, *, ahead: float) -> keyturn.Credentials:
    """Sign in as the page does; the client's clock is `ahead`."""
    grant = grants.OAuth2(dashboard.url + "/auth/refresh-token")
    with httpx2.Client(verify=TLS, trust_env=False) as page:
        login = page.post(dashboard.url + "/auth/login")
    assert login.json()["name"] == "Alice"
    return keyturn.Credentials(
        grant,
        tokens=grant.read(login),
        origins=[dashboard.url],
        on_event=log,
        clock=lambda: time.time() + ahead,
    )


@pytest.mark.parametrize("way", WITH_AUTH, ids=str)
def test_four_statistics_after_a_minute_are_all_answered_with_one_refresh(
    dashboard: Service, way: Way
) -> None:
    log = Log()
    credentials = _sign_in(dashboard, log, ahead=MINUTE_LATER)
    before = credentials.tokens
    dashboard.ahead(MINUTE_LATER)

    answers = way.send(credentials, dashboard.url, STATISTICS)

    assert [answer.json()["name"] for answer in answers] == [one.path[1:] for one in STATISTICS]
    assert [one.status for one in dashboard.at("/auth/refresh-token")] == [200]
    assert len(dashboard.seen) == 1 + 1 + 4  # nobody was refused
    announced()
    assert [(one.generation, one.attempts) for one in log.of(events.Refreshed)] == [(1, 1)]
    after = credentials.tokens
    assert before is not None
    assert after is not None
    assert after.refresh != before.refresh


@pytest.mark.parametrize("way", WITH_AUTH, ids=str)
def test_four_statistics_with_a_token_that_only_the_server_knows_to_have_expired_cost_one_refresh_too(
    dashboard: Service, way: Way
) -> None:
    log = Log()
    credentials = _sign_in(dashboard, log, ahead=0.0)
    dashboard.ahead(MINUTE_LATER)
    dashboard.hold(4)

    answers = way.send(credentials, dashboard.url, STATISTICS)

    assert statuses(answers) == [200] * 4
    assert [one.status for one in dashboard.at("/auth/refresh-token")] == [200]
    assert [one.status for one in dashboard.seen].count(401) == 4
    announced()
    assert len(log.of(events.Refreshed)) == 1
    assert len(log.of(events.Replayed)) == 4


@pytest.mark.parametrize("way", WITH_AUTH[:2], ids=str)
def test_every_minute_costs_one_refresh_and_the_old_pair_is_invalid_each_time(
    dashboard: Service, way: Way
) -> None:
    minutes, now = 6, 0.0
    log = Log()
    grant = grants.OAuth2(dashboard.url + "/auth/refresh-token")
    with httpx2.Client(verify=TLS, trust_env=False) as page:
        signed_in = grant.read(page.post(dashboard.url + "/auth/login"))
    credentials = keyturn.Credentials(
        grant,
        tokens=signed_in,
        origins=[dashboard.url],
        on_event=log,
        clock=lambda: time.time() + now,
    )

    for _ in range(minutes):
        now += MINUTE_LATER
        dashboard.ahead(now)
        assert statuses(way.send(credentials, dashboard.url, STATISTICS)) == [200] * 4

    assert [one.status for one in dashboard.at("/auth/refresh-token")] == [200] * minutes
    old = keyturn.Credentials(grant, tokens=signed_in, origins=[dashboard.url])
    with pytest.raises(keyturn.SessionEnded):
        old.renew(old.get_tokens())


@pytest.mark.parametrize("way", WITH_AUTH[:2], ids=str)
def test_a_refresh_that_the_page_did_itself_is_adopted_and_no_refusal_of_the_old_pair_refreshes_again(
    dashboard: Service, way: Way
) -> None:
    credentials = _sign_in(dashboard, Log(), ahead=0.0)
    carried = credentials.get_tokens()
    with httpx2.Client(verify=TLS, trust_env=False) as page:
        body = {"refresh_token": carried.refresh}
        by_hand = grants.OAuth2(dashboard.url).read(
            page.post(dashboard.url + "/auth/refresh-token", json=body)
        )

    assert credentials.adopt(by_hand, carried)
    assert credentials.renew(carried).access == by_hand.access
    assert statuses(way.send(credentials, dashboard.url, STATISTICS)) == [200] * 4
    assert len(dashboard.at("/auth/refresh-token")) == 1


@pytest.mark.parametrize("knows", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("way", ALL, ids=str)
def test_the_strict_server_that_retires_old_tokens_answers_all_four_after_one_refresh(
    strict_server: StrictServer, way: Way, knows: bool
) -> None:
    strict_server.configure(retires=True, ttl=60.0)
    log = Log()
    credentials = credentials_for(
        strict_server, strict_server.sign_in(ttl=0.0 if knows else None), on_event=log
    )
    if not knows:
        strict_server.expire()
        strict_server.hold_api(4)

    assert statuses(way.send(credentials, strict_server.url, STATISTICS)) == [200] * 4

    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses, stats.sessions_live) == (1, 1, 0, 1)
    assert (stats.answered, stats.refused) == (4, 0 if knows else 4)


@pytest.mark.parametrize("way", WITH_AUTH, ids=str)
def test_calls_on_their_way_while_a_refresh_retires_their_token_are_replayed_and_not_refreshed(
    strict_server: StrictServer, way: Way
) -> None:
    strict_server.configure(retires=True, ttl=60.0)
    credentials = credentials_for(strict_server)
    strict_server.hold_api(5)  # the four, and one more that arrives when their token has been retired

    def main() -> None:
        strict_server.wait_for(api=4)
        credentials.renew(credentials.get_tokens())
        with httpx2.Client(verify=TLS, trust_env=False) as last:
            last.get(strict_server.url + "/last", headers={"Authorization": "Bearer nothing"})

    assert statuses(beside(main, lambda: way.send(credentials, strict_server.url, STATISTICS))) == [200] * 4
    stats = strict_server.stats
    assert (stats.refreshes, stats.answered, stats.refused, stats.reuses) == (1, 4, 5, 0)

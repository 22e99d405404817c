"""Scenario 9: what an answer of the token end point means, and for whom."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import httpx2
import pytest

import keyturn
from keyturn.testing import StrictServer
from tests.scenarios.callers import (
    FEW,
    WAYS,
    Caller,
    ShiftedClock,
    Way,
    api_requests,
    in_turn,
    results,
    token_requests,
    until,
    waiting,
)

Fault = Callable[[StrictServer], None]

OUTAGES: dict[str, Fault] = {
    "firewall": lambda server: server.fail_refresh(403, body="<html>no</html>", times=1000),
    "invalid_client": lambda server: server.fail_refresh(400, body={"error": "invalid_client"}, times=1000),
    "overloaded": lambda server: server.fail_refresh(503, headers={"Retry-After": "60"}, times=1000),
    "failing": lambda server: server.fail_refresh(500, times=1000),
    "unreadable": lambda server: server.fail_refresh(200, body="<html>hello</html>", times=1000),
    "dropped": lambda server: server.drop_refresh(times=1000),
}
ADVISORY, MANDATORY = 50.0, 58.0  # seconds into a life of 60


@pytest.mark.parametrize("way", FEW, ids=str)
def test_a_refusal_of_the_client_keeps_the_tokens_and_says_what_was_refused(
    strict_server: StrictServer, way: Way
) -> None:
    clock = ShiftedClock()
    credentials = way.credentials(strict_server, ttl=-1.0, clock=clock)
    held = credentials.tokens
    strict_server.hold_refresh("before")
    strict_server.fail_refresh(403, body={"error": "access_denied"})

    with Caller(way, strict_server, credentials) as api:
        calls = api.start_many(10)
        until(lambda: waiting(credentials) == 10)
        strict_server.release()
        refused = results(calls) + api.send_many(10)
        assert {type(error) for error in refused} == {keyturn.RefreshMisconfigured}
        assert {(error.status, error.error) for error in refused} == {(403, "access_denied")}
        assert strict_server.stats.refreshes == 1
        assert credentials.tokens is held
        assert strict_server.stats.api == 0

        clock.seconds = 60.0  # the end point is asked again, after a while
        assert api.send_many(10) == [200] * 10
    assert strict_server.stats.refreshes == 2


def test_an_unknown_client_is_a_clear_error_and_not_the_end_of_the_session(
    strict_server: StrictServer,
) -> None:
    way = FEW[0]
    tokens = strict_server.sign_in(ttl=-1.0)
    credentials = way.credentials(
        strict_server, tokens=tokens, grant=way.grant(strict_server, client_id="unknown")
    )

    with pytest.raises(keyturn.RefreshMisconfigured, match="invalid_client") as raised:
        credentials.get_tokens()

    assert (raised.value.status, raised.value.error) == (401, "invalid_client")
    assert credentials.tokens is not None
    assert strict_server.alive(tokens)


@pytest.mark.parametrize("age", [ADVISORY, MANDATORY], ids=["advisory", "mandatory"])
@pytest.mark.parametrize(("outage", "way"), in_turn(OUTAGES, FEW, 2))
def test_who_holds_a_valid_access_token_neither_sees_an_outage_nor_waits_for_its_end(
    strict_server: StrictServer, way: Way, age: float, outage: str
) -> None:
    tokens = way.sign_in(strict_server, ttl=60.0)
    credentials = way.credentials(
        strict_server, tokens=tokens, clock=ShiftedClock(age), retry_for=timedelta(minutes=2)
    )
    before = credentials.tokens
    OUTAGES[outage](strict_server)

    with Caller(way, strict_server, credentials) as api:
        assert api.send_many(10) == [200] * 10
        strict_server.wait_for(refreshes=1)
        assert api.send_many(10) == [200] * 10

    assert credentials.tokens is before
    assert strict_server.stats.most_refreshes_at_once == 1
    assert strict_server.stats.refused == 0
    credentials.close()


@pytest.mark.parametrize("way", [FEW[0], FEW[2]], ids=str)
@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirect_by_the_token_end_point_is_never_followed(
    strict_server: StrictServer, other_server: StrictServer, way: Way, status: int
) -> None:
    def eager() -> httpx2.AsyncClient:
        return httpx2.AsyncClient(follow_redirects=True, trust_env=False, verify=False)

    grant = way.grant(strict_server, http=eager)
    credentials = way.credentials(strict_server, ttl=-1.0, grant=grant)
    strict_server.fail_refresh(status, headers={"Location": other_server.url + "/token"})

    with pytest.raises(keyturn.RefreshMisconfigured) as raised:
        credentials.get_tokens()

    assert raised.value.status == status
    assert other_server.seen == []
    assert len(token_requests(strict_server)) == 1


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_token_that_is_born_expired_costs_one_flight_and_then_an_answer(
    strict_server: StrictServer, way: Way
) -> None:
    strict_server.configure(ttl=0.0)
    credentials = way.credentials(strict_server, ttl=-1.0)
    strict_server.hold_refresh("before")

    with Caller(way, strict_server, credentials) as api:
        calls = api.start_many(10)
        until(lambda: waiting(credentials) == 10)
        strict_server.release()
        assert results(calls) == [401] * 10

    assert strict_server.stats.refreshes == 1
    assert len(api_requests(strict_server)) == 10


def test_a_refused_token_whose_successors_are_born_expired_ends_in_an_answer(
    strict_server: StrictServer,
) -> None:
    way = FEW[0]
    credentials = way.credentials(strict_server)
    strict_server.configure(ttl=0.0)
    strict_server.expire()

    with Caller(way, strict_server, credentials) as api:
        assert api.send("GET", "/statistics").status_code == 401

    assert strict_server.stats.refreshes == 1


def test_a_min_ttl_above_the_lifetime_costs_one_flight_and_then_an_answer(
    strict_server: StrictServer,
) -> None:
    credentials = FEW[0].credentials(strict_server)

    tokens = credentials.get_tokens(min_ttl=timedelta(hours=12), timeout=30.0)

    assert tokens.generation == 1
    assert strict_server.stats.refreshes == 1

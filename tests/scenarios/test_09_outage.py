"""Scenario 9: a token end point that is overloaded or away."""

from __future__ import annotations

import socket
from datetime import timedelta

import pytest

import keyturn
from keyturn.client import events
from keyturn.testing import StrictServer
from tests.kit import Log
from tests.scenarios.callers import (
    FEW,
    Caller,
    ShiftedClock,
    Way,
    in_turn,
    results,
    token_requests,
    told_of,
    until,
    waiting,
)

BEYOND = {
    "seconds": {"Retry-After": "600"},
    "date": {"Date": "Wed, 21 Oct 2015 07:28:00 GMT", "Retry-After": "Wed, 21 Oct 2015 07:38:00 GMT"},
}


@pytest.mark.parametrize("way", [FEW[0], FEW[2]], ids=str)
def test_a_named_time_is_waited_for_and_then_everyone_is_answered(
    strict_server: StrictServer, way: Way
) -> None:
    credentials = way.credentials(strict_server, ttl=-1.0)
    strict_server.fail_refresh(503, headers={"Retry-After": "2"})

    with Caller(way, strict_server, credentials) as api:
        assert api.send_many(30) == [200] * 30

    first, second = token_requests(strict_server)
    assert second.at - first.at >= 1.99
    assert strict_server.stats.most_refreshes_at_once == 1


@pytest.mark.parametrize(("form", "way"), in_turn(BEYOND, FEW, 2))
@pytest.mark.parametrize("status", [429, 503])
def test_a_named_time_beyond_the_patience_is_told_at_once_and_nobody_asks_before_it(
    strict_server: StrictServer, way: Way, form: str, status: int
) -> None:
    log, clock = Log(), ShiftedClock()
    credentials = way.credentials(strict_server, ttl=-1.0, on_event=log, clock=clock)
    held = credentials.tokens
    strict_server.hold_refresh("before")
    strict_server.fail_refresh(status, headers=BEYOND[form])

    with Caller(way, strict_server, credentials) as api:
        calls = api.start_many(30)
        until(lambda: waiting(credentials) == 30)
        strict_server.release()
        told = results(calls)
        assert {type(error) for error in told} == {keyturn.RefreshUnavailable}
        assert {(error.status, error.retry_after, error.attempts) for error in told} == {(status, 600.0, 1)}

        later = api.send_many(10)
        assert {type(error) for error in later} == {keyturn.RefreshUnavailable}
        assert all(500.0 < error.retry_after <= 600.0 for error in later)
        assert strict_server.stats.refreshes == 1
        assert len(told_of(log, events.Failed)) == 1
        assert credentials.tokens is held

        clock.seconds = 601.0
        assert api.send_many(10) == [200] * 10
    assert strict_server.stats.refreshes == 2


@pytest.mark.parametrize("way", FEW, ids=str)
def test_when_the_patience_is_used_up_no_waiter_becomes_the_next_leader(
    strict_server: StrictServer, way: Way
) -> None:
    log = Log()
    credentials = way.credentials(
        strict_server, ttl=-1.0, on_event=log, retry_for=timedelta(milliseconds=400)
    )
    strict_server.hold_refresh("before")
    strict_server.fail_refresh(503, times=1000)

    with Caller(way, strict_server, credentials) as api:
        calls = api.start_many(30)
        until(lambda: waiting(credentials) == 30)
        strict_server.release()
        told = results(calls)

    assert {type(error) for error in told} == {keyturn.RefreshUnavailable}
    assert {error.attempts for error in told} == {strict_server.stats.refreshes}
    assert strict_server.stats.most_refreshes_at_once == 1
    (failed,) = told_of(log, events.Failed)
    assert failed.waiters == 30
    assert credentials.tokens is not None


@pytest.mark.parametrize("way", FEW, ids=str)
def test_a_closed_port_is_tried_again_and_then_told_to_everyone(
    strict_server: StrictServer, way: Way
) -> None:
    log = Log()
    with socket.socket() as taken:  # and nobody listens
        taken.bind(("127.0.0.1", 0))
        grant = way.grant_at(f"http://127.0.0.1:{taken.getsockname()[1]}")
        credentials = way.credentials(
            strict_server, ttl=-1.0, grant=grant, on_event=log, retry_for=timedelta(seconds=1)
        )
        with Caller(way, strict_server, credentials) as api:
            told = api.send_many(10)

    assert {type(error) for error in told} == {keyturn.RefreshUnavailable}
    assert all(error.attempts >= 2 and error.status is None for error in told)
    assert len(told_of(log, events.Failed)) == 1
    assert credentials.tokens is not None
    assert strict_server.seen == []

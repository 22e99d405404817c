"""Scenario 9: a refresh that was sent, and no readable answer came back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

import keyturn
from keyturn.client import events
from keyturn.testing import StrictServer
from tests.kit import Log
from tests.scenarios.callers import FEW, Caller, Way, in_turn, results, told_of, until, waiting

LOST: dict[str, tuple[Callable[[StrictServer], None], int | None]] = {
    "dropped": (lambda server: server.drop_refresh(), None),
    "500": (lambda server: server.fail_refresh(500), 500),
    "502": (lambda server: server.fail_refresh(502, body="<html>bad gateway</html>"), 502),
    "504": (lambda server: server.fail_refresh(504), 504),
    "html": (lambda server: server.fail_refresh(200, body="<html>hello</html>"), 200),
    "other-json": (lambda server: server.fail_refresh(200, body={"hello": "world"}), 200),
    "no-content": (lambda server: server.fail_refresh(204), 204),
}


@pytest.mark.parametrize(("how", "way"), in_turn(LOST, FEW, 2))
def test_a_token_that_may_be_spent_is_never_sent_again_unasked(
    strict_server: StrictServer, way: Way, how: str
) -> None:
    log = Log()
    tokens = way.sign_in(strict_server, ttl=-1.0)
    credentials = way.credentials(strict_server, tokens=tokens, on_event=log)
    lose, status = LOST[how]
    strict_server.hold_refresh("before")
    lose(strict_server)

    with Caller(way, strict_server, credentials) as api:
        calls = api.start_many(30)
        until(lambda: waiting(credentials) == 30)
        strict_server.release()
        told = results(calls) + api.send_many(10)
        assert {type(error) for error in told} == {keyturn.OutcomeUnknown}
        assert {error.status for error in told} == {status}

    stats = strict_server.stats
    assert (stats.refreshes, stats.reuses, stats.api) == (1, 0, 0)
    assert strict_server.alive(tokens)
    assert len(told_of(log, events.Failed)) == 1
    assert credentials.tokens is not None


@pytest.mark.parametrize("way", FEW, ids=str)
def test_an_answer_that_does_not_come_in_time_leaves_the_outcome_unknown(
    strict_server: StrictServer, way: Way
) -> None:
    grant = way.grant(strict_server, timeout=timedelta(seconds=0.3))
    tokens = way.sign_in(strict_server, ttl=-1.0)
    credentials = way.credentials(strict_server, tokens=tokens, grant=grant)
    strict_server.hold_refresh("after")

    with Caller(way, strict_server, credentials) as api:
        assert {type(error) for error in api.send_many(10)} == {keyturn.OutcomeUnknown}
        strict_server.release()
        assert {type(error) for error in api.send_many(10)} == {keyturn.OutcomeUnknown}

    assert strict_server.stats.refreshes == 1
    assert strict_server.alive(tokens)


@pytest.mark.parametrize("way", FEW, ids=str)
def test_an_explicit_retry_sends_the_token_again_and_goes_on_where_it_was_not_spent(
    strict_server: StrictServer, way: Way
) -> None:
    credentials = way.credentials(strict_server, ttl=-1.0)
    strict_server.drop_refresh(rotated=False)

    with Caller(way, strict_server, credentials) as api:
        assert isinstance(api.send_many(1)[0], keyturn.OutcomeUnknown)
        assert credentials.retry_unknown(timeout=30.0).generation == 1
        assert api.send_many(10) == [200] * 10

    assert strict_server.stats.refreshes == 2


@pytest.mark.parametrize("way", FEW, ids=str)
def test_an_explicit_retry_of_a_spent_token_ends_the_session_as_it_warned(
    strict_server: StrictServer, way: Way
) -> None:
    credentials = way.credentials(strict_server, ttl=-1.0)
    strict_server.drop_refresh(rotated=True)

    with Caller(way, strict_server, credentials) as api:
        assert isinstance(api.send_many(1)[0], keyturn.OutcomeUnknown)
        with pytest.raises(keyturn.SessionEnded) as raised:
            credentials.retry_unknown(timeout=30.0)
        assert raised.value.reason == "refused"
        assert strict_server.stats.refreshes == 2

        credentials.sign_in(way.sign_in(strict_server))
        assert api.send_many(10) == [200] * 10
    assert strict_server.stats.refreshes == 2


@pytest.mark.parametrize("way", FEW, ids=str)
def test_a_sign_in_is_a_way_out_of_an_unknown_outcome(strict_server: StrictServer, way: Way) -> None:
    credentials = way.credentials(strict_server, ttl=-1.0)
    strict_server.drop_refresh()

    with Caller(way, strict_server, credentials) as api:
        assert isinstance(api.send_many(1)[0], keyturn.OutcomeUnknown)
        credentials.sign_in(way.sign_in(strict_server, ttl=-1.0))
        assert api.send_many(10) == [200] * 10

    assert strict_server.stats.refreshes == 2


@pytest.mark.parametrize(("how", "way"), in_turn(LOST, FEW, 2))
def test_a_declared_window_brings_the_lost_successor_back_for_everyone(
    strict_server: StrictServer, way: Way, how: str
) -> None:
    strict_server.configure(window=30.0)
    grant = way.grant(strict_server, replay_window=timedelta(seconds=20))
    tokens = way.sign_in(strict_server, ttl=-1.0)
    credentials = way.credentials(strict_server, tokens=tokens, grant=grant)
    LOST[how][0](strict_server)

    with Caller(way, strict_server, credentials) as api:
        assert api.send_many(30) == [200] * 30

    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses) == (2, 1, 0)
    assert stats.replays == (1 if how == "dropped" else 0)
    assert stats.most_refreshes_at_once == 1
    assert strict_server.alive(tokens)


@pytest.mark.parametrize("way", FEW, ids=str)
def test_a_grant_that_does_not_rotate_may_send_its_token_again(strict_server: StrictServer, way: Way) -> None:
    strict_server.configure(rotates=False)
    credentials = way.credentials(strict_server, ttl=-1.0, grant=way.grant(strict_server, rotates=False))
    strict_server.drop_refresh()

    with Caller(way, strict_server, credentials) as api:
        assert api.send_many(30) == [200] * 30

    assert (strict_server.stats.refreshes, strict_server.stats.most_refreshes_at_once) == (2, 1)

"""Scenario 9: a dead refresh token costs one token call, whoever asks and however often."""

from __future__ import annotations

import pytest

import keyturn
from keyturn.client import events
from keyturn.testing import StrictServer
from tests.kit import Log
from tests.scenarios.callers import FEW, WAYS, Caller, Way, api_requests, results, told_of, until, waiting

DEAD = {"error": "invalid_grant"}


@pytest.mark.parametrize("way", FEW, ids=str)
@pytest.mark.parametrize("known", [True, False], ids=["expired", "refused"])
def test_a_dead_refresh_token_costs_fifty_callers_one_token_call_and_fifty_more_none(
    strict_server: StrictServer, way: Way, known: bool
) -> None:
    log = Log()
    credentials = way.credentials(strict_server, ttl=-1.0 if known else None, on_event=log)
    strict_server.revoke()
    if not known:
        strict_server.hold_api(50)  # all fifty are refused with the same tokens

    with Caller(way, strict_server, credentials) as api:
        first = api.send_many(50)
        sent = strict_server.stats.api
        second = api.send_many(50)

        assert [type(error) for error in first + second] == [keyturn.SessionEnded] * 100
        assert {error.reason for error in first + second} == {"refused"}
        assert len({id(error) for error in first + second}) == 100  # each has a traceback of its own
        assert strict_server.stats.refreshes == 1
        assert strict_server.stats.api == sent == (0 if known else 50)
        assert credentials.tokens is None
        assert len(told_of(log, events.Ended)) == 1

        credentials.sign_in(way.sign_in(strict_server))
        assert api.send("GET", "/statistics").json()["subject"] == "alice"
    assert strict_server.stats.refreshes == 1


@pytest.mark.parametrize("way", FEW, ids=str)
def test_an_invalid_grant_ends_nothing_once_newer_tokens_have_been_adopted(
    strict_server: StrictServer, way: Way
) -> None:
    log = Log()
    credentials = way.credentials(strict_server, ttl=-1.0, on_event=log)
    carried = credentials.tokens
    assert carried is not None
    strict_server.hold_refresh("before")
    strict_server.fail_refresh(400 if way.carrier == "bearer" else 401, body=DEAD)

    with Caller(way, strict_server, credentials) as api:
        calls = api.start_many(5)
        strict_server.wait_for(refreshes=1)
        until(lambda: waiting(credentials) == 5)
        assert credentials.adopt(way.sign_in(strict_server), carried)
        strict_server.release()
        assert results(calls) == [200] * 5

    assert log.of(events.Ended) == []
    assert credentials.tokens is not None
    assert credentials.tokens.generation == 1
    assert strict_server.stats.refreshes == 1


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_refused_body_that_cannot_be_sent_again_is_told_of_the_end_not_to_be_sent_anew(
    strict_server: StrictServer, way: Way
) -> None:
    credentials = way.credentials(strict_server)
    strict_server.expire()
    strict_server.hold_api(2)

    with Caller(way, strict_server, credentials) as api:
        upload = api.start("POST", "/upload", content=way.generator([b"all", b" of it"]))
        strict_server.wait_for(api=1)
        credentials.sign_out()
        strict_server.release()
        (error,) = results([upload])

    assert isinstance(error, keyturn.SessionEnded)
    assert error.reason == "signed_out"
    assert len(api_requests(strict_server)) == 1

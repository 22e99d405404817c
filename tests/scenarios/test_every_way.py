"""The table: what every adapter does with either carrier, so that they cannot drift apart.

The scenarios by their numbers go deeper, some with fewer of the ways; here
each way goes through what the problem consists of.
"""

from __future__ import annotations

from concurrent.futures import CancelledError

import pytest

import keyturn
from keyturn.testing import StrictServer
from tests.kit import CONNECTIONS
from tests.scenarios.callers import WAYS, Caller, Way, api_requests, results, until, waiting

every_way = pytest.mark.parametrize("way", WAYS, ids=str)
COUNT = 200


def _dead(server: StrictServer, way: Way) -> None:
    """Have the server refuse the refresh for good."""
    server.fail_refresh(400 if way.carrier == "bearer" else 401, body={"error": "invalid_grant"}, times=100)


@every_way
def test_a_storm_on_an_expired_token_makes_one_refresh(strict_server: StrictServer, way: Way) -> None:
    strict_server.configure(refresh_delay=0.05, ttl=600.0)
    credentials = way.credentials(strict_server, ttl=-1.0)

    with Caller(way, strict_server, credentials) as api:
        assert api.send_many(COUNT) == [200] * COUNT

    stats = strict_server.stats
    assert (stats.refreshes, stats.answered, stats.refused) == (1, COUNT, 0)


@every_way
def test_a_storm_on_a_refused_token_makes_one_refresh_and_replays_everyone(
    strict_server: StrictServer, way: Way
) -> None:
    strict_server.configure(refresh_delay=0.05, ttl=600.0)
    credentials = way.credentials(strict_server)
    strict_server.expire()
    strict_server.hold_api(CONNECTIONS)  # as many as can be are on their way before the first is refused

    with Caller(way, strict_server, credentials) as api:
        assert api.send_many(COUNT) == [200] * COUNT

    stats = strict_server.stats
    assert (stats.refreshes, stats.answered) == (1, COUNT)
    assert stats.refused >= CONNECTIONS


@every_way
def test_refusals_that_come_when_the_refresh_is_long_over_are_only_replayed(
    strict_server: StrictServer, way: Way
) -> None:
    credentials = way.credentials(strict_server)
    carried = credentials.tokens
    assert carried is not None
    strict_server.expire()
    strict_server.hold_api(10)

    with Caller(way, strict_server, credentials) as api:
        calls = api.start_many(9)
        strict_server.wait_for(api=9)
        credentials.renew(carried, timeout=30.0)
        strict_server.release()
        assert results(calls) == [200] * 9

    stats = strict_server.stats
    assert (stats.refreshes, stats.refused, stats.answered) == (1, 9, 9)


@pytest.mark.parametrize("way", [way for way in WAYS if way.is_async], ids=str)
def test_a_first_caller_who_is_cancelled_takes_nobody_along(strict_server: StrictServer, way: Way) -> None:
    credentials = way.credentials(strict_server, ttl=-1.0)
    strict_server.hold_refresh("after")

    with Caller(way, strict_server, credentials) as api:
        leader = api.start("GET", "/leader")
        strict_server.wait_for(rotations=1)
        followers = api.start_many(5)
        until(lambda: waiting(credentials) == 6)
        leader.cancel()
        until(lambda: waiting(credentials) == 5)
        strict_server.release()
        assert results(followers) == [200] * 5
        with pytest.raises(CancelledError):
            leader.result(30)

    stats = strict_server.stats
    assert (stats.refreshes, stats.reuses, stats.answered) == (1, 0, 5)


@every_way
def test_a_dead_refresh_token_is_tried_once_and_everyone_is_told(
    strict_server: StrictServer, way: Way
) -> None:
    credentials = way.credentials(strict_server)
    strict_server.expire()
    _dead(strict_server, way)
    strict_server.hold_api(30)

    with Caller(way, strict_server, credentials) as api:
        told = api.send_many(30) + api.send_many(5)

    assert {type(error) for error in told} == {keyturn.SessionEnded}
    assert {error.reason for error in told} == {"refused"}
    assert (strict_server.stats.refreshes, strict_server.stats.api) == (1, 30)


@every_way
def test_an_overloaded_token_end_point_is_tried_again_and_everyone_is_answered(
    strict_server: StrictServer, way: Way
) -> None:
    credentials = way.credentials(strict_server)
    strict_server.expire()
    strict_server.fail_refresh(503, times=2)
    strict_server.hold_api(30)

    with Caller(way, strict_server, credentials) as api:
        assert api.send_many(30) == [200] * 30

    stats = strict_server.stats
    assert (stats.refreshes, stats.most_refreshes_at_once, stats.rotations) == (3, 1, 1)


@every_way
def test_a_dropped_answer_of_the_token_end_point_never_spends_the_token_twice(
    strict_server: StrictServer, way: Way
) -> None:
    credentials = way.credentials(strict_server)
    strict_server.expire()
    strict_server.drop_refresh(rotated=True)
    strict_server.hold_api(30)

    with Caller(way, strict_server, credentials) as api:
        told = api.send_many(30)

    assert {type(error) for error in told} == {keyturn.OutcomeUnknown}
    stats = strict_server.stats
    assert (stats.refreshes, stats.reuses, stats.api) == (1, 0, 30)


@every_way
def test_a_dropped_answer_of_the_api_is_the_callers_and_starts_nothing(
    strict_server: StrictServer, way: Way
) -> None:
    credentials = way.credentials(strict_server)
    strict_server.drop_api(path="/gone")

    with Caller(way, strict_server, credentials) as api:
        (error,) = results([api.start("POST", "/gone", content=b"once")])
        assert isinstance(error, Exception)
        assert not isinstance(error, keyturn.KeyturnError)
        assert api.send("GET", "/statistics").status_code == 200

    assert len([one for one in api_requests(strict_server) if one.path == "/gone"]) == 1
    assert strict_server.stats.refreshes == 0


@every_way
@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")  # aiohttp wants files
def test_a_large_body_that_is_refused_after_it_was_read_is_sent_again_whole(
    strict_server: StrictServer, way: Way
) -> None:
    content = bytes(range(256)) * 12_000  # 3 MB: more than any socket holds
    credentials = way.credentials(strict_server)
    strict_server.expire()

    with Caller(way, strict_server, credentials) as api:
        assert api.send("PUT", "/archive", content=content).status_code == 200

    refused, answered = api_requests(strict_server)
    assert (refused.status, answered.status) == (401, 200)
    assert refused.body == answered.body == content

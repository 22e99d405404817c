"""Scenario 10: a refused response gives its connection back before anybody waits."""

from __future__ import annotations

import pytest

import keyturn
from keyturn.testing import StrictServer
from tests.scenarios.callers import WAYS, Caller, Way, results, until, waiting

every_way = pytest.mark.parametrize("way", WAYS, ids=str)

CROWDED = [way for way in WAYS if way.driver.shares]


@every_way
@pytest.mark.parametrize("size", [0, 500_000], ids=["small", "large"])
def test_who_waits_for_a_refresh_holds_no_connection(
    strict_server: StrictServer, way: Way, size: int
) -> None:
    credentials = way.credentials(strict_server)
    strict_server.expire()
    if size:
        strict_server.fail_api(401, body=b"x" * size)
    strict_server.hold_refresh("before")

    with Caller(way, strict_server, credentials, connections=1) as api:
        call = api.start("GET", "/statistics")
        until(lambda: waiting(credentials) == 1)
        assert api.send("GET", "/public/meanwhile").status_code == 200  # over the one connection
        strict_server.release()
        assert results([call]) == [200]

    assert strict_server.stats.refreshes == 1


@pytest.mark.parametrize("way", CROWDED, ids=str)
@pytest.mark.parametrize("size", [0, 500_000], ids=["small", "large"])
def test_a_pool_of_one_connection_does_not_deadlock(strict_server: StrictServer, way: Way, size: int) -> None:
    credentials = way.credentials(strict_server)
    strict_server.expire()
    if size:
        strict_server.fail_api(401, body=b"x" * size)
    strict_server.hold_refresh("before")

    with Caller(way, strict_server, credentials, connections=1) as api:
        calls = api.start_many(8)
        until(lambda: waiting(credentials) == 8)  # each was refused over the one connection
        strict_server.release()
        assert results(calls) == [200] * 8

    assert strict_server.stats.refreshes == 1


@pytest.mark.parametrize("way", CROWDED, ids=str)
def test_a_pool_of_one_connection_is_free_while_an_expired_token_is_refreshed(
    strict_server: StrictServer, way: Way
) -> None:
    credentials = way.credentials(strict_server, ttl=-1.0)

    with Caller(way, strict_server, credentials, connections=1) as api:
        assert api.send_many(8) == [200] * 8

    assert strict_server.stats.refreshes == 1


@every_way
def test_a_request_that_fails_gives_its_connection_back(strict_server: StrictServer, way: Way) -> None:
    credentials = way.credentials(strict_server)

    with Caller(way, strict_server, credentials, connections=1) as api:
        for _ in range(3):
            strict_server.expire()
            strict_server.fail_api(401, body=b"x" * 500_000)
            error = api.start("POST", "/upload", content=way.generator([b"once"])).exception(30)
            assert isinstance(error, keyturn.NotReplayable)
            assert credentials.tokens is not None
            credentials.renew(credentials.tokens)
        assert api.send("GET", "/statistics").status_code == 200

"""Scenario 3, every library: each answer carries a new pair, the old one is dead at once, nothing is lost."""

from __future__ import annotations

import pytest

import keyturn
from keyturn.client import events
from keyturn.testing import StrictServer
from tests.kit import Log
from tests.scenarios.callers import WAYS, Caller, Way, results

every_way = pytest.mark.parametrize("way", WAYS, ids=str)


@pytest.fixture
def server(strict_server: StrictServer) -> StrictServer:
    strict_server.configure(renews=True, ttl=600.0)
    return strict_server


def _nothing_lost(server: StrictServer, credentials: keyturn.Credentials, renewals: int) -> None:
    """Every answer brought a pair, no refresh was made, and the newest pair is the one at hand."""
    stats = server.stats
    assert (stats.refreshes, stats.reuses, stats.sessions_live) == (0, 0, 1)
    assert (stats.answered, stats.renewals) == (renewals, renewals)
    assert credentials.tokens is not None
    credentials.renew(credentials.tokens)  # with a refresh token but the newest this would end the session
    assert server.stats.sessions_live == 1


@every_way
def test_four_calls_with_one_token_are_all_answered_without_a_refresh(server: StrictServer, way: Way) -> None:
    log = Log()
    credentials = way.credentials(server, carrier=way.renewing(), on_event=log)
    server.hold_api(4)

    with Caller(way, server, credentials) as api:
        calls = [api.start("POST", f"/orders/{i}", json={"order": i}) for i in range(4)]
        assert results(calls) == [200] * 4

    assert len(log.of(events.Adopted)) == 4
    _nothing_lost(server, credentials, 4)


@every_way
def test_a_crowd_that_comes_in_waves_is_all_answered(server: StrictServer, way: Way) -> None:
    credentials = way.credentials(server, carrier=way.renewing())

    with Caller(way, server, credentials) as api:
        for wave in range(3):
            assert api.send_many(20, f"/statistics/{wave}") == [200] * 20

    _nothing_lost(server, credentials, 60)


@every_way
def test_who_fails_holds_nobody_up(server: StrictServer, way: Way) -> None:
    credentials = way.credentials(server, carrier=way.renewing())
    server.drop_api(times=3, path="/gone")

    with Caller(way, server, credentials) as api:
        failed = results([api.start("POST", "/gone", content=b"x") for _ in range(3)])
        assert [isinstance(error, Exception) for error in failed] == [True] * 3
        server.expire()
        assert api.send_many(5) == [200] * 5

    assert (server.stats.refreshes, server.stats.reuses) == (1, 0)

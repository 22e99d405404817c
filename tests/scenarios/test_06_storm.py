"""A storm of 1,000 tasks and of 200 threads, with a token that has expired and one believed valid."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import keyturn
from keyturn.testing import StrictServer
from tests.kit import CONNECTIONS, HOSTS, Host, Statuses, credentials_for, storm_of_tasks, storm_of_threads

Storm = Callable[[Host, StrictServer, keyturn.Credentials, int], Statuses]
STORMS = [
    pytest.param(storm_of_tasks, 1000, id="1000-tasks"),
    pytest.param(storm_of_threads, 200, id="200-threads"),
]


@pytest.mark.parametrize("host", HOSTS, ids=str)
@pytest.mark.parametrize(("storm", "count"), STORMS)
def test_an_expired_token_is_refreshed_once_and_nobody_is_refused(
    strict_server: StrictServer, host: Host, storm: Storm, count: int
) -> None:
    strict_server.configure(refresh_delay=0.05, ttl=600.0)
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=-1.0))

    assert storm(host, strict_server, credentials, count) == [200] * count

    stats = strict_server.stats
    assert (stats.refreshes, stats.answered, stats.refused) == (1, count, 0)


@pytest.mark.parametrize("host", HOSTS, ids=str)
@pytest.mark.parametrize(("storm", "count"), STORMS)
def test_a_token_that_the_server_refuses_is_refreshed_once_and_everyone_is_replayed(
    strict_server: StrictServer, host: Host, storm: Storm, count: int
) -> None:
    strict_server.configure(refresh_delay=0.05, ttl=600.0)
    credentials = credentials_for(strict_server)
    strict_server.expire()
    strict_server.hold_api(CONNECTIONS)  # as many as can be are on their way before the first is refused

    assert storm(host, strict_server, credentials, count) == [200] * count

    stats = strict_server.stats
    assert (stats.refreshes, stats.answered) == (1, count)
    assert stats.refused >= CONNECTIONS  # who came after the refresh was not refused at all

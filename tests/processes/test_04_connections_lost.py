"""The store's server ends connections while one process refreshes: leases may go with them, tokens do not."""

from __future__ import annotations

import pytest

from keyturn.testing import StrictServer
from tests.processes.fleet import Fleet, together
from tests.processes.handles import Worker
from tests.processes.servers import OwnPostgres, OwnRedis
from tests.processes.stores import NOTIFYING, Shared
from tests.waiting import until

pytestmark = pytest.mark.processes

WINDOW = 8.0


@pytest.fixture(params=NOTIFYING)
def server(request: pytest.FixtureRequest) -> OwnRedis | OwnPostgres:
    """A Redis and a PostgreSQL."""
    name = {"redis": "own_redis", "postgresql": "own_postgres"}[request.param]
    one: OwnRedis | OwnPostgres = request.getfixturevalue(name)
    return one


@pytest.fixture
def store_url(server: OwnRedis | OwnPostgres) -> str:
    """The URL of that server."""
    return server.url


POSTGRES = pytest.mark.parametrize("server", ["postgresql"], indirect=True)


@POSTGRES
def test_with_a_window_who_gets_the_lease_of_a_lost_connection_is_given_the_same_tokens(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, own_postgres: OwnPostgres
) -> None:
    strict_server.configure(window=WINDOW)
    holder, *others = fleet.crew(3, tokens=strict_server.sign_in(ttl=-1.0), window=WINDOW)
    strict_server.hold_refresh("after")
    asked = [holder.get(10)]
    strict_server.wait_for(rotations=1)
    asked += [other.get(10) for other in others]
    for other in others:
        other.waits(10)

    assert own_postgres.terminate("leases") == 1
    strict_server.wait_for(replays=1)
    strict_server.release()

    assert together(asked) == {"200": 30}
    stats = strict_server.stats
    assert (stats.rotations, stats.replays, stats.reuses) == (1, 1, 0)
    assert shared.record().generation == 1
    agree(strict_server, holder, *others)


@POSTGRES
def test_without_a_window_who_gets_the_lease_of_a_lost_connection_sends_nothing(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, own_postgres: OwnPostgres
) -> None:
    holder, other = fleet.crew(2, tokens=strict_server.sign_in(ttl=-1.0))
    strict_server.hold_refresh("after")
    asked = holder.get(10)
    strict_server.wait_for(rotations=1)

    assert own_postgres.terminate("leases") == 1
    assert other.get(10).outcomes == {"OutcomeUnknown": 10}
    strict_server.release()

    assert asked.outcomes == {"200": 10}, "the save needs no lease"
    until(lambda: other.get(1).outcomes == {"200": 1})
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses) == (1, 1, 0)
    assert shared.record().generation == 1


@POSTGRES
def test_a_lease_that_was_lost_before_the_marker_costs_nobody_anything(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, own_postgres: OwnPostgres
) -> None:
    holder, other = fleet.crew(2, tokens=strict_server.sign_in(ttl=-1.0))
    holder.pause("marking")
    asked = holder.get(10)
    holder.paused()

    assert own_postgres.terminate("leases") == 1
    assert other.get(10).outcomes == {"200": 10}
    holder.go_on()

    assert asked.outcomes == {"200": 10}
    stats = strict_server.stats
    assert (stats.refreshes, stats.reuses) == (1, 0)
    assert shared.record().generation == 1
    agree(strict_server, holder, other)


def test_whose_subscription_was_ended_listens_again_and_has_missed_nothing(
    strict_server: StrictServer, fleet: Fleet, server: OwnRedis | OwnPostgres
) -> None:
    renews, *listen = fleet.crew(3, tokens=strict_server.sign_in())
    assert together([worker.get(1) for worker in (renews, *listen)]) == {"200": 3}

    for generation in (1, 2):
        if isinstance(server, OwnPostgres):
            server.terminate("listening")
        else:
            server.end_subscriptions()
        renews.ok("renew")
        for worker in listen:
            until(lambda worker=worker: worker.do("tokens")["generation"] == generation)  # type: ignore[misc] # noqa: B023

    stats = strict_server.stats
    assert (stats.refreshes, stats.reuses) == (2, 0)


@pytest.mark.parametrize("place", ["leased", "marked", "answered", "saving"])
def test_whose_connections_are_all_ended_in_the_middle_of_a_refresh_saves_what_it_buys(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, server: OwnRedis | OwnPostgres, place: str
) -> None:
    holder, other = fleet.crew(2, tokens=strict_server.sign_in(ttl=-1.0))
    holder.ok("pause", at=place)
    asked = holder.get(10)
    assert holder.paused() == place
    if isinstance(server, OwnPostgres):
        server.terminate("all")
    else:
        server.end_connections()
    holder.go_on()

    assert asked.outcomes == {"200": 10}
    until(lambda: other.get(10).outcomes == {"200": 10})
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses) == (1, 1, 0)
    assert shared.record().generation == 1
    agree(strict_server, holder, other)


def agree(server: StrictServer, *workers: Worker) -> None:
    """Check that all workers hold the same tokens: that their requests carry the same one."""
    for worker in workers:
        assert worker.get(1).outcomes == {"200": 1}
    last = [one for one in server.seen if one.path in {"/task", "/thread"}][-len(workers) :]
    assert len({one.headers["authorization"] for one in last}) == 1

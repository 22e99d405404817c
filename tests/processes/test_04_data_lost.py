"""The store has lost its data: who holds the newest pair writes it back, and nobody spends an older one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from keyturn.client.token_stores import new_store
from keyturn.testing import StrictServer
from tests.client.token_stores.kit import on_loop
from tests.processes.fleet import Fleet, together
from tests.processes.handles import Started
from tests.processes.servers import OwnPostgres, OwnRedis
from tests.processes.stores import Shared
from tests.waiting import until

pytestmark = pytest.mark.processes

WAYS = ["redis flushed", "redis restarted", "postgresql removed"]


@dataclass(frozen=True)
class Loss:
    """A server, how it comes to lose a name, and how its notifications come not to reach who is stopped."""

    server: OwnRedis | OwnPostgres
    happens: Callable[[str], None]
    deafens: Callable[[], object]


@pytest.fixture(params=WAYS)
def loss(request: pytest.FixtureRequest) -> Iterator[Loss]:
    """A loss of each kind."""
    kind, how = request.param.split()
    if kind == "postgresql":
        postgres: OwnPostgres = request.getfixturevalue("own_postgres")
        yield Loss(
            postgres, lambda name: removed(postgres.url, name), lambda: postgres.terminate("listening")
        )
        return
    redis: OwnRedis = request.getfixturevalue("own_redis")

    def happens(_: str) -> None:
        redis.forget()
        if how == "restarted":
            redis.restart()

    yield Loss(redis, happens, deafens=redis.end_subscriptions)
    redis.start()


@pytest.fixture
def store_url(loss: Loss) -> str:
    """The URL of that server."""
    return loss.server.url


def test_with_processes_that_missed_the_last_refresh_there_is_one_refresh_afterwards(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, loss: Loss
) -> None:
    current, stale = crew_of_which_half_is_stale(strict_server, fleet, loss)
    loss.happens(shared.name)
    strict_server.expire()
    for worker in stale:
        worker.go_on_after_stop()

    assert together([worker.get(10) for worker in (*stale, *current)]) == {"200": 40}

    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses, stats.sessions_live) == (2, 2, 0, 1)
    assert shared.record().generation == 2


def test_a_process_that_missed_the_last_refresh_is_given_what_the_others_have(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, loss: Loss
) -> None:
    strict_server.configure(retires=True)
    current, stale = crew_of_which_half_is_stale(strict_server, fleet, loss)
    loss.happens(shared.name)
    for worker in stale:
        worker.go_on_after_stop()

    assert together([worker.get(10) for worker in stale]) == {"200": 20}

    assert {worker.do("tokens")["generation"] for worker in (*stale, *current)} == {1}
    stats = strict_server.stats
    assert (stats.refreshes, stats.reuses) == (1, 0)
    assert shared.record().generation == 1


@pytest.mark.parametrize("window", [0.0, 20.0], ids=["no window", "a window"])
def test_data_lost_while_the_exchange_is_on_its_way_has_nobody_send_the_same_token_unasked(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, loss: Loss, window: float
) -> None:
    strict_server.configure(window=window)
    holder, *others = fleet.crew(3, tokens=strict_server.sign_in(), window=window)
    for worker in (holder, *others):
        assert worker.get(1).outcomes == {"200": 1}
    strict_server.expire()
    strict_server.hold_refresh("after")
    asked = holder.get(10)
    strict_server.wait_for(rotations=1)
    waiting = [other.get(10) for other in others]
    for other in others:
        other.saw("Waiting", 10)

    loss.happens(shared.name)
    until(lambda: is_marked(shared))
    if shared.lease_is_timed and not window:
        assert together(waiting) == {"OutcomeUnknown": 20}, "the lease is lost, the marker is not"
    strict_server.release()

    assert asked.outcomes == {"200": 10}
    if not shared.lease_is_timed or window:
        assert together(waiting) == {"200": 20}
    for worker in (holder, *others):
        until(lambda worker=worker: worker.get(1).outcomes == {"200": 1})  # type: ignore[misc]
    stats = strict_server.stats
    assert (stats.rotations, stats.reuses, stats.sessions_live) == (1, 0, 1)
    assert stats.refreshes == 1 or window
    assert shared.record().generation == 1


def test_a_pair_that_was_bought_before_the_loss_is_saved_after_it(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, loss: Loss
) -> None:
    holder, other = fleet.crew(2, tokens=strict_server.sign_in())
    for worker in (holder, other):
        assert worker.get(1).outcomes == {"200": 1}
    strict_server.expire()
    holder.pause("saving")
    asked = holder.get(10)
    holder.paused()

    loss.happens(shared.name)
    holder.go_on()

    assert asked.outcomes == {"200": 10}
    until(lambda: other.get(10).outcomes == {"200": 10})
    stats = strict_server.stats
    assert (stats.refreshes, stats.reuses, stats.sessions_live) == (1, 0, 1)
    assert shared.record().generation == 1


def test_a_sign_out_outlives_its_tombstone(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, loss: Loss
) -> None:
    leaves, missed = fleet.crew(2, tokens=strict_server.sign_in())
    for worker in (leaves, missed):
        assert worker.get(1).outcomes == {"200": 1}
    missed.stop()
    leaves.ok("sign_out")
    loss.happens(shared.name)
    missed.go_on_after_stop()
    strict_server.expire()

    assert set(missed.get(10).outcomes) <= {"SessionEnded signed_out"}

    assert strict_server.stats.refreshes == 0


def crew_of_which_half_is_stale(
    server: StrictServer, fleet: Fleet, loss: Loss
) -> tuple[list[Started], list[Started]]:
    """Return two workers that know of a refresh, and two, stopped, that do not."""
    crew = fleet.crew(4, tokens=server.sign_in())
    assert together([worker.get(1) for worker in crew]) == {"200": 4}
    current, stale = crew[:2], crew[2:]
    for worker in stale:
        worker.stop()
    loss.deafens()
    current[0].ok("renew")
    until(lambda: current[1].do("tokens")["generation"] == 1)
    return current, stale


def is_marked(shared: Shared) -> bool:
    """Tell whether the store knows of an exchange."""
    record = shared.found()
    return record is not None and record.marker is not None


def removed(url: str, name: str) -> None:
    """Take a record away, as somebody with a console would."""

    async def main() -> None:
        store = new_store(url)
        try:
            assert await store.remove(name)
        finally:
            await asyncio.shield(store.aclose())

    on_loop(main)

"""The store's server is killed and comes back: nobody refreshes without a lease, nothing bought is lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from keyturn.testing import StrictServer
from tests.processes.fleet import Fleet, together
from tests.processes.handles import Started, Worker
from tests.processes.proxy import Proxy
from tests.processes.servers import OwnPostgres, OwnRedis
from tests.processes.settings import written
from tests.processes.stores import NOTIFYING, Shared
from tests.waiting import until

pytestmark = pytest.mark.processes

WINDOW = 8.0
A_WINDOW = pytest.mark.parametrize("window", [0.0, WINDOW], ids=["no window", "a window"])
SOON = 0.5  # seconds, for which a refresh is tried while the store is down


@pytest.fixture(params=NOTIFYING)
def server(request: pytest.FixtureRequest) -> Iterator[OwnRedis | OwnPostgres]:
    """A Redis and a PostgreSQL to stop."""
    name = {"redis": "own_redis", "postgresql": "own_postgres"}[request.param]
    one: OwnRedis | OwnPostgres = request.getfixturevalue(name)
    yield one
    one.start()


@pytest.fixture
def store_url(server: OwnRedis | OwnPostgres) -> str:
    """The URL of that server."""
    return server.url


def test_tokens_that_are_valid_are_used_and_nobody_waits_while_the_store_is_down(
    strict_server: StrictServer, fleet: Fleet, server: OwnRedis | OwnPostgres
) -> None:
    crew = fleet.crew(2, tokens=strict_server.sign_in(), retry_for=SOON)
    warm(crew)
    waited = [len(worker.events("Waiting")) for worker in crew]
    server.stop()

    assert together([worker.get(20, loops=2, threads=2) for worker in crew]) == {"200": 40}

    assert [len(worker.events("Waiting")) for worker in crew] == waited
    assert strict_server.stats.refreshes == 0


def test_tokens_that_are_due_are_used_while_the_store_is_down_and_renewed_when_it_is_back(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, server: OwnRedis | OwnPostgres
) -> None:
    crew = fleet.crew(2, tokens=strict_server.sign_in(ttl=40.0), lifetime=250.0, retry_for=SOON)
    warm(crew)
    server.stop()

    assert together([worker.get(10) for worker in crew]) == {"200": 20}
    for worker in crew:
        worker.saw("Failed")
        assert worker.events("Failed")[0]["cause"] == "TokenStoreUnavailable"
    assert together([worker.get(10) for worker in crew]) == {"200": 20}
    assert strict_server.stats.refreshes == 0
    server.start()

    for worker in crew:
        until(lambda worker=worker: worker.get(1).outcomes == {"200": 1} and generation(worker) == 1)  # type: ignore[misc]
    assert strict_server.stats.refreshes == 1


def test_a_refresh_while_the_store_is_down_is_not_sent_and_says_so_after_its_time(
    strict_server: StrictServer, fleet: Fleet, server: OwnRedis | OwnPostgres
) -> None:
    crew = fleet.crew(2, tokens=strict_server.sign_in(), retry_for=SOON)
    warm(crew)
    strict_server.expire()
    server.stop()
    late = fleet.one(retry_for=SOON)

    assert together([worker.get(10) for worker in (*crew, late)]) == {"TokenStoreUnavailable": 30}
    assert late.do("renew")["error"] in {"TokenStoreUnavailable", "NotSignedIn"}
    assert strict_server.stats.refreshes == 0
    server.start()

    for worker in (*crew, late):
        until(lambda worker=worker: worker.get(10).outcomes == {"200": 10})  # type: ignore[misc]
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses) == (1, 1, 0)


def test_who_is_patient_is_answered_when_the_store_is_back(
    strict_server: StrictServer, fleet: Fleet, server: OwnRedis | OwnPostgres
) -> None:
    crew = fleet.crew(3, tokens=strict_server.sign_in())
    warm(crew)
    strict_server.expire()
    server.stop()
    asked = [worker.get(10) for worker in crew]
    for worker in crew:
        worker.saw("Waiting", 10)

    server.start()

    assert together(asked) == {"200": 30}
    stats = strict_server.stats
    assert (stats.refreshes, stats.reuses) == (1, 0)


def test_a_refresh_while_the_store_hangs_is_not_sent_and_says_so(
    strict_server: StrictServer, fleet: Fleet, server: OwnRedis | OwnPostgres
) -> None:
    with Proxy(server.url) as wire:
        crew = fleet.crew(2, tokens=strict_server.sign_in(), store=wire.url, retry_for=SOON)
        warm(crew)
        wire.hold()
        assert together([worker.get(10) for worker in crew]) == {"200": 20}
        strict_server.expire()

        assert together([worker.get(10) for worker in crew]) == {"TokenStoreUnavailable": 20}
        assert strict_server.stats.refreshes == 0
        wire.let_go()

        for worker in crew:
            until(lambda worker=worker: worker.get(10).outcomes == {"200": 10})  # type: ignore[misc]
        stats = strict_server.stats
        assert (stats.refreshes, stats.reuses) == (1, 0)


@A_WINDOW
@pytest.mark.parametrize("stage", ["before", "after"], ids=["before the rotation", "after it"])
def test_a_restart_while_the_exchange_is_on_its_way_spends_nothing_twice(
    strict_server: StrictServer,
    fleet: Fleet,
    shared: Shared,
    server: OwnRedis | OwnPostgres,
    window: float,
    stage: str,
) -> None:
    strict_server.configure(window=window)
    holder, *others = fleet.crew(3, tokens=strict_server.sign_in(ttl=-1.0), window=window)
    strict_server.hold_refresh("before" if stage == "before" else "after")
    asked = holder.get(10)
    strict_server.wait_for(refreshes=1)
    waiting = [other.get(10) for other in others]
    for other in others:
        other.waits(10)

    server.restart()
    assert strict_server.stats.refreshes <= (2 if window else 1)
    strict_server.release()

    assert asked.outcomes == {"200": 10}
    outcomes = together(waiting)
    assert set(outcomes) <= ({"200"} if window else {"200", "OutcomeUnknown"})
    for worker in (holder, *others):
        until(lambda worker=worker: worker.get(1).outcomes == {"200": 1})  # type: ignore[misc]
    stats = strict_server.stats
    assert (stats.rotations, stats.reuses) == (1, 0)
    assert stats.refreshes == 1 or window
    assert shared.record().generation == 1


def test_a_pair_that_cannot_be_saved_is_used_and_reported_and_saved_when_the_store_is_back(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, server: OwnRedis | OwnPostgres
) -> None:
    holder, *others = fleet.crew(3, tokens=strict_server.sign_in(ttl=-1.0), retry_for=SOON)
    holder.pause("saving")
    asked = holder.get(10)
    holder.paused()
    waiting = [other.get(10) for other in others]
    for other in others:
        other.waits(10)
    server.stop()
    holder.go_on()

    assert asked.outcomes == {"200": 10}, "it was bought, so it is used"
    assert holder.get(10).outcomes == {"200": 10}
    holder.saw("SaveFailed")
    failed = holder.events("SaveFailed")[0]
    assert (failed["generation"], failed["cause"]) == (1, "TokenStoreUnavailable")
    assert together(waiting) == {"TokenStoreUnavailable": 20}
    server.start()

    until(lambda: shared.record().generation == 1)
    for other in others:
        until(lambda other=other: other.get(10).outcomes == {"200": 10})  # type: ignore[misc]
    stats = strict_server.stats
    assert (stats.refreshes, stats.replays, stats.reuses) == (1, 0, 0)
    until(lambda: not shared.is_leased())


def test_a_pair_that_was_saved_at_last_is_not_the_last_one(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, server: OwnRedis | OwnPostgres
) -> None:
    holder, other = fleet.crew(2, tokens=strict_server.sign_in(ttl=-1.0), retry_for=SOON)
    holder.pause("saving")
    asked = holder.get(10)
    holder.paused()
    server.stop()
    holder.go_on()
    assert asked.outcomes == {"200": 10}
    strict_server.expire()

    assert holder.get(10).outcomes == {"TokenStoreUnavailable": 10}, "unsaved tokens are not spent"
    assert strict_server.stats.refreshes == 1
    server.start()

    for worker in (holder, other):
        until(lambda worker=worker: worker.get(10).outcomes == {"200": 10})  # type: ignore[misc]
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses) == (2, 2, 0)
    assert shared.record().generation == 2


def test_a_sign_out_while_the_store_is_down_holds_and_is_known_to_all_when_it_is_back(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, server: OwnRedis | OwnPostgres
) -> None:
    leaves, stays = fleet.crew(2, tokens=strict_server.sign_in(), retry_for=SOON)
    warm([leaves, stays])
    server.stop()

    assert leaves.do("sign_out")["error"] == "TokenStoreUnavailable"
    assert leaves.get(5).outcomes == {"SessionEnded signed_out": 5}
    assert stays.get(5).outcomes == {"200": 5}
    server.start()

    until(lambda: shared.record().ended == "signed_out")
    until(lambda: stays.get(1).outcomes == {"SessionEnded signed_out": 1})
    assert leaves.get(1).outcomes == {"SessionEnded signed_out": 1}


def test_a_sign_in_while_the_store_is_down_is_refused_and_can_be_repeated(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, server: OwnRedis | OwnPostgres
) -> None:
    signs_in, other = fleet.crew(2, tokens=strict_server.sign_in(ttl=-1.0), retry_for=SOON)
    server.stop()
    tokens = written(strict_server.sign_in())

    assert signs_in.do("sign_in", tokens=tokens)["error"] == "TokenStoreUnavailable"
    server.start()
    signs_in.ok("sign_in", tokens=tokens)

    assert together([worker.get(10) for worker in (signs_in, other)]) == {"200": 20}
    assert strict_server.stats.refreshes == 0


def warm(crew: Iterable[Started]) -> None:
    """Have each worker know its tokens."""
    for worker in crew:
        assert worker.get(1).outcomes == {"200": 1}


def generation(worker: Worker) -> int:
    """Return how often the tokens of a worker were renewed."""
    return int(worker.do("tokens")["generation"])

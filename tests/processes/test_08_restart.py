"""A restart with the seed of last month, a seed that differs, and a sign-out that the others hear of."""

from __future__ import annotations

import pytest

from keyturn.testing import StrictServer
from tests.processes.fleet import Fleet, together
from tests.processes.settings import written
from tests.processes.stores import EVERY_KIND, NOTIFYING, Shared
from tests.waiting import until

pytestmark = pytest.mark.processes


@pytest.mark.parametrize("store_url", EVERY_KIND, indirect=True)
def test_a_restart_with_a_spent_seed_uses_the_newer_record(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    seed = strict_server.sign_in(ttl=-1.0)
    first = fleet.one(tokens=seed)
    assert first.get(1).outcomes == {"200": 1}
    epoch = shared.record().epoch
    first.leave()

    again = fleet.crew(3, tokens=seed)

    assert together([worker.get(10) for worker in again]) == {"200": 30}
    assert [worker.do("tokens")["generation"] for worker in again] == [1] * 3
    assert {worker.do("tokens")["epoch"] for worker in again} == {epoch}
    assert (strict_server.stats.refreshes, strict_server.stats.reuses) == (1, 0)
    assert shared.record().version == (epoch, 1)


def test_a_restart_with_a_spent_seed_whose_successor_has_expired_refreshes_that(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    seed = strict_server.sign_in(ttl=-1.0)
    first = fleet.one(tokens=seed)
    assert first.get(1).outcomes == {"200": 1}
    first.leave()
    strict_server.expire()

    again = fleet.crew(3, tokens=seed)

    assert together([worker.get(10) for worker in again]) == {"200": 30}
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses) == (2, 2, 0)
    assert shared.record().generation == 2


def test_a_seed_that_differs_is_used_only_where_the_caller_says_so(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    first = fleet.one(tokens=strict_server.sign_in(ttl=-1.0))
    assert first.get(1).outcomes == {"200": 1}
    before = shared.record()
    other_seed = strict_server.sign_in("alice again")

    careful = fleet.one(tokens=other_seed)
    assert careful.get(1).outcomes == {"200": 1}
    assert shared.record() == before

    wilful = fleet.one(tokens=other_seed, reseed=True)
    assert wilful.get(1).outcomes == {"200": 1}
    after = shared.record()
    assert (after.generation, after.epoch != before.epoch) == (0, True)

    strict_server.revoke("alice")
    until(lambda: first.get(1).outcomes == {"200": 1})
    assert first.do("tokens")["epoch"] == after.epoch
    assert strict_server.stats.reuses == 0


@pytest.mark.parametrize("store_url", NOTIFYING, indirect=True)
def test_who_is_to_use_a_seed_is_not_given_the_tokens_that_lie_there_meanwhile(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    assert fleet.one(tokens=strict_server.sign_in()).get(1).outcomes == {"200": 1}
    wilful = fleet.one(tokens=strict_server.sign_in("alice again"), reseed=True)
    wilful.pause("leased")
    asked = wilful.get(10)
    assert wilful.paused() == "leased"

    shared.put(shared.record())  # of which it is told
    wilful.do("wait", kind="Adopted", timeout=0.3)  # which would be wrong
    wilful.go_on()

    assert asked.outcomes == {"200": 10}
    assert wilful.do("tokens")["epoch"] == shared.record().epoch
    assert wilful.events("Adopted") == []


def test_a_seed_that_was_used_is_not_used_again_though_the_caller_says_so(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    seed = strict_server.sign_in(ttl=-1.0)
    first = fleet.one(tokens=seed, reseed=True)
    assert first.get(1).outcomes == {"200": 1}
    before = shared.record()
    first.leave()

    again = fleet.one(tokens=seed, reseed=True)

    assert again.get(1).outcomes == {"200": 1}
    assert shared.record() == before
    assert (strict_server.stats.refreshes, strict_server.stats.reuses) == (1, 0)


@pytest.mark.parametrize("ends", [False, True], ids=["a sign-in", "a sign-out"])
def test_a_seed_does_not_undo_what_somebody_did_before_it_was_used(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, ends: bool
) -> None:
    assert fleet.one(tokens=strict_server.sign_in("earlier")).get(1).outcomes == {"200": 1}
    worker = fleet.one(tokens=strict_server.sign_in("the seed"), reseed=True)
    if ends:
        worker.ok("sign_out")
    else:
        worker.ok("sign_in", tokens=written(strict_server.sign_in("alice")))
    done = shared.record()
    strict_server.expire()

    outcomes = worker.get(1).outcomes

    assert shared.record().epoch == done.epoch
    assert outcomes == ({"SessionEnded signed_out": 1} if ends else {"200": 1})
    assert shared.record().generation == done.generation + (not ends)


def test_a_seed_does_not_undo_the_sign_in_that_follows_a_sign_out(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    worker = fleet.one(tokens=strict_server.sign_in("the seed"), reseed=True)
    worker.ok("sign_out")
    other = fleet.one()
    other.ok("sign_in", tokens=written(strict_server.sign_in("alice")))
    signed_in = shared.record()

    until(lambda: worker.get(1).outcomes == {"200": 1})

    assert shared.record() == signed_in


@pytest.mark.parametrize("reseed", [False, True], ids=["", "reseed"])
def test_a_seed_does_not_undo_a_sign_out(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, reseed: bool
) -> None:
    seed = strict_server.sign_in()
    first = fleet.one(tokens=seed)
    assert first.get(1).outcomes == {"200": 1}
    first.ok("sign_out")
    tombstone = shared.record()
    assert tombstone.ended == "signed_out"
    first.leave()

    again = fleet.one(tokens=seed, reseed=reseed)

    assert again.get(1).outcomes == {"SessionEnded signed_out": 1}
    assert shared.record() == tombstone
    again.ok("sign_in", tokens=written(strict_server.sign_in()))
    assert again.get(1).outcomes == {"200": 1}
    assert strict_server.stats.refreshes == 0


def test_a_sign_out_is_seen_by_the_others_before_their_next_refresh(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    first, *others = fleet.crew(4, tokens=strict_server.sign_in())
    assert together([worker.get(1) for worker in (first, *others)]) == {"200": 4}

    first.ok("sign_out")
    strict_server.expire()

    assert together([other.get(10) for other in others]) == {"SessionEnded signed_out": 30}
    assert strict_server.stats.refreshes == 0


@pytest.mark.parametrize("store_url", NOTIFYING, indirect=True)
def test_a_sign_out_is_seen_at_once_where_the_store_tells_of_it(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    first, *others = fleet.crew(4, tokens=strict_server.sign_in(ttl=3600.0))
    assert together([worker.get(1) for worker in (first, *others)]) == {"200": 4}

    first.ok("sign_out")

    for other in others:
        until(lambda other=other: other.do("tokens")["epoch"] is None)  # type: ignore[misc]
    assert together([other.get(10) for other in others]) == {"SessionEnded signed_out": 30}


def test_a_sign_in_after_a_sign_out_is_everyones(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    first, *others = fleet.crew(4, tokens=strict_server.sign_in())
    assert together([worker.get(1) for worker in (first, *others)]) == {"200": 4}
    first.ok("sign_out")
    strict_server.expire()
    assert together([other.get(1) for other in others]) == {"SessionEnded signed_out": 3}

    others[0].ok("sign_in", tokens=written(strict_server.sign_in()))

    for worker in (first, *others):
        until(lambda worker=worker: worker.get(1).outcomes == {"200": 1})  # type: ignore[misc]
    assert strict_server.stats.refreshes == 0

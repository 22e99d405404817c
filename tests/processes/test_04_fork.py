"""A process forks while it holds the lease: the child does not keep it, and goes on as one of many."""

from __future__ import annotations

import pytest

from keyturn.testing import StrictServer
from tests.processes.fleet import Fleet, together
from tests.processes.stores import Shared
from tests.waiting import until

pytestmark = pytest.mark.processes

WINDOW = 4.0


def test_the_lease_of_a_killed_parent_is_free_though_its_child_lives(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    strict_server.configure(window=WINDOW)
    parent, other = fleet.crew(2, tokens=strict_server.sign_in(ttl=-1.0), window=WINDOW)
    parent.pause("leased")
    parent.get(1)
    parent.paused()
    child = fleet.child_of(parent)
    assert shared.is_leased()

    parent.kill()
    if not shared.lease_is_timed:
        until(lambda: not shared.is_leased())
    assert other.get(10).outcomes == {"200": 10}

    assert child.get(10).outcomes == {"200": 10}
    assert strict_server.stats.refreshes == 1, "the child was given what the other bought"
    strict_server.expire()
    assert child.get(10).outcomes == {"200": 10}
    assert other.get(10).outcomes == {"200": 10}
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses) == (2, 2, 0)
    assert shared.record().generation == 2


@pytest.mark.parametrize("place", ["marked", "saving"])
def test_inside_the_window_the_child_buys_what_its_killed_parent_lost(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, place: str
) -> None:
    strict_server.configure(window=WINDOW)
    parent = fleet.one(tokens=strict_server.sign_in(ttl=-1.0), window=WINDOW)
    parent.ok("pause", at=place)
    parent.get(1)
    parent.paused()
    child = fleet.child_of(parent)

    parent.kill()

    assert child.get(10).outcomes == {"200": 10}
    stats = strict_server.stats
    assert (stats.rotations, stats.reuses) == (1, 0)
    assert shared.record().generation == 1


def test_without_a_window_the_child_does_not_send_what_its_killed_parent_may_have_spent(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    parent = fleet.one(tokens=strict_server.sign_in(ttl=-1.0), timeout=1.0)
    parent.pause("answered")
    parent.get(1)
    parent.paused()
    child = fleet.child_of(parent)

    parent.kill()

    assert child.get(10).outcomes == {"OutcomeUnknown": 10}
    stats = strict_server.stats
    assert (stats.refreshes, stats.reuses) == (1, 0)
    assert shared.record().generation == 0


@pytest.mark.parametrize("place", ["leased", "answered"])
def test_a_fork_in_the_middle_of_a_refresh_disturbs_neither_parent_nor_child(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, place: str
) -> None:
    parent, other = fleet.crew(2, tokens=strict_server.sign_in(ttl=-1.0))
    parent.ok("pause", at=place)
    asked = [parent.get(10)]
    parent.paused()
    child = fleet.child_of(parent)
    asked += [child.get(10), other.get(10)]
    other.waits(10)
    assert shared.is_leased(), "the parent's lease is not the child's to give up"

    parent.go_on()

    assert together(asked) == {"200": 30}
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses) == (1, 1, 0)
    assert shared.record().generation == 1
    strict_server.expire()
    assert together([worker.get(10) for worker in (parent, child, other)]) == {"200": 30}
    assert strict_server.stats.refreshes == 2


def test_a_child_outlives_its_parent_and_holds_a_lease_of_its_own(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    parent, other = fleet.crew(2, tokens=strict_server.sign_in())
    assert together([parent.get(1), other.get(1)]) == {"200": 2}
    child = fleet.child_of(parent)
    parent.kill()
    strict_server.expire()
    strict_server.hold_refresh()

    asked = [child.get(10)]
    strict_server.wait_for(refreshes=1)
    assert shared.is_leased()
    asked += [other.get(10)]
    other.saw("Waiting", 10)
    strict_server.release()

    assert together(asked) == {"200": 20}
    stats = strict_server.stats
    assert (stats.refreshes, stats.reuses) == (1, 0)

"""The harness itself: a worker asks, pauses, stops, forks and ends as it is told."""

from __future__ import annotations

import pytest

from keyturn.testing import StrictServer
from tests.processes.callers import at_once
from tests.processes.fleet import Fleet, Yard, together
from tests.processes.handles import Gone

pytestmark = pytest.mark.processes


def test_all_callers_of_a_worker_wait_for_the_one_refresh(
    strict_server: StrictServer, lone_fleet: Fleet
) -> None:
    worker = lone_fleet.one(tokens=strict_server.sign_in(ttl=-1.0))
    strict_server.hold_refresh()

    asked = worker.get(50, loops=4, threads=4)
    worker.waits(50, loops=4, threads=4)
    strict_server.release()

    assert asked.outcomes == {"200": 50}
    assert at_once(50, loops=4, threads=4) == 7 + 7 + 6 + 6 + 4
    assert strict_server.stats.refreshes == 1
    assert worker.do("tokens")["generation"] == 1
    assert [one["kind"] for one in worker.events("Refreshed")] == ["Refreshed"]


def test_a_worker_pauses_where_it_is_told_and_is_killed_there(
    strict_server: StrictServer, lone_fleet: Fleet
) -> None:
    before, after = (lone_fleet.one(tokens=strict_server.sign_in(ttl=-1.0)) for _ in range(2))
    before.pause("sending")
    after.pause("answered")

    unsent, unread = before.get(1), after.get(1)

    assert (before.paused(), after.paused()) == ("sending", "answered")
    assert strict_server.stats.rotations == 1
    assert unsent.is_open
    assert unread.is_open
    before.kill()
    after.go_on()
    with pytest.raises(Gone):
        unsent.answer()
    assert unread.outcomes == {"200": 1}


def test_a_stopped_worker_answers_once_it_goes_on(strict_server: StrictServer, lone_fleet: Fleet) -> None:
    worker = lone_fleet.one(tokens=strict_server.sign_in())
    worker.stop()

    asked = worker.get(3)

    with pytest.raises(TimeoutError, match="no answer to get"):
        asked.answer(timeout=0.1)
    worker.go_on_after_stop()
    assert together([asked]) == {"200": 3}


def test_a_forked_worker_is_a_worker(strict_server: StrictServer, lone_fleet: Fleet) -> None:
    worker = lone_fleet.one(tokens=strict_server.sign_in())

    child = lone_fleet.child_of(worker)

    assert child.pid != worker.pid
    assert child.get(2).outcomes == worker.get(2).outcomes == {"200": 2}
    assert child.do("renew")["error"] == "RefreshAfterFork"


def test_an_error_comes_with_what_it_carries(strict_server: StrictServer, lone_fleet: Fleet) -> None:
    worker = lone_fleet.one(tokens=strict_server.sign_in(ttl=-1.0))
    strict_server.drop_refresh()

    answer = worker.do("get_tokens")

    assert (answer["error"], answer["status"]) == ("OutcomeUnknown", None)
    assert worker.events("Failed")[0]["cause"] == "OutcomeUnknown"
    worker.ok("sign_out")
    assert worker.get(1).outcomes == {"SessionEnded signed_out": 1}


def test_a_worker_that_is_told_no_more_ends_without_a_complaint() -> None:
    yard = Yard()
    workers = [yard.take() for _ in range(2)]
    for worker in workers:
        yard.take_back(worker)

    yard.close()

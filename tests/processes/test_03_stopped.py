"""The process that refreshes is stopped, for longer than its lease, and goes on: its late save loses.

A lease that an operating system or a database sees to lasts as long as its
holder, a stopped one included, or as its connection; the lease of Redis ends.
"""

from __future__ import annotations

import pytest

from keyturn.testing import StrictServer
from tests.processes.fleet import Fleet, together
from tests.processes.handles import Asked, Started
from tests.processes.settings import written
from tests.processes.stores import NOTIFYING, TIMED, Shared, connections_of, terminate
from tests.waiting import until

pytestmark = pytest.mark.processes

WINDOW = 8.0
LEASE_ENDS = pytest.mark.parametrize("store_url", ["postgresql", *TIMED], indirect=True)
LEASE_LASTS = pytest.mark.parametrize("store_url", ["file", "sqlite", "postgresql", "keyring"], indirect=True)


@LEASE_ENDS
def test_a_save_that_comes_after_the_lease_has_ended_loses_and_its_process_goes_on_with_the_winners_pair(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    strict_server.configure(window=WINDOW)
    holder, other = fleet.crew(2, tokens=strict_server.sign_in(ttl=-1.0), window=WINDOW)
    late = stopped_before_its_save(holder)
    end_its_lease(shared)

    assert other.get(10).outcomes == {"200": 10}, "it takes over, and is answered inside the window"
    saved = shared.record()
    assert saved.generation == 1
    goes_on(holder)

    assert late.outcomes == {"200": 10}
    assert shared.record() == saved
    agree(strict_server, holder, other)
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.replays, stats.reuses) == (2, 1, 1, 0)


@LEASE_ENDS
def test_without_a_window_nobody_takes_over_and_the_late_save_is_what_everyone_was_waiting_for(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    tokens = strict_server.sign_in(ttl=-1.0)
    holder, other = fleet.one(tokens=tokens, timeout=2.0), fleet.one(tokens=tokens)
    late = stopped_before_its_save(holder)
    end_its_lease(shared)

    assert other.get(10).outcomes == {"OutcomeUnknown": 10}
    goes_on(holder)

    assert late.outcomes == {"200": 10}
    until(lambda: other.get(1).outcomes == {"200": 1})
    agree(strict_server, holder, other)
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses) == (1, 1, 0)
    assert shared.record().generation == 1


@LEASE_LASTS
def test_while_the_holder_is_stopped_others_say_so_and_afterwards_everyone_is_answered(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    holder, other, patient = fleet.crew(3, tokens=strict_server.sign_in(ttl=-1.0))
    other.open(**fleet.settings(timeout=0.5, retry_for=0.5))
    late = stopped_before_its_save(holder)
    waiting = patient.get(10)
    patient.waits(10)

    assert other.get(10).outcomes == {"TokenStoreUnavailable": 10}
    goes_on(holder)

    assert together([late, waiting]) == {"200": 20}
    assert other.get(10).outcomes == {"200": 10}
    agree(strict_server, holder, other)
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses) == (1, 1, 0)


def test_while_the_holder_is_stopped_a_token_that_is_still_valid_is_used(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    holder, other = fleet.crew(2, tokens=strict_server.sign_in(ttl=60.0), lifetime=400.0)
    assert together([worker.get(1) for worker in (holder, other)]) == {"200": 2}
    used = stopped_before_its_save(holder)

    assert other.get(10).outcomes == {"200": 10}
    assert other.do("tokens")["generation"] == 0
    goes_on(holder)

    assert used.outcomes == {"200": 10}
    until(lambda: holder.do("tokens")["generation"] == 1)
    until(lambda: other.get(1).outcomes == {"200": 1} and other.do("tokens")["generation"] == 1)
    assert strict_server.stats.refreshes == 1


def test_a_save_that_comes_after_a_new_sign_in_loses(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    tokens = strict_server.sign_in()
    holder, other = fleet.one(tokens=tokens), fleet.one(tokens=tokens, timeout=0.2)
    refused(strict_server, holder, other)
    late = stopped_before_its_save(holder)

    other.ok("sign_in", tokens=written(strict_server.sign_in()))
    signed_in = shared.record()
    assert signed_in.generation == 0
    goes_on(holder)

    assert late.outcomes == {"SessionEnded replaced": 10}
    assert shared.record() == signed_in
    assert holder.get(10).outcomes == {"200": 10}, "the first process goes on with the new sign-in"
    agree(strict_server, holder, other)
    assert strict_server.stats.refreshes == 1


def test_a_save_that_comes_after_a_sign_out_loses(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    tokens = strict_server.sign_in()
    holder, other = fleet.one(tokens=tokens), fleet.one(tokens=tokens, timeout=0.2)
    refused(strict_server, holder, other)
    late = stopped_before_its_save(holder)

    other.ok("sign_out")
    tombstone = shared.record()
    assert tombstone.ended == "signed_out"
    goes_on(holder)

    assert late.outcomes == {"SessionEnded signed_out": 10}
    assert shared.record() == tombstone
    assert holder.get(1).outcomes == {"SessionEnded signed_out": 1}


def test_a_save_that_comes_after_a_sign_out_and_a_new_sign_in_loses(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    tokens = strict_server.sign_in()
    holder, other = fleet.one(tokens=tokens), fleet.one(tokens=tokens, timeout=0.2)
    refused(strict_server, holder, other)
    late = stopped_before_its_save(holder)

    other.ok("sign_out")
    other.ok("sign_in", tokens=written(strict_server.sign_in()))
    signed_in = shared.record()
    goes_on(holder)

    assert late.outcomes == {"SessionEnded replaced": 10}
    assert shared.record() == signed_in
    assert holder.get(10).outcomes == {"200": 10}
    agree(strict_server, holder, other)


def test_who_waited_for_a_first_token_is_given_that_of_a_sign_in_that_came_first(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    tokens = strict_server.sign_in(ttl=-1.0)
    holder, other = fleet.one(tokens=tokens), fleet.one(tokens=tokens, timeout=0.2)
    late = stopped_before_its_save(holder)

    other.ok("sign_in", tokens=written(strict_server.sign_in()))
    signed_in = shared.record()
    goes_on(holder)

    assert late.outcomes == {"200": 10}
    assert shared.record() == signed_in
    agree(strict_server, holder, other)


@pytest.mark.parametrize("store_url", NOTIFYING, indirect=True)
def test_who_waits_for_a_first_token_is_never_given_one_that_has_expired(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    tokens = strict_server.sign_in(ttl=-1.0)
    first, other = fleet.one(tokens=tokens), fleet.one(tokens=tokens, timeout=0.2)
    first.pause("leased")
    waiting = first.get(10)
    assert first.paused() == "leased"

    other.ok("sign_in", tokens=written(strict_server.sign_in(ttl=-1.0)))
    first.go_on()

    assert waiting.outcomes == {"200": 10}
    assert strict_server.stats.refused == 0


@LEASE_ENDS
def test_a_process_that_was_stopped_before_it_sent_anything_sends_it_when_it_goes_on(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    holder = fleet.one(tokens=strict_server.sign_in(ttl=-1.0), timeout=2.0)
    holder.pause("marked")
    late = holder.get(10)
    assert holder.paused() == "marked"
    holder.stop()
    end_its_lease(shared)
    until(lambda: not shared.is_leased())
    goes_on(holder)

    assert late.outcomes == {"200": 10}
    assert strict_server.stats.refreshes == 1


def refused(server: StrictServer, *workers: Started) -> None:
    """Have workers use the tokens at hand, which from then on are refused."""
    assert together([worker.get(1) for worker in workers]) == {"200": len(workers)}
    server.expire()


def stopped_before_its_save(holder: Started) -> Asked:
    """Have a worker refresh for ten requests, and stop it when the pair is bought and not saved."""
    holder.pause("saving")
    asked = holder.get(10)
    assert holder.paused() == "saving"
    holder.stop()
    return asked


def end_its_lease(shared: Shared) -> None:
    """Have PostgreSQL end the connection whose session holds the lease; elsewhere it ends by itself."""
    if shared.kind == "postgresql":
        (holding,) = [connection for connection, holds in connections_of(shared.url) if holds]
        terminate(shared.url, holding)


def goes_on(holder: Started) -> None:
    """Let a stopped worker go on, and with its save."""
    asked = holder.ask("go_on")
    holder.go_on_after_stop()
    asked.answer()


def agree(server: StrictServer, *workers: Started) -> None:
    """Check that all workers hold the same tokens: that their requests carry the same one."""
    for worker in workers:
        assert worker.get(1).outcomes == {"200": 1}
    last = [one for one in server.seen if one.path in {"/task", "/thread"}][-len(workers) :]
    assert len({one.headers["authorization"] for one in last}) == 1

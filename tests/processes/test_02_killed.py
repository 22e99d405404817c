"""The process that refreshes is killed: a window saves the session, and without one nobody guesses.

Two stages are the server's, the rest is in `pauses.py`.

    held        the server has the exchange, and has not rotated
    rotated     the server has rotated, and its answer is on the way
"""

from __future__ import annotations

from typing import Any

import pytest

from keyturn.testing import StrictServer
from tests.processes.fleet import Fleet, together
from tests.processes.handles import Asked, Started
from tests.processes.pauses import PLACES
from tests.processes.settings import written
from tests.processes.stores import EVERY_KIND, Shared
from tests.waiting import until

pytestmark = pytest.mark.processes

BEFORE = ("marked", "sending")  # the exchange was never sent, which nobody else can know
DURING = ("held", "rotated")
AFTER = ("answered", "saving")
LOST = (*BEFORE, *DURING, *AFTER)


@pytest.mark.parametrize("stage", LOST)
def test_inside_the_window_the_others_buy_what_the_killed_process_lost(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, stage: str
) -> None:
    window = a_window(shared)
    strict_server.configure(window=window)
    holder, *others = fleet.crew(3, tokens=strict_server.sign_in(ttl=-1.0), window=window)
    bring(holder, strict_server, stage)
    asked = [other.get(10) for other in others]
    for other in others:
        other.waits(10)

    holder.kill()
    strict_server.release()

    assert together(asked) == {"200": 20}
    stats = strict_server.stats
    assert (stats.rotations, stats.reuses, stats.sessions_live) == (1, 0, 1)
    assert stats.refreshes <= 2
    record = shared.record()
    assert (record.generation, record.marker) == (1, None)
    assert {other.do("tokens")["generation"] for other in others} == {1}


@pytest.mark.parametrize("stage", ["marked", "rotated", "saving"])
def test_without_a_window_nobody_sends_what_may_be_spent(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, stage: str
) -> None:
    holder, *others = a_holder_and_others(fleet, shared, tokens=strict_server.sign_in(ttl=-1.0))
    bring(holder, strict_server, stage)
    arrived = strict_server.stats.refreshes
    asked = [other.get(10) for other in others]
    for other in others:
        other.waits(10)

    holder.kill()
    strict_server.release()

    assert together(asked) == {"OutcomeUnknown": 20}
    assert together([other.get(10) for other in others]) == {"OutcomeUnknown": 20}
    stats = strict_server.stats
    assert (stats.refreshes, stats.reuses, stats.sessions_live) == (arrived, 0, 1)
    assert shared.record().generation == 0

    signs_in, watches = others
    signs_in.ok("sign_in", tokens=written(strict_server.sign_in()))
    assert signs_in.get(1).outcomes == {"200": 1}
    until(lambda: watches.get(1).outcomes == {"200": 1})
    assert fleet.one().get(1).outcomes == {"200": 1}, "and so does who comes later"
    assert strict_server.stats.refreshes == arrived


def test_without_a_window_one_may_insist_and_heals_all(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    holder, *others = a_holder_and_others(fleet, shared, tokens=strict_server.sign_in(ttl=-1.0))
    bring(holder, strict_server, "sending")
    holder.kill()
    assert together([other.get(5) for other in others]) == {"OutcomeUnknown": 10}

    assert others[0].do("retry_unknown")["generation"] == 1

    until(lambda: others[1].get(1).outcomes == {"200": 1})
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses, stats.sessions_live) == (1, 1, 0, 1)
    assert shared.record().generation == 1


@pytest.mark.parametrize("has_window", [False, True], ids=["no window", "a window"])
def test_a_token_that_is_still_valid_is_used_whatever_became_of_the_refresh(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, has_window: bool
) -> None:
    window = a_window(shared) if has_window else 0.0
    strict_server.configure(window=window)
    old = strict_server.sign_in(ttl=60.0)
    holder, *others = a_holder_and_others(fleet, shared, tokens=old, lifetime=400.0, window=window)
    assert together([worker.get(1) for worker in (holder, *others)]) == {"200": 3}
    bring(holder, strict_server, "saving")
    holder.kill()

    assert together([other.get(10) for other in others]) == {"200": 20}

    if has_window:
        until(lambda: shared.record().generation == 1)
    else:
        others[0].saw("Failed")
        assert others[0].events("Failed")[0]["cause"] == "OutcomeUnknown"
    assert together([other.get(10) for other in others]) == {"200": 20}
    stats = strict_server.stats
    assert (stats.rotations, stats.reuses, stats.refused, stats.sessions_live) == (1, 0, 0, 1)


@pytest.mark.parametrize("stage", ["leased", "marking", "saved"])
def test_a_process_that_has_spent_nothing_or_saved_all_costs_the_others_nothing_without_a_window(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, stage: str
) -> None:
    holder, *others = a_holder_and_others(fleet, shared, tokens=strict_server.sign_in(ttl=-1.0))
    bring(holder, strict_server, stage)
    asked = [other.get(10) for other in others]
    holder.kill()

    assert together(asked) == {"200": 20}

    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses, stats.sessions_live) == (1, 1, 0, 1)
    assert shared.record().generation == 1


@pytest.mark.parametrize("store_url", EVERY_KIND, indirect=True)
def test_everyone_is_killed_in_turn_and_the_last_one_lives(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    window, deaths = 60.0, 1 if shared.lease_is_timed else 3
    strict_server.configure(window=window)
    tokens = strict_server.sign_in(ttl=-1.0)
    for worker in fleet.crew(deaths, tokens=tokens, window=window, timeout=1.0):
        bring(worker, strict_server, "answered")
        worker.kill()

    last = fleet.one(tokens=tokens, window=window)
    assert last.get(10).outcomes == {"200": 10}

    stats = strict_server.stats
    assert (stats.rotations, stats.refreshes, stats.reuses) == (1, deaths + 1, 0)
    assert shared.record().generation == 1


def a_window(shared: Shared) -> float:
    """Return for how long the server is to answer retries: short where a killed process's lease lasts."""
    return 8.0 if shared.lease_is_timed else 60.0


def a_holder_and_others(fleet: Fleet, shared: Shared, **settings: Any) -> list[Started]:
    """Return three workers. The first one's lease is short where it outlives its holder."""
    holder = fleet.one(**settings, timeout=1.0 if shared.lease_is_timed else 30.0)
    return [holder, *fleet.crew(2, **settings)]


def bring(holder: Started, server: StrictServer, stage: str) -> Asked:
    """Have a worker refresh for ten requests, and stop it at `stage`, so that no time-out saves it there."""
    assert stage in (*PLACES, *DURING)
    if stage in PLACES:
        holder.ok("pause", at=stage)
    else:
        server.hold_refresh("before" if stage == "held" else "after")
    before = server.stats
    asked = holder.get(10)
    if stage in PLACES:
        assert holder.paused() == stage
    elif stage == "held":
        server.wait_for(refreshes=before.refreshes + 1)
    else:
        server.wait_for(rotations=before.rotations + 1)
    holder.stop()
    return asked

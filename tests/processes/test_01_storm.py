"""Eight processes share one refresh token, with many requests each: one refresh, and an answer for all."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet

from keyturn.testing import StrictServer
from tests.processes.callers import at_once
from tests.processes.fleet import Fleet, together
from tests.processes.stores import EVERY_KIND, Shared

pytestmark = pytest.mark.processes

PROCESSES, REQUESTS = 8, 50
EVERYONE = {"200": PROCESSES * REQUESTS}
EVERYWHERE = pytest.mark.parametrize("store_url", EVERY_KIND, indirect=True)
SHAPES = pytest.mark.parametrize(
    "shape", [{"loops": 1, "threads": 0}, {"loops": 4, "threads": 4}], ids=["a loop", "4 loops, 4 threads"]
)


@EVERYWHERE
@SHAPES
def test_a_token_that_has_expired_is_refreshed_once_for_all_processes(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, shape: dict[str, int]
) -> None:
    crew = fleet.crew(PROCESSES, tokens=strict_server.sign_in(ttl=-1.0))
    strict_server.hold_refresh()

    asked = [worker.get(REQUESTS, **shape) for worker in crew]
    for worker in crew:
        worker.waits(REQUESTS, **shape)
    strict_server.wait_for(refreshes=1)
    strict_server.release()

    assert together(asked) == EVERYONE
    refreshed_once(strict_server, shared)
    assert {worker.do("tokens")["generation"] for worker in crew} == {1}
    assert sum(len(worker.events("Refreshed")) for worker in crew) == 1


@EVERYWHERE
@SHAPES
def test_a_token_that_the_api_refuses_is_refreshed_once_for_all_processes(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, shape: dict[str, int]
) -> None:
    crew = fleet.crew(PROCESSES, tokens=strict_server.sign_in())
    strict_server.expire()
    strict_server.hold_refresh()
    refused = PROCESSES * at_once(REQUESTS, **shape)
    strict_server.hold_api(refused)

    asked = [worker.get(REQUESTS, **shape) for worker in crew]
    strict_server.wait_for(timeout=50.0, refused=refused)
    for worker in crew:
        worker.waits(REQUESTS, **shape)
    strict_server.wait_for(refreshes=1)
    strict_server.release()

    assert together(asked) == EVERYONE
    refreshed_once(strict_server, shared)
    assert strict_server.stats.refused == refused


def test_who_is_refused_later_takes_what_another_process_has_bought(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    crew = fleet.crew(4, tokens=strict_server.sign_in())
    strict_server.expire()

    assert [worker.get(5).outcomes for worker in crew] == [{"200": 5}] * 4

    refreshed_once(strict_server, shared)


def test_expiry_after_expiry_costs_one_refresh_each(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    crew = fleet.crew(4, tokens=strict_server.sign_in(ttl=-1.0))
    for generation in range(1, 6):
        assert together([worker.get(10) for worker in crew]) == {"200": 40}
        assert shared.record().generation == generation
        strict_server.expire()

    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses, stats.sessions_live) == (5, 5, 0, 1)


def test_processes_that_know_of_no_tokens_use_those_in_the_store(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    first = fleet.one(tokens=strict_server.sign_in(ttl=-1.0))
    assert first.get(1).outcomes == {"200": 1}

    crew = fleet.crew(3)

    assert together([worker.get(10) for worker in crew]) == {"200": 30}
    refreshed_once(strict_server, shared)


def test_processes_that_have_the_keys_share_what_lies_encrypted_and_who_has_none_is_told(
    strict_server: StrictServer, fleet: Fleet, shared: Shared
) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    tokens = strict_server.sign_in(ttl=-1.0)
    before = fleet.crew(2, tokens=tokens, encryption_keys=[old])
    assert together([worker.get(10) for worker in before]) == {"200": 20}

    after = fleet.crew(2, tokens=tokens, encryption_keys=[old, new])
    without = fleet.one(tokens=tokens)

    assert together([worker.get(10) for worker in after]) == {"200": 20}
    assert without.get(1).outcomes == {"RefreshMisconfigured": 1}
    refreshed_once(strict_server, shared)


def refreshed_once(server: StrictServer, shared: Shared) -> None:
    """Check that there was one refresh in all, and that what it brought is what the store holds."""
    stats = server.stats
    assert (stats.refreshes, stats.rotations, stats.replays, stats.reuses) == (1, 1, 0, 0)
    assert stats.sessions_live == 1
    record = shared.record()
    assert (record.generation, record.marker, record.failure) == (1, None, None)

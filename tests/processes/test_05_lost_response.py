"""The answer to a refresh is lost on the wire: a window saves the session, and without one nobody guesses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from keyturn.testing import StrictServer
from tests.processes.fleet import Fleet, together
from tests.processes.handles import Started, Worker
from tests.processes.proxy import Proxy
from tests.processes.settings import written
from tests.processes.stores import Shared
from tests.waiting import until

pytestmark = pytest.mark.processes

WINDOW = 20.0
FOR_EVER = 1_000_000


@pytest.fixture
def wire(strict_server: StrictServer) -> Iterator[Proxy]:
    """What lies between the workers and the token end point."""
    with Proxy(strict_server.url) as proxy:
        yield proxy


@pytest.mark.parametrize("lost", [1, 2])
def test_with_a_window_the_session_lives_and_everybody_has_the_one_successor(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, wire: Proxy, lost: int
) -> None:
    strict_server.configure(window=WINDOW)
    crew = expired_crew(strict_server, fleet, wire, window=WINDOW)
    wire.drop_answers(lost)

    assert together([worker.get(10) for worker in crew]) == {"200": 40}

    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.replays) == (1 + lost, 1, lost)
    assert (stats.reuses, stats.sessions_live) == (0, 1)
    record = shared.record()
    assert (record.generation, record.marker) == (1, None)
    agree(strict_server, crew)


def test_with_a_window_an_answer_that_comes_too_late_is_as_good_as_lost(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, wire: Proxy
) -> None:
    strict_server.configure(window=WINDOW)
    crew = expired_crew(strict_server, fleet, wire, window=WINDOW, timeout=0.5)
    strict_server.hold_refresh("after")
    asked = [worker.get(10) for worker in crew]
    strict_server.wait_for(refreshes=2)
    strict_server.release()

    assert together(asked) == {"200": 40}

    stats = strict_server.stats
    assert (stats.rotations, stats.reuses, stats.sessions_live) == (1, 0, 1)
    assert stats.replays == stats.refreshes - 1
    assert shared.record().generation == 1
    agree(strict_server, crew)


def test_who_never_gets_an_answer_stops_asking_before_the_window_closes(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, wire: Proxy
) -> None:
    window = 2.0
    strict_server.configure(window=window)
    crew = expired_crew(strict_server, fleet, wire, window=window)
    wire.drop_answers(FOR_EVER)

    assert together([worker.get(10) for worker in crew]) == {"OutcomeUnknown": 40}

    marker = shared.record().marker
    assert marker is not None
    until(lambda: shared.now() > marker.at + window)
    asked = strict_server.stats.refreshes
    assert together([worker.get(10) for worker in crew]) == {"OutcomeUnknown": 40}
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.replays) == (asked, 1, asked - 1)
    assert (stats.reuses, stats.sessions_live) == (0, 1)
    assert shared.record().generation == 0


def test_without_a_window_the_outcome_is_unknown_to_all_and_nobody_asks_a_second_time(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, wire: Proxy
) -> None:
    old = strict_server.sign_in(ttl=-1.0)
    crew = expired_crew(strict_server, fleet, wire, tokens=old)
    wire.drop_answers()

    assert together([worker.get(10) for worker in crew]) == {"OutcomeUnknown": 40}

    late = fleet.one(tokens=old)
    assert together([worker.get(10) for worker in (*crew, late)]) == {"OutcomeUnknown": 50}
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses, stats.sessions_live) == (1, 1, 0, 1)
    assert shared.record().generation == 0

    crew[1].ok("sign_in", tokens=written(strict_server.sign_in()))
    heals(crew, late)
    assert strict_server.stats.refreshes == 1


def test_retry_unknown_in_one_process_heals_all_where_the_request_was_what_got_lost(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, wire: Proxy
) -> None:
    crew = expired_crew(strict_server, fleet, wire)
    wire.drop_requests()
    assert together([worker.get(10) for worker in crew]) == {"OutcomeUnknown": 40}
    assert strict_server.stats.refreshes == 0

    assert crew[2].ok("retry_unknown")["generation"] == 1

    heals(crew)
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses, stats.sessions_live) == (1, 1, 0, 1)
    agree(strict_server, crew)


def test_retry_unknown_of_a_spent_token_ends_the_session_for_all_and_a_sign_in_in_one_heals_all(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, wire: Proxy
) -> None:
    crew = expired_crew(strict_server, fleet, wire)
    wire.drop_answers()
    assert together([worker.get(10) for worker in crew]) == {"OutcomeUnknown": 40}

    answer = crew[0].do("retry_unknown")
    assert (answer["error"], answer["reason"]) == ("SessionEnded", "refused")
    for worker in crew:
        until(lambda worker=worker: worker.get(1).outcomes == {"SessionEnded refused": 1})  # type: ignore[misc]
    assert strict_server.stats.refreshes == 2
    assert shared.record().ended == "refused"

    crew[3].ok("sign_in", tokens=written(strict_server.sign_in()))
    heals(crew)
    assert strict_server.stats.refreshes == 2


def test_while_the_end_point_refuses_connections_nothing_is_spent_and_afterwards_there_is_one_refresh(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, wire: Proxy
) -> None:
    crew = expired_crew(strict_server, fleet, wire, retry_for=0.5)
    wire.close()
    assert together([worker.get(10) for worker in crew]) == {"RefreshUnavailable": 40}
    assert strict_server.stats.refreshes == 0
    wire.open()

    heals(crew)
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses) == (1, 1, 0)
    assert shared.record().generation == 1


def expired_crew(server: StrictServer, fleet: Fleet, wire: Proxy, **settings: object) -> list[Started]:
    """Return four workers whose refreshes go through `wire`."""
    if "tokens" not in settings:
        settings["tokens"] = server.sign_in(ttl=-1.0)
    return fleet.crew(4, token_url=f"{wire.url}/token", **settings)  # type: ignore[arg-type]


def heals(crew: list[Started], *others: Started) -> None:
    """Wait until each worker is answered."""
    for worker in (*crew, *others):
        until(lambda worker=worker: worker.get(10).outcomes == {"200": 10})  # type: ignore[misc]


def agree(server: StrictServer, workers: list[Worker] | list[Started]) -> None:
    """Check that all workers hold the same tokens: that their requests carry the same one."""
    for worker in workers:
        assert worker.get(1).outcomes == {"200": 1}
    last = [one for one in server.seen if one.path in {"/task", "/thread"}][-len(workers) :]
    assert len({one.headers["authorization"] for one in last}) == 1

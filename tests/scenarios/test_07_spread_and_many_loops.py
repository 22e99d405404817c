"""Scenario 7: refusals spread over time, and one `Credentials` under many event loops, trio and threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import trio

import keyturn
from keyturn.client import events
from keyturn.testing import StrictServer
from tests.kit import (
    HOSTS,
    Host,
    Log,
    Statuses,
    credentials_for,
    in_threads,
    storm_of_tasks,
    storm_of_threads,
)
from tests.waiting import WITHIN, aboard, patient_oauth2, start, until

Crowd = Callable[[Host, StrictServer, keyturn.Credentials], Statuses]

TASKS = 5
LOOPS = 4
THREADS = 20
CROWD = LOOPS * TASKS + TASKS + THREADS


@pytest.mark.parametrize("host", HOSTS, ids=str)
@pytest.mark.parametrize("storm", [storm_of_tasks, storm_of_threads], ids=["tasks", "threads"])
def test_refusals_that_are_spread_over_300_ms_cost_one_refresh_of_50_ms(
    strict_server: StrictServer, host: Host, storm: Callable[..., Statuses]
) -> None:
    count = 10  # as many as the storm of tasks has connections: all must arrive before one is answered
    strict_server.configure(refresh_delay=0.05, spread=0.3, spread_over=count)
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=600.0))
    strict_server.expire()
    strict_server.hold_api(count)

    assert storm(host, strict_server, credentials, count) == [200] * count

    stats = strict_server.stats
    assert (stats.refreshes, stats.answered, stats.refused) == (1, count, count)


async def _gather(host: Host, server: StrictServer, credentials: keyturn.Credentials) -> Statuses:
    async with host.async_client(server, credentials) as api:
        answers = await asyncio.gather(*(api.get(f"/loop/{i}") for i in range(TASKS)))
        return [answer.status_code for answer in answers]


async def _nursery(host: Host, server: StrictServer, credentials: keyturn.Credentials) -> Statuses:
    statuses: Statuses = []

    async def get(api: Any, i: int) -> None:
        statuses.append((await api.get(f"/trio/{i}")).status_code)

    async with host.async_client(server, credentials) as api, trio.open_nursery() as nursery:
        for i in range(TASKS):
            nursery.start_soon(get, api, i)
    return statuses


def _crowd(host: Host, server: StrictServer, credentials: keyturn.Credentials) -> Statuses:
    """Send from 4 event loops in 4 threads, from a trio loop and from 20 plain threads, all at once."""
    with host.client(server, credentials) as api:
        work: list[Callable[[], Statuses]] = [
            *[lambda: asyncio.run(_gather(host, server, credentials))] * LOOPS,
            lambda: trio.run(_nursery, host, server, credentials),
            *[lambda: [int(api.get("/thread").status_code)]] * THREADS,
        ]
        return [status for part in in_threads(len(work), lambda i: work[i]()) for status in part]


@pytest.mark.parametrize("host", HOSTS, ids=str)
def test_four_loops_trio_and_threads_share_the_one_refresh_of_an_expired_token(
    strict_server: StrictServer, host: Host
) -> None:
    log = Log()
    strict_server.configure(refresh_delay=0.05)
    strict_server.hold_refresh()
    credentials = credentials_for(
        strict_server, strict_server.sign_in(ttl=-1.0), grant=patient_oauth2(strict_server), on_event=log
    )

    crowd = start(lambda: _crowd(host, strict_server, credentials))
    until(lambda: aboard(credentials) == CROWD)
    strict_server.release()

    assert crowd.result(WITHIN) == [200] * CROWD
    stats = strict_server.stats
    assert (stats.refreshes, stats.answered, stats.refused) == (1, CROWD, 0)
    until(lambda: bool(log.of(events.Refreshed)))
    (refreshed,) = log.of(events.Refreshed)
    assert refreshed.waiters == CROWD


@pytest.mark.parametrize("host", HOSTS, ids=str)
def test_four_loops_trio_and_threads_that_are_refused_together_refresh_once(
    strict_server: StrictServer, host: Host
) -> None:
    strict_server.configure(refresh_delay=0.05)
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=600.0))
    strict_server.expire()
    strict_server.hold_api(CROWD)

    crowd = start(lambda: _crowd(host, strict_server, credentials))

    assert crowd.result(WITHIN) == [200] * CROWD
    stats = strict_server.stats
    assert (stats.refreshes, stats.answered, stats.refused) == (1, CROWD, CROWD)


@pytest.mark.parametrize("host", HOSTS, ids=str)
def test_loop_after_loop_may_come_and_go(strict_server: StrictServer, host: Host) -> None:
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=600.0))
    for generation in range(1, 4):
        strict_server.expire()
        assert asyncio.run(_gather(host, strict_server, credentials)) == [200] * TASKS
        assert credentials.tokens is not None
        assert credentials.tokens.generation == 2 * generation - 1
        strict_server.expire()
        assert trio.run(_nursery, host, strict_server, credentials) == [200] * TASKS
        assert credentials.tokens.generation == 2 * generation
    assert strict_server.stats.refreshes == 6

"""Scenario 8, callers who leave: cancelled, out of time, or with their whole loop. The flight goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, Literal

import pytest
import trio

import keyturn
from keyturn.client import events
from keyturn.errors import RefreshTimeout
from keyturn.testing import StrictServer
from tests.kit import HOSTS, Host, Log, Statuses, credentials_for, run_in_loop
from tests.waiting import WITHIN, aboard, patient_oauth2, start, until

FOLLOWERS = 5

Stage = Literal["before", "after"]
STAGES: list[Stage] = ["before", "after"]
on_every_host = pytest.mark.parametrize("host", HOSTS, ids=str)
at_every_stage = pytest.mark.parametrize("stage", STAGES, ids=["unrotated", "rotated"])


def held(server: StrictServer, stage: Stage) -> keyturn.Credentials:
    """Return credentials that need a refresh, which the server will hold."""
    server.configure(refresh_delay=0.05)
    server.hold_refresh(stage)
    return credentials_for(server, server.sign_in(ttl=-1.0), grant=patient_oauth2(server))


def reached(server: StrictServer, stage: Stage) -> None:
    """Return when the refresh is where the server holds it."""
    server.wait_for(WITHIN, **{"before": {"refreshes": 1}, "after": {"rotations": 1}}[stage])


def check_one_refresh(server: StrictServer, credentials: keyturn.Credentials) -> None:
    """Check that there was one refresh, and that it came home."""
    assert credentials.tokens is not None
    assert credentials.tokens.generation == 1
    assert server.alive(credentials.tokens)
    stats = server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses, stats.refused) == (1, 1, 0, 0)


def elsewhere(host: Host, server: StrictServer, credentials: keyturn.Credentials) -> list[Future[Statuses]]:
    """Send from a thread, from another asyncio loop and from a trio loop."""

    def thread() -> Statuses:
        with host.client(server, credentials) as api:
            return [api.get("/thread").status_code]

    async def task() -> Statuses:
        async with host.async_client(server, credentials) as api:
            return [(await api.get("/task")).status_code]

    return [start(thread), start(lambda: asyncio.run(task())), start(lambda: trio.run(task))]


@on_every_host
@at_every_stage
def test_a_first_caller_who_is_cancelled_takes_nobody_along(
    strict_server: StrictServer, host: Host, stage: Stage
) -> None:
    credentials = held(strict_server, stage)

    async def main() -> Statuses:
        async with host.async_client(strict_server, credentials) as api:
            leader = asyncio.create_task(api.get("/leader"))
            await asyncio.to_thread(reached, strict_server, stage)
            followers = [asyncio.create_task(api.get(f"/{i}")) for i in range(FOLLOWERS)]
            others = elsewhere(host, strict_server, credentials)
            await asyncio.to_thread(until, lambda: aboard(credentials) == 1 + FOLLOWERS + 3)
            leader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leader
            assert aboard(credentials) == FOLLOWERS + 3
            await asyncio.to_thread(strict_server.release)
            answers = [answer.status_code for answer in await asyncio.gather(*followers)]
            for other in others:
                answers += await asyncio.to_thread(other.result, WITHIN)
            return answers

    assert run_in_loop(main) == [200] * (FOLLOWERS + 3)
    check_one_refresh(strict_server, credentials)


@on_every_host
@at_every_stage
def test_a_first_caller_under_trio_who_is_cancelled_takes_nobody_along(
    strict_server: StrictServer, host: Host, stage: Stage
) -> None:
    credentials = held(strict_server, stage)
    statuses: Statuses = []

    async def main() -> None:
        async def follow(api: Any) -> None:
            statuses.append((await api.get("/follower")).status_code)

        async with host.async_client(strict_server, credentials) as api, trio.open_nursery() as nursery:
            leaving = trio.CancelScope()

            async def lead() -> None:
                with leaving:
                    await api.get("/leader")

            nursery.start_soon(lead)
            await trio.to_thread.run_sync(reached, strict_server, stage)
            for _ in range(FOLLOWERS):
                nursery.start_soon(follow, api)
            others = elsewhere(host, strict_server, credentials)
            await trio.to_thread.run_sync(until, lambda: aboard(credentials) == 1 + FOLLOWERS + 3)
            leaving.cancel()
            await trio.to_thread.run_sync(until, lambda: aboard(credentials) == FOLLOWERS + 3)
            await trio.to_thread.run_sync(strict_server.release)
            for other in others:
                statuses.extend(await trio.to_thread.run_sync(other.result, WITHIN))
        assert leaving.cancelled_caught

    trio.run(main)
    assert statuses == [200] * (FOLLOWERS + 3)
    check_one_refresh(strict_server, credentials)


@on_every_host
@at_every_stage
def test_a_refresh_whose_every_caller_was_cancelled_is_there_for_the_next(
    strict_server: StrictServer, host: Host, stage: Stage
) -> None:
    credentials = held(strict_server, stage)

    async def main() -> None:
        async with host.async_client(strict_server, credentials) as api:
            callers = [asyncio.create_task(api.get(f"/{i}")) for i in range(FOLLOWERS)]
            await asyncio.to_thread(reached, strict_server, stage)
            for caller in callers:
                caller.cancel()
            gone = await asyncio.gather(*callers, return_exceptions=True)
            assert all(isinstance(one, asyncio.CancelledError) for one in gone)
            assert aboard(credentials) == 0
            strict_server.release()
            assert (await api.get("/next")).status_code == 200

    run_in_loop(main)
    check_one_refresh(strict_server, credentials)


@on_every_host
@at_every_stage
def test_a_first_caller_who_times_out_takes_nobody_along(
    strict_server: StrictServer, host: Host, stage: Stage
) -> None:
    credentials = held(strict_server, stage)

    async def main() -> Statuses:
        async with host.async_client(strict_server, credentials) as api:

            async def lead() -> None:
                async with asyncio.timeout(None) as scope:
                    expire.append(scope)
                    await api.get("/leader")

            expire: list[asyncio.Timeout] = []
            leader = asyncio.create_task(lead())
            await asyncio.to_thread(reached, strict_server, stage)
            others = elsewhere(host, strict_server, credentials)
            await asyncio.to_thread(until, lambda: aboard(credentials) == 1 + 3)
            expire[0].reschedule(0.0)
            with pytest.raises(TimeoutError):
                await leader
            await asyncio.to_thread(strict_server.release)
            return [status for other in others for status in await asyncio.to_thread(other.result, WITHIN)]

    assert run_in_loop(main) == [200] * 3
    check_one_refresh(strict_server, credentials)


def _in_thread(credentials: keyturn.Credentials, timeout: float | None) -> int:
    return credentials.get_tokens(timeout=timeout).generation


def _in_asyncio(credentials: keyturn.Credentials, timeout: float | None) -> int:
    return asyncio.run(credentials.aget_tokens(timeout=timeout)).generation


def _in_trio(credentials: keyturn.Credentials, timeout: float | None) -> int:
    async def main() -> int:
        return (await credentials.aget_tokens(timeout=timeout)).generation

    return trio.run(main)


EVERYWHERE = [_in_thread, _in_asyncio, _in_trio]


@at_every_stage
@pytest.mark.parametrize("leader", EVERYWHERE)
def test_each_waiter_keeps_a_deadline_of_its_own(
    strict_server: StrictServer, stage: Stage, leader: Callable[[keyturn.Credentials, float | None], int]
) -> None:
    credentials = held(strict_server, stage)
    patient = [
        start(lambda wait=wait, timeout=timeout: wait(credentials, timeout))  # type: ignore[misc]
        for wait in EVERYWHERE
        for timeout in (None, WITHIN)
    ]
    until(lambda: aboard(credentials) == len(patient))

    for timeout in (-1.0, 0.0, 0.02):
        with pytest.raises(RefreshTimeout) as raised:
            leader(credentials, timeout)
        assert isinstance(raised.value, TimeoutError)
    assert aboard(credentials) == len(patient)
    reached(strict_server, stage)
    strict_server.release()

    assert [one.result(WITHIN) for one in patient] == [1] * len(patient)
    check_one_refresh(strict_server, credentials)


@at_every_stage
@pytest.mark.parametrize("leader", EVERYWHERE)
def test_a_refresh_whose_first_caller_timed_out_alone_is_there_for_the_next(
    strict_server: StrictServer, stage: Stage, leader: Callable[[keyturn.Credentials, float | None], int]
) -> None:
    credentials = held(strict_server, stage)
    with pytest.raises(RefreshTimeout):
        leader(credentials, 0.0)
    reached(strict_server, stage)
    strict_server.release()
    assert leader(credentials, WITHIN) == 1
    check_one_refresh(strict_server, credentials)


@pytest.mark.parametrize("wait", EVERYWHERE)
def test_who_runs_out_of_time_with_a_token_that_is_still_good_goes_on_with_it(
    strict_server: StrictServer, wait: Callable[[keyturn.Credentials, float | None], int]
) -> None:
    strict_server.hold_refresh()
    credentials = credentials_for(
        strict_server, strict_server.sign_in(ttl=600.0), grant=patient_oauth2(strict_server)
    )

    def longer() -> int:
        return credentials.get_tokens(timedelta(hours=1), timeout=None).generation

    waiting = start(longer)
    strict_server.wait_for(WITHIN, refreshes=1)
    assert credentials.get_tokens(timedelta(hours=1), timeout=0.0).generation == 0
    assert wait(credentials, 0.0) == 0, "who asks for no more than he has does not wait at all"
    strict_server.release()
    assert waiting.result(WITHIN) == 1
    check_one_refresh(strict_server, credentials)


@on_every_host
@at_every_stage
def test_asyncio_run_that_ends_in_the_middle_takes_nobody_along(
    strict_server: StrictServer, host: Host, stage: Stage
) -> None:
    credentials = held(strict_server, stage)
    end = threading.Event()

    async def main() -> None:
        api = host.async_client(strict_server, credentials)
        leaders = [asyncio.create_task(api.get(f"/leader/{i}")) for i in range(3)]
        await asyncio.to_thread(end.wait, WITHIN)
        assert not any(leader.done() for leader in leaders)

    first = start(lambda: asyncio.run(main()))
    reached(strict_server, stage)
    others = elsewhere(host, strict_server, credentials)
    until(lambda: aboard(credentials) == 3 + 3)
    end.set()
    first.result(WITHIN)
    assert aboard(credentials) == 3

    strict_server.release()

    assert [status for other in others for status in other.result(WITHIN)] == [200] * 3
    check_one_refresh(strict_server, credentials)


@at_every_stage
def test_a_loop_that_is_closed_over_its_waiting_tasks_takes_nobody_along(
    strict_server: StrictServer, stage: Stage
) -> None:
    credentials = held(strict_server, stage)
    loop = asyncio.new_event_loop()
    leader = loop.create_task(credentials.aget_tokens())
    loop.run_until_complete(asyncio.sleep(0))
    reached(strict_server, stage)
    others = elsewhere(HOSTS[0], strict_server, credentials)
    until(lambda: aboard(credentials) == 1 + 3)
    loop.close()

    strict_server.release()

    assert [status for other in others for status in other.result(WITHIN)] == [200] * 3
    check_one_refresh(strict_server, credentials)
    leader._log_destroy_pending = False  # type: ignore[attr-defined]
    leader.get_coro().close()


@pytest.mark.parametrize("stage", STAGES)
def test_the_callback_hears_of_a_refresh_that_nobody_waited_for(
    strict_server: StrictServer, stage: Stage
) -> None:
    log = Log()
    strict_server.hold_refresh(stage)
    credentials = credentials_for(
        strict_server, strict_server.sign_in(ttl=-1.0), grant=patient_oauth2(strict_server), on_event=log
    )
    with pytest.raises(RefreshTimeout):
        credentials.get_tokens(timeout=0.0)
    reached(strict_server, stage)
    strict_server.release()
    until(lambda: bool(log.of(events.Landing)))
    assert [type(event) for event in log.of(events.Landing)] == [events.Refreshed]
    check_one_refresh(strict_server, credentials)

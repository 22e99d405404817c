"""Event loops that come and go, one after another or of another make: the exchange runs on keyturn's own."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import trio

import keyturn
from keyturn.client import loop
from keyturn.client.httpx2 import Auth
from keyturn.testing import StrictServer
from tests.kit import credentials_for
from tests.waiting import WITHIN, aboard, patient_oauth2, start, until

Main = Callable[[], Coroutine[Any, Any, list[int]]]
TASKS = 10


def storm(server: StrictServer, credentials: keyturn.Credentials, tasks: int = TASKS) -> Main:
    """Return a coroutine function that sends requests from tasks of anyio, and returns their statuses."""

    async def main() -> list[int]:
        statuses: list[int] = []

        async def get(i: int) -> None:
            statuses.append((await api.get(f"/x/{i}")).status_code)

        auth = Auth(credentials)
        async with (
            httpx2.AsyncClient(base_url=server.url, auth=auth, verify=False, trust_env=False) as api,
            anyio.create_task_group() as group,
        ):
            for i in range(tasks):
                group.start_soon(get, i)
        return statuses

    return main


def exchanges_run_on_a_selector_loop() -> bool:
    """Tell whether the loop of the exchanges is asyncio's own selector loop."""
    answer: Future[bool] = Future()
    loop.call(lambda: answer.set_result(isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)))
    return answer.result(WITHIN)


def files() -> int:
    """Return how many files this process has open."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_hundred_runs_of_asyncio_share_credentials_and_leave_nothing_behind(
    strict_server: StrictServer,
) -> None:
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=-1.0))
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def main() -> list[int]:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        return await storm(strict_server, credentials, tasks=2)()

    asyncio.run(main())
    threads = threading.active_count()
    opened = files() if sys.platform == "linux" else 0
    for i in range(100):
        if i % 5 == 0:
            strict_server.expire()
        assert asyncio.run(main()) == [200] * 2

    assert strict_server.stats.refreshes == 1 + 20
    assert credentials.get_tokens().generation == 21
    assert threading.active_count() == threads
    if sys.platform == "linux":
        assert files() <= opened
    gc.collect()
    assert [one() for one in loops if one() is not None] == []
    until(lambda: credentials._flight is None)


def test_a_run_that_ends_in_the_middle_of_a_refresh_leaves_the_next_one_its_tokens(
    strict_server: StrictServer,
) -> None:
    strict_server.hold_refresh("after")
    credentials = credentials_for(
        strict_server, strict_server.sign_in(ttl=-1.0), grant=patient_oauth2(strict_server)
    )

    async def leave() -> None:
        waiting = [asyncio.ensure_future(credentials.aget_tokens()) for _ in range(TASKS)]
        await asyncio.to_thread(until, lambda: aboard(credentials) == TASKS)
        del waiting

    asyncio.run(leave())
    strict_server.wait_for(WITHIN, rotations=1)
    assert aboard(credentials) == 0
    strict_server.release()
    assert asyncio.run(storm(strict_server, credentials)()) == [200] * TASKS
    assert strict_server.stats.refreshes == 1


# Loops of another make


def with_uvloop(main: Main) -> list[int]:
    """Run on uvloop, as `uvloop.run` does."""
    uvloop = pytest.importorskip("uvloop")
    statuses: list[int] = uvloop.run(main())
    return statuses


RUNNERS: dict[str, Callable[[Main], list[int]]] = {
    "asyncio": lambda main: asyncio.run(main()),
    "uvloop": with_uvloop,
    "trio": lambda main: trio.run(main),
    "anyio-asyncio": lambda main: anyio.run(main),
    "anyio-uvloop": lambda main: anyio.run(main, backend_options={"use_uvloop": True}),
    "anyio-trio": lambda main: anyio.run(main, backend="trio"),
}


@pytest.mark.parametrize("runner", RUNNERS)
def test_tasks_of_every_kind_of_loop_share_one_refresh_that_runs_on_none_of_them(
    strict_server: StrictServer, runner: str
) -> None:
    if "uvloop" in runner:
        pytest.importorskip("uvloop")
    strict_server.hold_refresh()
    credentials = credentials_for(
        strict_server, strict_server.sign_in(ttl=-1.0), grant=patient_oauth2(strict_server)
    )

    running = start(lambda: RUNNERS[runner](storm(strict_server, credentials)))
    until(lambda: aboard(credentials) == TASKS)
    strict_server.release()

    assert running.result(WITHIN) == [200] * TASKS
    strict_server.expire()
    assert RUNNERS[runner](storm(strict_server, credentials)) == [200] * TASKS
    assert strict_server.stats.refreshes == 2
    assert exchanges_run_on_a_selector_loop()


@pytest.mark.usefixtures("no_loop_yet")
def test_an_event_loop_policy_of_the_users_is_his_alone(
    strict_server: StrictServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    uvloop = pytest.importorskip("uvloop")
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=-1.0))
    kinds: list[str] = []

    async def main() -> list[int]:
        kinds.append(type(asyncio.get_running_loop()).__module__)
        return await storm(strict_server, credentials)()

    monkeypatch.setattr(asyncio.events, "_event_loop_policy", uvloop.EventLoopPolicy())
    assert asyncio.run(main()) == [200] * TASKS
    assert kinds == ["uvloop"]
    assert exchanges_run_on_a_selector_loop()


@pytest.mark.parametrize("runner", ["asyncio", "uvloop"])
def test_a_blocking_call_inside_a_running_loop_blocks_and_does_not_hang(
    strict_server: StrictServer, runner: str
) -> None:
    if runner == "uvloop":
        pytest.importorskip("uvloop")
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=-1.0))

    async def main() -> list[int]:
        waiting = asyncio.ensure_future(credentials.aget_tokens())
        await asyncio.sleep(0)
        blocking = credentials.get_tokens(timeout=WITHIN)  # while a task of the same loop waits
        return [blocking.generation, (await waiting).generation]

    assert RUNNERS[runner](main) == [1, 1]
    assert strict_server.stats.refreshes == 1

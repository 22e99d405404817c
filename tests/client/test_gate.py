"""Gate and Turnstile: threads, tasks of any asyncio loop, and trio tasks at one door."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import types
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

import pytest
import trio
import trio.testing

from keyturn.client.gate import Gate, Turnstile
from tests.kit import in_threads
from tests.waiting import WITHIN, start, until


def in_asyncio(gate: Gate, tasks: int, timeout: float | None = None) -> list[bool]:
    async def main() -> list[bool]:
        return await asyncio.gather(*(gate.wait_async(timeout) for _ in range(tasks)))

    return asyncio.run(main())


def in_trio(gate: Gate, tasks: int, timeout: float | None = None) -> list[bool]:
    answers: list[bool] = []

    async def wait() -> None:
        answers.append(await gate.wait_async(timeout))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(wait)

    trio.run(main)
    return answers


def everywhere(gate: Gate) -> list[Future[list[bool]]]:
    """Wait in 3 threads, in 4 tasks of each of 3 asyncio loops, and in 4 of each of 2 trio runs."""
    return [
        *(start(lambda: [gate.wait()]) for _ in range(3)),
        *(start(lambda: in_asyncio(gate, 4)) for _ in range(3)),
        *(start(lambda: in_trio(gate, 4)) for _ in range(2)),
    ]


COUNT = 3 + 3 * 4 + 2 * 4


def test_one_opening_wakes_threads_tasks_of_several_loops_and_trio_tasks() -> None:
    gate = Gate()
    waiting = everywhere(gate)
    until(lambda: gate.waiters == COUNT)
    assert not gate.is_open

    gate.open()

    assert gate.is_open
    assert [answer for one in waiting for answer in one.result(WITHIN)] == [True] * COUNT
    assert gate.waiters == COUNT, "an open gate keeps the count of those whom it woke"


def test_an_open_gate_stops_nobody() -> None:
    gate = Gate()
    gate.open()
    answers = [answer for one in everywhere(gate) for answer in one.result(WITHIN)]
    assert answers == [True] * COUNT
    assert in_asyncio(gate, 1, 0.0) == in_trio(gate, 1, 0.0) == [gate.wait(0.0)] == [True]
    assert gate.waiters == 0


def test_opening_it_again_does_nothing() -> None:
    gate = Gate()
    waiting = everywhere(gate)
    until(lambda: gate.waiters == COUNT)
    in_threads(8, lambda _: gate.open())
    assert [answer for one in waiting for answer in one.result(WITHIN)] == [True] * COUNT
    assert gate.waiters == COUNT


def test_a_loop_is_woken_once_however_many_of_its_tasks_wait() -> None:
    calls: list[object] = []

    class Counting(asyncio.SelectorEventLoop):
        def _write_to_self(self) -> None:  # the wake-up of a loop from another thread
            calls.append(self)
            super()._write_to_self()  # type: ignore[misc]

    gate = Gate()

    async def main() -> list[bool]:
        return await asyncio.gather(*(gate.wait_async() for _ in range(100)))

    with asyncio.Runner(loop_factory=Counting) as runner:
        waiting = start(lambda: runner.run(main()))
        until(lambda: gate.waiters == 100)
        calls.clear()
        gate.open()
        assert waiting.result(WITHIN) == [True] * 100
        assert len(calls) == 1


def test_nobody_is_missed_who_comes_while_it_opens() -> None:
    for _ in range(100):
        gate = Gate()
        work: list[Callable[[], object]] = [
            gate.open,
            gate.wait,
            gate.wait,
            lambda gate=gate: in_asyncio(gate, 3),  # type: ignore[misc]
        ]
        in_threads(len(work), lambda i: work[i]())  # noqa: B023 - they are over before the next round


def test_a_loop_that_has_closed_strands_nobody_else() -> None:
    gate = Gate()
    dead = asyncio.new_event_loop()
    task = dead.create_task(gate.wait_async())
    dead.run_until_complete(asyncio.sleep(0))
    dead.close()  # with its task still waiting, as a loop that is torn down in the middle
    waiting = everywhere(gate)
    until(lambda: gate.waiters == COUNT + 1)

    gate.open()

    assert [answer for one in waiting for answer in one.result(WITHIN)] == [True] * COUNT
    _bury(task)


def test_a_loop_that_stands_still_strands_nobody_else() -> None:
    gate = Gate()
    still = asyncio.new_event_loop()
    task = still.create_task(gate.wait_async())
    still.run_until_complete(asyncio.sleep(0))
    waiting = everywhere(gate)
    until(lambda: gate.waiters == COUNT + 1)

    gate.open()

    assert [answer for one in waiting for answer in one.result(WITHIN)] == [True] * COUNT
    assert still.run_until_complete(task), "and its own waiters are served when it goes on"
    still.close()


def test_asyncio_run_that_ends_in_the_middle_takes_its_waiters_along() -> None:
    gate = Gate()

    async def main() -> None:
        waiting = asyncio.ensure_future(gate.wait_async())
        await asyncio.sleep(0)
        assert gate.waiters == 1
        del waiting

    asyncio.run(main())
    assert gate.waiters == 0
    gate.open()


def test_a_trio_run_that_has_finished_strands_nobody_else() -> None:
    gate = Gate()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gate.wait_async)
            await trio.testing.wait_all_tasks_blocked()
            assert gate.waiters == 1
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert gate.waiters == 0
    waiting = everywhere(gate)
    until(lambda: gate.waiters == COUNT)
    gate.open()
    assert [answer for one in waiting for answer in one.result(WITHIN)] == [True] * COUNT


@pytest.mark.parametrize("begun", [{"trio"}, {"trio", "trio.lowlevel"}], ids=sorted)
def test_asyncio_tasks_wait_while_another_thread_is_importing_trio(
    monkeypatch: pytest.MonkeyPatch, begun: set[str]
) -> None:
    for name in ("trio", "trio.lowlevel"):
        monkeypatch.delitem(sys.modules, name)
    for name in begun:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    gate = Gate()
    waiting = start(lambda: in_asyncio(gate, 3))
    until(lambda: gate.waiters == 3 or waiting.done())
    gate.open()
    assert waiting.result(WITHIN) == [True] * 3


async def _cancelled(gate: Gate) -> None:
    waiting = asyncio.ensure_future(gate.wait_async())
    await asyncio.sleep(0)
    assert gate.waiters == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def _timed_out(gate: Gate) -> None:
    assert not await gate.wait_async(0.0)
    assert not await gate.wait_async(0.001)
    assert not await gate.wait_async(-1.0)


@pytest.mark.parametrize("leave", [_cancelled, _timed_out])
def test_a_task_that_gives_up_leaves_without_a_trace(
    leave: Callable[[Gate], Coroutine[Any, Any, None]],
) -> None:
    gate = Gate()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave(gate))
    loop.close()
    assert gate.waiters == 0
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None, "a gate that stays shut holds on to nobody who has left"


def test_a_task_that_gives_up_leaves_its_neighbours_waiting() -> None:
    gate = Gate()

    async def main() -> list[bool]:
        staying = asyncio.gather(*(gate.wait_async() for _ in range(3)))
        leaving = asyncio.ensure_future(gate.wait_async())
        await asyncio.sleep(0)
        leaving.cancel()
        assert not await gate.wait_async(0.0)
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert gate.waiters == 3
        gate.open()
        return await staying

    assert asyncio.run(main()) == [True] * 3


def test_a_task_that_is_cancelled_as_the_gate_opens_is_cancelled_and_no_other() -> None:
    gate = Gate()

    async def main() -> None:
        leaving, staying = (asyncio.ensure_future(gate.wait_async()) for _ in range(2))
        await asyncio.sleep(0)
        gate.open()
        leaving.cancel()  # before the loop comes to wake it
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert await staying

    asyncio.run(main())


def test_a_trio_task_that_gives_up_leaves_its_neighbours_waiting() -> None:
    gate = Gate()
    answers: list[bool] = []

    async def stay() -> None:
        answers.append(await gate.wait_async())

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stay)
            await trio.testing.wait_all_tasks_blocked()
            assert not await gate.wait_async(0.0)
            with trio.CancelScope() as scope:
                scope.cancel()
                await gate.wait_async()
            assert scope.cancelled_caught
            assert gate.waiters == 1
            gate.open()

    trio.run(main)
    assert answers == [True]


def test_a_thread_that_gives_up_is_told_so_and_leaves_its_neighbours_waiting() -> None:
    gate = Gate()
    staying = start(gate.wait)
    until(lambda: gate.waiters == 1)
    assert [gate.wait(0.0), gate.wait(0.001), gate.wait(-1.0)] == [False] * 3
    assert gate.waiters == 1
    gate.open()
    assert staying.result(WITHIN) is True


def test_a_turnstile_with_nobody_in_it_is_open() -> None:
    turnstile = Turnstile()
    for _ in range(3):
        gate = turnstile.enter()
        assert gate.is_open
        turnstile.leave(gate)


def test_a_turnstile_lets_one_through_at_a_time_in_order_of_arrival() -> None:
    turnstile = Turnstile()
    gates = [turnstile.enter() for _ in range(5)]
    for i, gate in enumerate(gates):
        assert [one.is_open for one in gates[i:]] == [True] + [False] * (4 - i)
        turnstile.leave(gate)


def test_who_gives_up_in_the_queue_neither_blocks_nor_hurries_who_stands_behind() -> None:
    turnstile = Turnstile()
    first, second, third, fourth = (turnstile.enter() for _ in range(4))
    turnstile.leave(second)
    assert [first.is_open, third.is_open, fourth.is_open] == [True, False, False]
    turnstile.leave(first)
    assert [third.is_open, fourth.is_open] == [True, False]
    turnstile.leave(fourth)
    turnstile.leave(third)
    assert turnstile.enter().is_open


def test_a_turnstile_keeps_threads_asyncio_and_trio_tasks_apart() -> None:
    turnstile = Turnstile()
    inside: list[int] = []
    most: list[int] = []

    def pass_by(gate: Gate) -> None:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0)
        inside.pop()
        turnstile.leave(gate)

    def thread() -> None:
        gate = turnstile.enter()
        assert gate.wait(WITHIN)
        pass_by(gate)

    async def task() -> None:
        gate = turnstile.enter()
        assert await gate.wait_async(WITHIN)
        pass_by(gate)

    async def tasks() -> None:
        await asyncio.gather(*(task() for _ in range(20)))

    async def trio_tasks() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(task)

    work = [thread] * 12 + [lambda: asyncio.run(tasks())] * 2 + [lambda: trio.run(trio_tasks)] * 2
    in_threads(len(work), lambda i: work[i]())

    assert most == [1] * (12 + 2 * 20 + 2 * 20)


def _bury(task: asyncio.Task[bool]) -> None:
    """Let go of the task of a closed loop without asyncio's complaint."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    task.get_coro().close()

"""Lanes: many schedules, several at a time, each lane with a store and a strict server of its own."""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field

from keyturn.testing import StrictServer
from tests.processes.schedules import ending, judge
from tests.processes.schedules.generator import schedule
from tests.processes.schedules.grounds import Ground, ground
from tests.processes.schedules.nursery import Nursery
from tests.processes.schedules.stage import Stage


@dataclass
class Played:
    """What came of one schedule."""

    seed: int
    seconds: float
    counts: Counter[str]
    broken: list[str]
    report: str = ""


@dataclass
class Result:
    """What came of all."""

    played: list[Played] = field(default_factory=list)

    @property
    def failures(self) -> list[Played]:
        """Return those that broke an invariant."""
        return [one for one in self.played if one.broken]

    @property
    def counts(self) -> Counter[str]:
        """Return what happened in all of them."""
        return sum((one.counts for one in self.played), Counter[str]())


def run(
    kind: str,
    seeds: Iterable[int],
    *,
    lanes: int,
    address: str | None = None,
    told: Callable[[Played], None] = lambda _: None,
    stop_after: int = 10,
) -> Result:
    """Play the schedules of `seeds`; give up after so many failures."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for seed in seeds:
        waiting.put(seed)
    result, lock = Result(), threading.Lock()
    errors: list[BaseException] = []

    def lane(nursery: Nursery, server: StrictServer, place: Ground) -> None:
        try:
            while len(result.failures) < stop_after and not errors:
                try:
                    seed = waiting.get_nowait()
                except queue.Empty:
                    return
                one = play(kind, seed, nursery, server, place)
                with lock:
                    result.played.append(one)
                    told(one)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    with ExitStack() as stack:
        nursery = stack.enter_context(Nursery(kind))
        threads = []
        for _ in range(min(lanes, waiting.qsize())):
            server = stack.enter_context(StrictServer())
            place = stack.enter_context(ground(kind, address))
            threads.append(threading.Thread(target=lane, args=(nursery, server, place), daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    return result


def play(kind: str, seed: int, nursery: Nursery, server: StrictServer, place: Ground) -> Played:
    """Play one schedule to its end, and judge it."""
    began = time.monotonic()
    plan = schedule(kind, seed, place.faults)
    stage = Stage(plan, nursery, server, place)
    account = stage.account
    try:
        stage.play()
        ending.end(stage)
        broken = judge.judged(account)
    except Exception:  # noqa: BLE001 - a failure like any other, with its schedule
        broken = [*account.broken, f"the schedule could not be played: {traceback.format_exc()}"]
    finally:
        place.mend()
        stage.clear()
    report = f"{plan}\n\n{account.text}"
    if broken:
        report = "\n\n".join([stage.logs(), report, *(f"BROKEN: {one}" for one in broken)])
    stage.sweep()
    counts = Counter(step.do for step in plan.steps)
    counts.update(
        {
            "schedules": 1,
            "steps": len(plan.steps),
            "processes": len(account.processes),
            "exchanges": account.stats.refreshes,
            "answered": account.stats.answered,
            "signed in at the end": len(account.signed_in_at_the_end),
            f"window {plan.window:g}": 1,
        }
    )
    return Played(seed, time.monotonic() - began, counts, broken, report)

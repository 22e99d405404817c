"""What the auth layer costs a request with a fresh token, over the bare client with a static header.

    uv run --group bench python -m benchmarks.client_overhead

The transport answers from memory. The variants of a host take turns in rounds
of a few calls, in another order each time; the minimum of the rounds counts,
in CPU time of this process, which another process cannot lengthen as it does
wall time. "bare again" is the noise of the figures; "one header" an auth
class that writes the header and nothing else: what any must cost.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.memory_clients import HOSTS, Variants

ROUNDS, CALLS = 600, 10
URL = "http://127.0.0.1:9/statistics"


@dataclass(frozen=True)
class Cost:
    """What one client costs on one host, in seconds a request."""

    host: str
    client: str
    bare: float
    total: float

    @property
    def over(self) -> float:
        """Return the seconds over the bare client."""
        return self.total - self.bare


def _round(get: Callable[[str], Any]) -> float:
    started = time.process_time()
    for _ in range(CALLS):
        get(URL)
    return (time.process_time() - started) / CALLS


async def _async_round(get: Callable[[str], Any]) -> float:
    started = time.process_time()
    for _ in range(CALLS):
        await get(URL)
    return (time.process_time() - started) / CALLS


def _minima(rounds: dict[str, Callable[[], float]], count: int) -> dict[str, float]:
    """Run every variant once a round, each round in another order; return the minimum of each."""
    minima = dict.fromkeys(rounds, float("inf"))
    names = list(rounds)
    gc.collect()
    gc.disable()
    for i in range(count):
        random.shuffle(names)
        for name in names:
            minima[name] = min(minima[name], rounds[name]())
        if i % 20 == 0:
            gc.collect()
    gc.enable()
    return minima


def measure(rounds: int = ROUNDS) -> list[Cost]:
    """Return the costs of every client on every host."""
    costs = []
    for host, make in HOSTS.items():
        loop = asyncio.new_event_loop()
        try:
            costs += _host(host, make, loop, rounds)
        finally:
            loop.close()
    return costs


def _host(
    host: str, make: Callable[[], Variants], loop: asyncio.AbstractEventLoop, rounds: int
) -> list[Cost]:
    is_async = host.endswith("tasks")
    run = loop.run_until_complete

    async def made() -> Variants:
        return make()  # some clients want to be made where they run

    variants = run(made()) if is_async else make()
    drivers: dict[str, Callable[[], float]] = {
        name: (lambda get=get: run(_async_round(get))) if is_async else (lambda get=get: _round(get))  # type: ignore[misc]
        for name, (get, _) in variants.items()
    }
    minima = _minima(drivers, rounds)
    for _, close in variants.values():
        closing = close()
        if is_async:
            run(closing)
    return [Cost(host, name, minima["bare"], total) for name, total in minima.items() if name != "bare"]


def main() -> None:
    """Print the costs."""
    parser = argparse.ArgumentParser(description="The CPU time that an auth layer costs.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    for cost in measure(parser.parse_args().rounds):
        sys.stdout.write(
            f"{cost.host:18} {cost.client:24} {cost.over * 1e6:+6.2f} us over {cost.bare * 1e6:6.1f} us\n"
        )


if __name__ == "__main__":
    main()

"""How long the last waiter waits on, once a refresh is there.

    uv run python benchmarks/client_wakeup.py

The grant is a callable that waits until every caller waits for it, notes the
time and returns. Each caller notes the time when it has its tokens. The figure
is from the exchange's end to the last caller resumed, the median and the
worst of the rounds. `bare` is the floor: the same callers waiting for one
`asyncio.Future` each, or one `threading.Event`, set by another thread.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import threading
import time
from collections.abc import Callable

import httpx2

import keyturn

ROUNDS, TASKS, THREADS = 25, 1000, 200


class Exchange:
    """A grant that answers when `count` callers wait."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.waiting = 0
        self.ended = 0.0
        self.lock = threading.Lock()
        self.everyone = threading.Event()

    def arrive(self) -> None:
        """Count a caller who is about to wait."""
        with self.lock:
            self.waiting += 1
            if self.waiting == self.count:
                self.everyone.set()

    async def __call__(self, tokens: keyturn.Tokens, http: httpx2.AsyncClient) -> keyturn.Tokens:
        """Answer once everyone is there."""
        await asyncio.to_thread(self.everyone.wait)
        await asyncio.sleep(0.05)  # the last to arrive is waiting now
        self.ended = time.perf_counter()
        return keyturn.Tokens("fresh", tokens.refresh, time.time() + 600)


def credentials(exchange: Exchange) -> keyturn.Credentials:
    """Return credentials whose token has expired."""
    return keyturn.Credentials(
        exchange, tokens=keyturn.Tokens("old", "r", time.time() - 1), origins=["http://127.0.0.1"]
    )


def tasks() -> float:
    """Return the seconds to the last of the tasks."""
    exchange = Exchange(TASKS)
    creds = credentials(exchange)

    async def caller() -> float:
        exchange.arrive()
        await creds.aget_tokens()
        return time.perf_counter()

    async def main() -> list[float]:
        return await asyncio.gather(*(caller() for _ in range(TASKS)))

    return max(asyncio.run(main())) - exchange.ended


def threads() -> float:
    """Return the seconds to the last of the threads."""
    exchange = Exchange(THREADS)
    creds = credentials(exchange)

    def caller() -> float:
        exchange.arrive()
        creds.get_tokens()
        return time.perf_counter()

    return last_of(caller) - exchange.ended


def bare_tasks() -> float:
    """Return the same for tasks that wait for a future each."""
    futures: list[asyncio.Future[None]] = []
    ended = 0.0

    def wake() -> None:
        for future in futures:
            future.set_result(None)

    def end(loop: asyncio.AbstractEventLoop) -> None:
        nonlocal ended
        ended = time.perf_counter()
        loop.call_soon_threadsafe(wake)

    async def caller() -> float:
        future = asyncio.get_running_loop().create_future()
        futures.append(future)
        await future
        return time.perf_counter()

    async def main() -> list[float]:
        callers = asyncio.gather(*(caller() for _ in range(TASKS)))
        threading.Timer(0.1, end, [asyncio.get_running_loop()]).start()
        return await callers

    return max(asyncio.run(main())) - ended


def bare_threads() -> float:
    """Return the same for threads that wait for one event."""
    event = threading.Event()
    ended = 0.0

    def end() -> None:
        nonlocal ended
        ended = time.perf_counter()
        event.set()

    def caller() -> float:
        event.wait()
        return time.perf_counter()

    threading.Timer(0.2, end).start()
    return last_of(caller) - ended


def last_of(caller: Callable[[], float]) -> float:
    """Run a caller in each thread; return the latest time."""
    times: list[float] = []
    running = [threading.Thread(target=lambda: times.append(caller())) for _ in range(THREADS)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return max(times)


def main() -> None:
    """Print the table, the rounds of all rows interleaved."""
    rows: dict[str, Callable[[], float]] = {
        f"{TASKS} tasks, keyturn": tasks,
        f"{TASKS} tasks, bare": bare_tasks,
        f"{THREADS} threads, keyturn": threads,
        f"{THREADS} threads, bare": bare_threads,
    }
    measured: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(ROUNDS):
        for name, run in rows.items():
            measured[name].append(run())
    for name, seconds in measured.items():
        median, worst = statistics.median(seconds) * 1e3, max(seconds) * 1e3
        sys.stdout.write(f"{name:24} median {median:6.2f} ms, worst {worst:6.2f} ms\n")


if __name__ == "__main__":
    main()

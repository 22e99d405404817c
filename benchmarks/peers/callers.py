"""Many requests at once, from threads or from the tasks of a loop, and what became of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Protocol

from benchmarks.peers.peer import TIMEOUT, Connect, Get, Peer

Outcome = int | str  # a status, or the name of an exception


class Callers(Protocol):
    """Whoever sends through one client."""

    def start(self, urls: Sequence[str], timeout: float = TIMEOUT) -> list[Future[Outcome]]:
        """Send a GET to each URL, all at once."""
        ...

    def close(self) -> None:
        """Close the client."""
        ...


class Threads:
    """A thread to each request."""

    def __init__(self, connect: Connect, *, each: bool = False) -> None:
        self._connect: Callable[[], Any] = connect
        self._pool = ThreadPoolExecutor(256)
        self._clients = ExitStack()
        self._shared: Get | None = None if each else self._clients.enter_context(self._connect())

    def start(self, urls: Sequence[str], timeout: float = TIMEOUT) -> list[Future[Outcome]]:
        """Let as many threads as there are URLs go at once."""
        barrier = threading.Barrier(len(urls))
        gets = [self._shared or self._clients.enter_context(self._connect()) for _ in urls]

        def one(get: Get, url: str) -> Outcome:
            barrier.wait()
            try:
                return int(get(url, timeout=timeout))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the outcome
                return type(error).__name__

        return [self._pool.submit(one, get, url) for get, url in zip(gets, urls, strict=True)]

    def close(self) -> None:
        """Close the client, and let the threads end."""
        self._clients.close()
        self._pool.shutdown(wait=False)


class Tasks:
    """A task to each request, on an event loop of their own."""

    def __init__(self, connect: Connect) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._entered: Any = connect()
        self._get: Get = self._run(self._entered.__aenter__()).result()

    def _run(self, work: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def start(self, urls: Sequence[str], timeout: float = TIMEOUT) -> list[Future[Outcome]]:
        """Start as many tasks as there are URLs; to cancel a future cancels its task."""

        async def one(url: str) -> Outcome:
            try:
                return int(await self._get(url, timeout=timeout))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the outcome
                return type(error).__name__

        return [self._run(one(url)) for url in urls]

    def close(self) -> None:
        """Close the client, and end the loop."""
        self._run(self._entered.__aexit__(None, None, None)).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def callers(peer: Peer, connect: Connect) -> Callers:
    """Return what sends through one client of the peer."""
    return Tasks(connect) if peer.kind == "tasks" else Threads(connect, each=peer.each)

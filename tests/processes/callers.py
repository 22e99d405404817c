"""The storm inside of a worker: event loops and plain threads that share its credentials."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol

import httpx2

import keyturn
from keyturn.client.httpx2 import Auth

_ANSWERED_WITHIN = 60.0


class _Answer(Protocol):
    @property
    def status_code(self) -> int: ...


def send(
    credentials: keyturn.Credentials,
    url: str,
    count: int,
    *,
    loops: int = 1,
    threads: int = 0,
    label: str = "",
) -> list[str]:
    """Send `count` requests, spread evenly over `loops` event loops and `threads` threads; return what came.

    A loop sends its share at once, a thread one after another. What comes of
    a request is its status or the name of its error. With a `label`, those of
    a loop say in their query which request they are.
    """
    barrier = threading.Barrier(loops + threads)
    shares = spread(count, loops + threads)
    outcomes: list[str] = []

    def run(caller: Callable[[int], list[str]], share: int) -> None:
        barrier.wait(_ANSWERED_WITHIN)
        outcomes.extend(caller(share))

    def in_loop(share: int) -> list[str]:
        return asyncio.run(_at_once(credentials, url, share, label))

    def in_thread(share: int) -> list[str]:
        with httpx2.Client(auth=Auth(credentials), **_options(url)) as api:  # type: ignore[arg-type]
            return [_outcome(lambda: api.get("/thread")) for _ in range(share)]

    callers = [in_loop] * loops + [in_thread] * threads
    running = [
        threading.Thread(target=run, args=(caller, share), daemon=True)
        for caller, share in zip(callers, shares, strict=True)
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return outcomes


def at_once(count: int, *, loops: int = 1, threads: int = 0) -> int:
    """Return how many of these requests are under way, or wait, at the same time."""
    shares = spread(count, loops + threads)
    return sum(shares[:loops]) + sum(1 for share in shares[loops:] if share)


def spread(count: int, over: int) -> list[int]:
    """Return shares that differ by one at most."""
    return [count // over + (i < count % over) for i in range(over)]


def said(error: BaseException) -> str:
    """Return an error's name, and the reason for which a session ended."""
    name = type(error).__name__
    return f"{name} {error.reason}" if isinstance(error, keyturn.SessionEnded) else name


async def _at_once(credentials: keyturn.Credentials, url: str, count: int, label: str) -> list[str]:
    async with httpx2.AsyncClient(auth=Auth(credentials), **_options(url)) as api:  # type: ignore[arg-type]

        async def one(number: int) -> str:
            query = f"?request={label}-{number}" if label else ""
            try:
                return str((await api.get(f"/task{query}")).status_code)
            except Exception as error:  # noqa: BLE001 - the test judges which error is in order
                return said(error)

        return list(await asyncio.gather(*[one(i) for i in range(count)]))


def _outcome(call: Callable[[], _Answer]) -> str:
    try:
        return str(call().status_code)
    except Exception as error:  # noqa: BLE001 - the test judges which error is in order
        return said(error)


def _options(url: str) -> dict[str, object]:
    limits = httpx2.Limits(max_connections=50, max_keepalive_connections=50)
    return {
        "base_url": url,
        "verify": False,
        "trust_env": False,
        "timeout": _ANSWERED_WITHIN,
        "limits": limits,
    }

"""What the tests of token stores share: keyturn's loop, records to write, and waiting for a lease."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from keyturn.client import loop
from keyturn.client.record import Record
from keyturn.client.token_stores import Lease, TokenStore
from tests.waiting import WITHIN

T = TypeVar("T")

SECRET = "s3cret-" + "x" * 20
DESCRIPTORS = Path("/proc/self/fd")
_tasks: set[asyncio.Task[None]] = set()


def on_loop(main: Callable[[], Coroutine[object, object, T]], *, seconds: float = WITHIN) -> T:
    """Return what `main()` returns, run on keyturn's loop; fail, rather than hang, after `seconds`."""
    answer: Future[T] = Future()

    async def run() -> None:
        try:
            answer.set_result(await asyncio.wait_for(main(), seconds))
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            answer.set_exception(error)

    def begin() -> None:
        task = asyncio.get_running_loop().create_task(run())
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    loop.call(begin)
    return answer.result(seconds + 10)


def a_record(name: str, epoch: str = "epoch-1", generation: int = 0, sealed: str | None = SECRET) -> Record:
    """Return a record of a name."""
    return Record(
        name=name,
        epoch=epoch,
        generation=generation,
        began_at=1_000_000.0,
        saved_at=1_000_000.5 + generation,
        sealed=sealed,
        ended="signed_out" if sealed is None else None,
    )


def next_of(record: Record, sealed: str = SECRET) -> Record:
    """Return the record of the generation after a record's."""
    return dataclasses.replace(record, generation=record.generation + 1, sealed=sealed)


async def leased(store: TokenStore, name: str, seconds: float) -> Lease:
    """Return the lease of a name once it is to be had."""
    while (lease := await store.try_lease(name, seconds)) is None:  # noqa: ASYNC110 - others hold it
        await asyncio.sleep(0.005)
    return lease


def open_descriptors() -> int:
    """Return how many descriptors this process has open."""
    gc.collect()
    return len(os.listdir(DESCRIPTORS))  # noqa: PTH208 - counts the names alone

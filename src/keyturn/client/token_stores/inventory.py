"""Inventory: what a token store holds, for whoever operates it.

It blocks, and stands outside of all credentials: it reads records, ends a
session for every process that shares it, or has a name forgotten. No token
is read: what is sealed stays so, and needs no key.

The store runs on keyturn's loop, as all stores do. Each step ends within a
bound, also where the store hangs, and nothing is left behind by Ctrl-C.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Generic, Literal, Self, TypeVar, cast

from keyturn.client import loop
from keyturn.client.errand import Errand
from keyturn.client.record import Record
from keyturn.client.token_stores import Lease, TokenStore, new_store
from keyturn.errors import RefreshMisconfigured, RefreshTimeout, TokenStoreUnavailable

T = TypeVar("T")

ANSWERS_WITHIN = 10.0  # seconds for one step; the stores' own time-outs are shorter
ANSWERS_ITS_USER_WITHIN = 90.0  # a keyring may have to ask
WAITS_FOR_LEASE = 5.0
_LEASE = 15.0
_CLOSES_WITHIN = 3.0
_LETS_GO_WITHIN = 1.0
_LOOKS_AGAIN_AFTER = 0.1
_AT_ONCE = 16
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Item:
    """A name that has a record: the record, and the store's time in POSIX seconds when it was read.

    A record that cannot be read is None, and `problem` says why.
    """

    name: str
    record: Record | None
    now: float
    problem: str | None = None


class Inventory:
    """What the token store of a URL holds. Blocking, for one thread; close it, or use it in a `with`.

    Raises ConfigurationError and MissingExtra as `new_store`; its methods
    raise TokenStoreUnavailable and RefreshMisconfigured as the store's do.
    """

    def __init__(self, url: str) -> None:
        self._store = new_store(url)
        asks_its_user = url.startswith("keyring://")
        self._patience = ANSWERS_ITS_USER_WITHIN if asks_its_user else ANSWERS_WITHIN

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def names(self) -> list[str]:
        """Return the names that have a record, sorted."""
        return _run(self._store.names, self._patience)

    def items(self) -> list[Item]:
        """Return all items, sorted by name."""
        names, found = self.names(), list[Item | None]()
        for start in range(0, len(names), _AT_ONCE):
            some = names[start : start + _AT_ONCE]
            found += _run(partial(self._some, some), self._patience)
        return [item for item in found if item is not None]

    def item(self, name: str) -> Item | None:
        """Return the item of a name, None where it has none."""
        item = _run(partial(self._item, name), self._patience)
        if item is not None and item.record is None:
            self.names()  # raises where it is the store that refuses us, and not the record that is damaged
        return item

    def sign_out(self, name: str) -> Literal["ended", "over already"] | None:
        """End the session of a name for every process that shares the store; None where it has no record.

        Its record becomes a tombstone, which no refresh under way overwrites
        and no seed replaces. It waits for the lease for a few seconds, and
        goes on without: a tombstone spends no token. The server that issued
        the tokens is not told.
        """
        return _run(partial(_sign_out, self._store, name), WAITS_FOR_LEASE + self._patience)

    def forget(self, name: str) -> bool:
        """Erase the record of a name, its tombstone included; tell whether there was one.

        Whoever comes next begins with his seed, and a process that still
        holds the tokens may write them back.
        """
        return _run(partial(_forget, self._store, name), WAITS_FOR_LEASE + self._patience)

    def close(self) -> None:
        """Let go of the store. Never raises; a store that hangs is left behind."""
        try:
            _run(self._store.aclose, _CLOSES_WITHIN)
        except TokenStoreUnavailable:
            return

    async def _some(self, names: list[str]) -> list[Item | None]:
        return await asyncio.gather(*(self._item(name) for name in names))

    async def _item(self, name: str) -> Item | None:
        try:
            reading = await self._store.read(name)
        except RefreshMisconfigured as problem:
            return Item(name, None, 0.0, str(problem))
        return None if reading.record is None else Item(name, reading.record, reading.now)


async def _sign_out(store: TokenStore, name: str) -> Literal["ended", "over already"] | None:
    lease = await _lease(store, name)
    try:
        for _ in range(_TRIES):
            reading = await store.read(name)
            record = reading.record
            if record is None:
                return None
            if record.ended is not None:
                return "over already"
            if await store.write(name, _tombstone(record, reading.now), over=record.version):
                return "ended"
    finally:
        if lease is not None:
            await lease.release()
    raise TokenStoreUnavailable("the record changes faster than it can be ended: try again")


async def _forget(store: TokenStore, name: str) -> bool:
    lease = await _lease(store, name)
    try:
        return await store.remove(name)
    finally:
        if lease is not None:
            await lease.release()


async def _lease(store: TokenStore, name: str) -> Lease | None:
    """Return the lease of a name, None if somebody holds it for as long as we wait."""
    ends = asyncio.get_running_loop().time() + WAITS_FOR_LEASE
    while (lease := await store.try_lease(name, _LEASE)) is None:
        if asyncio.get_running_loop().time() >= ends:
            return None
        await asyncio.sleep(_LOOKS_AGAIN_AFTER)
    return lease


def _tombstone(record: Record, now: float) -> Record:
    return dataclasses.replace(
        record,
        generation=record.generation + 1,
        saved_at=now,
        sealed=None,
        expires_at=None,
        lifetime=None,
        ended="signed_out",
        marker=None,
        failure=None,
    )


class _Bounded(Generic[T]):
    """A coroutine that ends within some seconds, or is given up before."""

    def __init__(self, main: Callable[[], Coroutine[object, object, T]], seconds: float) -> None:
        self._main, self._seconds = main, seconds
        self._task: asyncio.Task[object] | None = None

    async def __call__(self) -> tuple[T | None, Exception | None]:
        self._task = asyncio.current_task()
        try:
            async with asyncio.timeout(self._seconds):
                return await self._main(), None
        except TimeoutError:
            return None, _silent()
        except Exception as error:  # noqa: BLE001 - raised again by whoever waits
            return None, error

    def give_up(self) -> None:
        """Cancel it, on keyturn's loop."""
        if self._task is not None:
            self._task.cancel()


def _run(main: Callable[[], Coroutine[object, object, T]], seconds: float) -> T:
    bounded = _Bounded(main, seconds)
    errand = Errand(bounded, longest=_LETS_GO_WITHIN)
    errand.take_off()
    try:
        result, error = errand.result(seconds + _LETS_GO_WITHIN)
    except RefreshTimeout:
        raise _silent() from None
    except KeyboardInterrupt:  # a lease that is held is given up before the process ends
        loop.call(bounded.give_up)
        errand.settle(_LETS_GO_WITHIN)
        raise
    if error is not None:
        raise error
    return cast(T, result)


def _silent() -> TokenStoreUnavailable:
    return TokenStoreUnavailable("the token store does not answer")

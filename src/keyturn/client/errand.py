"""Errand: work on keyturn's loop that belongs to nobody, and that callers of any kind wait for.

As a flight it goes on when whoever waits gives up, and the exit waits for it,
bounded.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import random
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar, cast

from keyturn.client import loop, schedule
from keyturn.client.gate import Gate
from keyturn.errors import KeyturnError, ReentrantRefresh, RefreshTimeout, TokenStoreUnavailable

T = TypeVar("T")


class Errand(Generic[T]):
    """One call of `work()`; `longest` is for how many seconds the exit waits for it."""

    def __init__(self, work: Callable[[], Awaitable[T]], *, longest: float) -> None:
        self._work, self.longest = work, longest
        self._over = Gate()
        self._result: T | None = None
        self._error: KeyturnError | None = None

    def take_off(self) -> None:
        """Start, on keyturn's loop. Raises RefreshUnavailable where there is no thread for it."""
        loop.launch(self, self._run, contextvars.Context())

    def settle(self, timeout: float | None = None) -> bool:
        """Wait until it is over, by default as long as it can take; tell whether it is."""
        if loop.is_current():
            return self._over.is_open
        return self._over.wait(self.longest if timeout is None else timeout)

    def result(self, timeout: float | None = None) -> T:
        """Wait for what it returns. Raises what it raises, and RefreshTimeout."""
        if loop.is_current() and not self._over.is_open:
            raise ReentrantRefresh("keyturn's own thread cannot wait for the token store")
        return self._redeemed(self._over.wait(timeout))

    async def result_async(self, timeout: float | None = None) -> T:
        """Await what `result` returns."""
        return self._redeemed(await self._over.wait_async(timeout))

    def _redeemed(self, is_over: bool) -> T:
        if not is_over:
            raise RefreshTimeout("the token store took longer than this caller could wait; the work goes on")
        if self._error is not None:
            raise self._error.again()
        return cast(T, self._result)

    async def settle_async(self, timeout: float | None = None) -> bool:
        """Await what `settle` does."""
        return await self._over.wait_async(self.longest if timeout is None else timeout)

    async def _run(self) -> None:
        try:
            self._result = await self._work()
        except KeyturnError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001 - a driver raises what it likes; its meaning is raised later
            self._error = unforeseen(error)
        except BaseException:
            self._error = TokenStoreUnavailable("the work for the token store was broken off")
            raise
        finally:
            self._over.open()


class Persistent(Errand[None]):
    """Work that is tried again until it succeeds, at once whenever somebody waits for it.

    `attempt(n)` makes the n-th attempt, from the second on, and tells whether that was the last.
    """

    def __init__(self, attempt: Callable[[int], Awaitable[bool]], *, longest: float) -> None:
        super().__init__(self._persist, longest=longest)
        self._attempt, self._hurry = attempt, asyncio.Event()

    def settle(self, timeout: float | None = None) -> bool:
        """Wait until it has succeeded, by default as long as the exit waits; tell whether it has."""
        loop.call(self._hurry.set)
        return super().settle(timeout)

    async def settle_async(self, timeout: float | None = None) -> bool:
        """Await what `settle` does."""
        loop.call(self._hurry.set)
        return await super().settle_async(timeout)

    async def _persist(self) -> None:
        for attempts in itertools.count(1):
            with suppress(TimeoutError):
                async with asyncio.timeout(schedule.backoff(attempts, random.random())):  # noqa: S311 - no secret
                    await self._hurry.wait()
            self._hurry.clear()
            if await self._attempt(attempts + 1):
                return


def unforeseen(error: Exception) -> TokenStoreUnavailable:
    """Return what an exception of a token store's driver means, without its text, which may hold a secret."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return TokenStoreUnavailable(f"the token store failed on {type(error).__name__} {where}")

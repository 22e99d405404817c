"""The lease in Redis: a key that holds its owner's token and ends by itself, renewed while it is held.

Its life is counted on both sides: the server's clock ends the key, and the
holder's ends `held`, counted from before the last renewal was sent. So the
holder never thinks longer than the server that it holds it, answers that are
late or lost included, and a process that was stopped or a machine that was
suspended knows by a look at the clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import time

from keyturn.client.token_stores.redis_connections import Connections, Script
from keyturn.clocks import monotonic
from keyturn.errors import RefreshError

_AGAIN = 0.2  # seconds to wait after a renewal that got no answer
_LEASE, _RENEW, _RELEASE = Script("lease"), Script("renew"), Script("release")

# The one that goes on while the machine is suspended, where there is one.
elapsed = (
    functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else monotonic
)


class RedisLease:
    """A lease that was taken, or is about to be."""

    def __init__(
        self, connections: Connections, key: str, owner: str, seconds: float, told: tuple[str, str]
    ) -> None:
        self.owner = owner
        self._connections = connections
        self._key = key
        self._told = told  # the channel and the message of a release
        self._seconds = seconds
        self._since = 0.0
        self._over = True
        self._released = False
        self._renewing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<RedisLease {'held' if self.held else 'over'}>"

    @property
    def held(self) -> bool:
        """Tell whether it has been renewed in time, by our own clock. What is over stays over."""
        if not self._over and elapsed() - self._since >= self._seconds:
            self._over = True
        return not self._over

    async def take(self) -> bool:
        """Take it, and renew it from now on; tell whether it was free.

        Raises TokenStoreUnavailable or RefreshMisconfigured; what was then
        taken all the same is given back in the background.
        """
        since = elapsed()
        try:
            taken = await self._connections.run(_LEASE, [self._key], [self.owner, self._milliseconds])
        except RefreshError:
            self._connections.begin(self._give_back())
            raise
        if taken:
            self._since, self._over = since, False
            self._renewing = asyncio.get_running_loop().create_task(self._renew())
        return bool(taken)

    async def release(self) -> None:
        """Give it up; who watches the name is told. Where the store does not answer it ends by itself."""
        self.abandon()
        if not self._released:
            self._released = True
            if self._renewing is not None:
                self._renewing.cancel()
            await self._connections.apart(self._give_back())

    def abandon(self) -> None:
        """Hold it no longer, without a word to the server."""
        self._over = True

    async def _give_back(self) -> None:
        with contextlib.suppress(RefreshError):  # it ends by itself
            await self._connections.run(_RELEASE, [self._key], [self.owner, *self._told])

    async def _renew(self) -> None:
        pause = self._seconds / 3
        while self.held:
            await asyncio.sleep(pause)
            since = elapsed()
            try:
                mine = await self._connections.run(_RENEW, [self._key], [self.owner, self._milliseconds])
            except RefreshError:
                pause = min(self._seconds / 10, _AGAIN * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
                continue
            pause = self._seconds / 3
            if not mine:
                self._over = True
            elif self.held:
                self._since = since

    @property
    def _milliseconds(self) -> int:
        return max(1, round(self._seconds * 1000))

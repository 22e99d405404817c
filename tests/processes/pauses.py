"""Pauses: the exact places where a worker stops itself, so that a kill or a stop hits where a test says.

    leased      the lease has just been taken
    marking     the marker is about to be written
    marked      it has been written
    sending     the exchange is about to be sent: nothing has left yet
    answered    its answer has been read by the HTTP client, and by nobody else
    saving      the new pair is about to be saved
    saved       it has been saved, and the lease is still held

A worker pauses once at each place that it was told, says so, and goes on when
it is told to. It pauses on keyturn's loop without blocking it: leases are
renewed, time-outs run.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import httpx2

from keyturn.client.record import Record, Version
from keyturn.client.token_stores import Lease, TokenStore, new_store

Place = Literal["leased", "marking", "marked", "sending", "answered", "saving", "saved"]
PLACES: tuple[Place, ...] = get_args(Place)


class Pauses:
    """Where this worker is to pause; `tell` is called with each place that it pauses at."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._wanted: set[str] = set()
        self._waiting: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Event]] = {}
        self._hooked: set[type] = set()

    def at(self, place: Place) -> None:
        """Pause once at `place`."""
        self._wanted.add(place)

    def go_on(self) -> None:
        """Go on from wherever this worker pauses, and pause nowhere any more."""
        self._wanted.clear()
        for loop, event in list(self._waiting.values()):
            loop.call_soon_threadsafe(event.set)

    async def here(self, place: Place) -> None:
        """Pause, if this is where to."""
        if place not in self._wanted:
            return
        self._wanted.discard(place)
        event = asyncio.Event()
        self._waiting[place] = asyncio.get_running_loop(), event
        self._tell(place)
        try:
            await event.wait()
        finally:
            del self._waiting[place]

    def http(self) -> httpx2.AsyncClient:
        """Return a client for one exchange that pauses before and after it."""
        inner = httpx2.AsyncHTTPTransport(verify=False, trust_env=False)
        return httpx2.AsyncClient(transport=_Transport(self, inner), trust_env=False, timeout=60.0)

    def hook(self, url: str) -> None:
        """Have the store at `url` pause, too, in all of this process."""
        if url == "memory://":
            return
        kind: Any = type(new_store(url))
        if kind in self._hooked:
            return
        self._hooked.add(kind)
        kind.write = self._pausing_write(kind.write)
        kind.try_lease = self._pausing_lease(kind.try_lease)

    def _pausing_write(self, write: Any) -> Any:
        @functools.wraps(write)
        async def pausing(
            store: TokenStore,
            name: str,
            record: Record,
            *,
            over: Version | None,
            under: Lease | None = None,
        ) -> bool:
            places = _places(record, over, under)
            if places is not None:
                await self.here(places[0])
            written: bool = await write(store, name, record, over=over, under=under)
            if places is not None and written:
                await self.here(places[1])
            return written

        return pausing

    def _pausing_lease(self, try_lease: Any) -> Any:
        @functools.wraps(try_lease)
        async def pausing(store: TokenStore, name: str, seconds: float) -> Lease | None:
            lease: Lease | None = await try_lease(store, name, seconds)
            if lease is not None:
                await self.here("leased")
            return lease

        return pausing


class _Transport(httpx2.AsyncBaseTransport):
    def __init__(self, pauses: Pauses, inner: httpx2.AsyncBaseTransport) -> None:
        self._pauses, self._inner = pauses, inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await self._pauses.here("sending")
        response = await self._inner.handle_async_request(request)
        await response.aread()
        await self._pauses.here("answered")
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


def _places(record: Record, over: Version | None, under: Lease | None) -> tuple[Place, Place] | None:
    """Return what comes before and after this write, None for a sign-in, a sign-out or a failure."""
    marker, failure = record.marker, record.failure
    if under is not None and marker is not None and (failure is None or failure.at < marker.at):
        return "marking", "marked"
    if over is not None and record.ended is None and record.epoch == over[0] and record.generation > over[1]:
        return "saving", "saved"
    return None

"""The order in which answers reach a client, arranged by a transport around the library's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from keyturn.testing import StrictServer

HELD_AT_MOST = 20.0


class RefusalsFirst:
    """Waves of requests with one token, of which the server accepts one and refuses the others.

    Each wave of a size in `waves` arrives at the server together. Its success
    reaches the client when the last of its refusals has been read: whoever
    was refused has then decided what to do, without knowing of the new pair.
    After these waves the answers come as they come.
    """

    def __init__(self, server: StrictServer, *waves: int) -> None:
        self._server, self._waves = server, list(waves)
        self._lock = threading.Lock()
        self._open: Callable[[], Any] = _nothing
        self._left = 0

    def around(self, lib: Any, inner: Any) -> Any:
        """Return a transport of `lib`, synchronous or not as `inner` is, that keeps the order."""
        return _transport(self, lib, inner)

    def begin(self, open_gate: Callable[[], Any]) -> None:
        """Begin the next wave; `open_gate` lets its success through."""
        size = self._waves.pop(0) if self._waves else 1
        with self._lock:
            self._left, self._open = size - 1, open_gate
        if size > 1:
            self._server.hold_api(size)
        else:
            open_gate()

    def refusal_read(self) -> None:
        """Count a refusal, and let the success through after the last."""
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._open()


def _transport(order: RefusalsFirst, lib: Any, inner: Any) -> Any:
    class Noting(lib.SyncByteStream, lib.AsyncByteStream):  # type: ignore[misc]  # the library is a value here
        """A refusal's body, which tells when it has been read."""

        def __init__(self, stream: Any) -> None:
            self._stream, self._told = stream, False

        def __iter__(self) -> Iterator[bytes]:
            yield from self._stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for chunk in self._stream:
                yield chunk

        def close(self) -> None:
            self._stream.close()
            self._tell()

        async def aclose(self) -> None:
            await self._stream.aclose()
            self._tell()

        def _tell(self) -> None:
            if not self._told:
                self._told = True
                order.refusal_read()

    class Sync(lib.BaseTransport):  # type: ignore[misc]
        def __init__(self) -> None:
            self._gate = threading.Event()
            order.begin(self._gate.set)

        def handle_request(self, request: Any) -> Any:
            response = inner.handle_request(request)
            if response.status_code == 401:
                response.stream = Noting(response.stream)
                return response
            assert self._gate.wait(HELD_AT_MOST), "not all of the others were refused"
            self._gate = threading.Event()
            order.begin(self._gate.set)
            return response

        def close(self) -> None:
            inner.close()

    class Async(lib.AsyncBaseTransport):  # type: ignore[misc]
        def __init__(self) -> None:
            self._gate = asyncio.Event()
            order.begin(self._gate.set)

        async def handle_async_request(self, request: Any) -> Any:
            response = await inner.handle_async_request(request)
            if response.status_code == 401:
                response.stream = Noting(response.stream)
                return response
            async with asyncio.timeout(HELD_AT_MOST):
                await self._gate.wait()
            self._gate = asyncio.Event()
            order.begin(self._gate.set)
            return response

        async def aclose(self) -> None:
            await inner.aclose()

    return Async() if hasattr(inner, "handle_async_request") else Sync()


def _nothing() -> None:
    """Let nobody through: no wave has begun."""

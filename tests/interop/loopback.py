"""APIs for the libraries to call: ASGI applications on real sockets, which take the strict server's tokens.

The strict server is the authorization server. Whoever asks one of these APIs
for something is let in if the strict server's own API would let them in, so
that what has expired, is revoked or is held there is so here.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx2
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from keyturn.testing import StrictServer
from tests.waiting import WITHIN, until


class Room:
    """Counts who is inside, and keeps everyone there while it is locked."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self._locked = False

    def lock(self) -> None:
        """Let nobody leave until `unlock()`."""
        self._locked = True

    def unlock(self) -> None:
        """Let everyone leave."""
        self._locked = False

    def wait_for(self, count: int) -> None:
        """Block until so many are inside at once; fail rather than hang."""
        until(lambda: self.inside >= count)

    @asynccontextmanager
    async def visit(self) -> AsyncIterator[None]:
        """Be inside, and stay for as long as the room is locked."""
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            yield
            ends = time.monotonic() + WITHIN
            while self._locked and time.monotonic() < ends:  # noqa: ASYNC110 - another thread's to unlock
                await asyncio.sleep(0.001)
        finally:
            self.inside -= 1


class Door:
    """Lets in who carries a token that the strict server accepts, and answers others as it does."""

    def __init__(self, app: ASGIApp, authority: StrictServer) -> None:
        self._app, self._authority = app, authority
        self.client: httpx2.AsyncClient | None = None
        self.answers: Counter[int] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or let it in."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        assert self.client is not None
        carried = next((value for name, value in scope["headers"] if name == b"authorization"), b"none")
        headers = {"Authorization": carried.decode("latin-1")}
        verdict = await self.client.get(self._authority.url + "/whoami", headers=headers)
        self.answers[verdict.status_code] += 1
        if verdict.status_code == 200:
            await self._app(scope, receive, send)
            return
        while (await receive()).get("more_body"):
            pass  # so that the connection can be used again
        start = {"type": "http.response.start", "status": verdict.status_code, "headers": verdict.headers.raw}
        await send(start)
        await send({"type": "http.response.body", "body": verdict.content})


class Loopback:
    """An API that is being served: where, and how it has answered so far."""

    def __init__(self, url: str, door: Door) -> None:
        self.url = url
        self._door = door

    @property
    def answers(self) -> Counter[int]:
        """How many requests were refused (401) and let in (200)."""
        return self._door.answers


@contextmanager
def serve(app: ASGIApp, authority: StrictServer) -> Iterator[Loopback]:
    """Serve `app` behind a door on a loopback port, on a thread and an event loop of its own."""
    door = Door(app, authority)
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        config = uvicorn.Config(door, log_config=None, ws="none", timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)

        async def run() -> None:
            limits = httpx2.Limits(max_connections=None)
            async with httpx2.AsyncClient(timeout=WITHIN, trust_env=False, limits=limits) as door.client:
                await server.serve(sockets=[listener])

        thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
        thread.start()
        try:
            yield Loopback(f"http://127.0.0.1:{listener.getsockname()[1]}", door)
        finally:
            server.should_exit = True
            thread.join(WITHIN)
            assert not thread.is_alive(), "the loopback server does not end"

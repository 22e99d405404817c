"""HTTP/1.1 on a socket: requests in, answers out, one task a connection.

Knows nothing of tokens. A request is handed over as soon as its head is
there; whoever answers it reads the body, or answers first and lets the rest
of it be read and thrown away, so that an early answer is never lost to a
reset and the connection stays usable.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

import h11

from keyturn.clocks import monotonic
from keyturn.testing.messages import Answer, Request, json_answer

_LARGEST_HEAD = 256 * 1024
_CHUNK = 64 * 1024

_serials = itertools.count()


Responder = Callable[[Request], Awaitable[Answer | None]]


class Connection:
    """One connection of one client. `serial` tells it from all others."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serial = next(_serials)
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_LARGEST_HEAD)

    async def serve(self, respond: Responder) -> None:
        """Answer request after request until one side has had enough.

        A None for an answer closes the connection without one.
        """
        with contextlib.suppress(ConnectionError), contextlib.closing(self._writer):
            try:
                while (request := await self._next_request()) is not None:
                    answer = await respond(request)
                    if answer is None:
                        return
                    unsent = self._http.they_are_waiting_for_100_continue
                    await self._send(request, answer, last=unsent)
                    if unsent:  # the body that was announced may never come
                        return
                    await self.read_body(request)
                    if self._http.our_state is not h11.DONE:
                        return
                    self._http.start_next_cycle()
            except h11.RemoteProtocolError as refusal:
                if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                    close = ("Connection", "close")
                    await self._write(json_answer(refusal.error_status_hint, {"error": "bad_request"}, close))

    async def read_body(self, request: Request) -> None:
        """Read what is left of the body, into the request."""
        while not request.complete:
            event = await self._next_event()
            if isinstance(event, h11.Data):
                request.body += event.data
            else:
                request.complete = isinstance(event, h11.EndOfMessage)
                return

    async def _next_request(self) -> Request | None:
        event = await self._next_event()
        if not isinstance(event, h11.Request):
            return None
        target = event.target.decode("latin-1")
        path, _, query = target.partition("?")
        headers: dict[str, str] = {}
        for raw_name, raw_value in event.headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            glue = "; " if name == "cookie" else ", "
            headers[name] = f"{headers[name]}{glue}{value}" if name in headers else value
        return Request(self, event.method.decode(), unquote(path), query, headers, monotonic())

    async def _next_event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue and self._http.our_state is h11.SEND_RESPONSE:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                self._writer.write(self._http.send(go_on) or b"")
            self._http.receive_data(await self._reader.read(_CHUNK))
        return event

    async def _send(self, request: Request, answer: Answer, *, last: bool) -> None:
        headers = (*answer.headers, ("Connection", "close")) if last else answer.headers
        bodiless = request.method == "HEAD" or answer.status in {204, 304}
        await self._write(Answer(answer.status, answer.body, headers), bodiless=bodiless)

    async def _write(self, answer: Answer, *, bodiless: bool = False) -> None:
        headers = [*answer.headers, ("Content-Length", str(len(answer.body)))]
        parts = [self._http.send(h11.Response(status_code=answer.status, headers=headers))]
        if not bodiless:
            parts.append(self._http.send(h11.Data(data=answer.body)))
        parts.append(self._http.send(h11.EndOfMessage()))
        self._writer.write(b"".join(part for part in parts if part))
        await self._writer.drain()


async def listen(respond: Responder, port: int, stop: asyncio.Event, ready: Callable[[int], None]) -> None:
    """Serve on the loopback interface until `stop`; tell `ready` the port, which 0 leaves to the system."""
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(Connection(reader, writer).serve(respond))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(connected, "127.0.0.1", port, backlog=4096)
    ready(listener.sockets[0].getsockname()[1])
    await stop.wait()
    listener.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

"""Proxy: what stands on the wire between a worker and a server, and loses what a test says.

    drop_answers(1)      the next answer is read to its first byte, thrown away, and the connection closed
    drop_requests(1)     the next request is thrown away, and the connection closed
    hold(), let_go()     nothing passes, in neither direction, and nobody is told; then all of it
    close(), open()      nobody listens on the port, and what stands is cut; then again

It knows no protocol: an answer is what the server says first on a connection
after the client has said something, as an exchange has one of each.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

LOOPBACK = "127.0.0.1"


class Proxy:
    """A TCP port at `host` before the server that a URL names."""

    def __init__(self, url: str, host: str = LOOPBACK) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._server = (parts.hostname, parts.port)
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._place = (host, 0)
        self._listening: socket.socket | None = None
        self.open()
        user = parts.netloc.rpartition("@")[0]
        place = f"{host}:{self._place[1]}"
        self.url = parts._replace(netloc=f"{user}@{place}" if user else place).geturl()
        self._answers_to_drop = self._requests_to_drop = 0
        self._passes = threading.Event()
        self._passes.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        self._passes.set()

    def drop_answers(self, count: int = 1) -> None:
        """Throw the next answers away."""
        self._answers_to_drop = count

    def drop_requests(self, count: int = 1) -> None:
        """Throw the next requests away."""
        self._requests_to_drop = count

    def hold(self) -> None:
        """Let nothing pass."""
        self._passes.clear()

    def let_go(self) -> None:
        """Let everything pass, what was held included."""
        self._passes.set()

    def close(self) -> None:
        """Have nobody listen, and cut what stands."""
        listening, self._listening = self._listening, None
        if listening is not None:
            _shut(listening)
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for one in pair:
                _shut(one)

    def open(self) -> None:
        """Listen, on the same port as before."""
        self._listening = listening = socket.create_server(self._place, backlog=512)
        self._place = listening.getsockname()
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._server)
        except OSError:
            _shut(client)
            return
        with self._lock:
            self._pairs.append((client, server))
        if self._listening is None:
            self.close()
        threading.Thread(target=self._pass_on, args=(client, server, "requests"), daemon=True).start()
        self._pass_on(server, client, "answers")

    def _pass_on(self, source: socket.socket, target: socket.socket, what: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._passes.wait()
                if self._drops(what):
                    break
                target.sendall(data)
        with self._lock:
            self._pairs = [pair for pair in self._pairs if source not in pair]
        _shut(source)
        _shut(target)

    def _drops(self, what: str) -> bool:
        counter = f"_{what}_to_drop"
        with self._lock:
            left: int = getattr(self, counter)
            setattr(self, counter, max(0, left - 1))
        return left > 0


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()

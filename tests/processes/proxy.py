"""Proxy: what stands on the wire between a worker and a server, and loses what a test says.

    drop_answers(1)      the next answer is read to its first byte, thrown away, and the connection closed
    drop_requests(1)     the next request is thrown away, and the connection closed
    hold(), let_go()     nothing passes, in neither direction, and nobody is told; then all of it
    refuse(), accept()   connections are closed when they are made, those that stand included; and no more

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
        self._listening = socket.create_server((host, 0), backlog=512)
        user = parts.netloc.rpartition("@")[0]
        place = f"{host}:{self._listening.getsockname()[1]}"
        self.url = parts._replace(netloc=f"{user}@{place}" if user else place).geturl()
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._answers_to_drop = self._requests_to_drop = 0
        self._refuses = False
        self._open = threading.Event()
        self._open.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _shut(self._listening)
        self._open.set()
        self._cut()

    def drop_answers(self, count: int = 1) -> None:
        """Throw the next answers away."""
        self._answers_to_drop = count

    def drop_requests(self, count: int = 1) -> None:
        """Throw the next requests away."""
        self._requests_to_drop = count

    def hold(self) -> None:
        """Let nothing pass."""
        self._open.clear()

    def let_go(self) -> None:
        """Let everything pass, what was held included."""
        self._open.set()

    def refuse(self) -> None:
        """Close every connection, those to come included."""
        self._refuses = True
        self._cut()

    def accept(self) -> None:
        """Undo `refuse`."""
        self._refuses = False

    def _cut(self) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for one in pair:
                _shut(one)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        try:
            if self._refuses:
                raise ConnectionRefusedError
            server = socket.create_connection(self._server)
        except OSError:
            _shut(client)
            return
        with self._lock:
            self._pairs.append((client, server))
        if self._refuses:
            self._cut()
        threading.Thread(target=self._pass_on, args=(client, server, "requests"), daemon=True).start()
        self._pass_on(server, client, "answers")

    def _pass_on(self, source: socket.socket, target: socket.socket, what: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._open.wait()
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

"""What stands between a client and PostgreSQL: a wire that can be cut or muted, and a pool of connections.

The pool is as pgbouncer is: it answers the client's greeting itself, with a
pid that it invents, and lends it a server connection for one transaction, or
for as long as the client stays. Whoever was served last is lent first.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct
import threading
from types import TracebackType
from typing import Literal, Self

from psycopg.conninfo import conninfo_to_dict

HOST = "127.0.0.1"
_SSL, _GSS, _CANCEL = 80877103, 80877104, 80877102
_VERSION = 196608


class Wire:
    """A TCP port before a server's, whose connections can be muted, cut or refused."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listening = socket.create_server((HOST, 0))
        self._sockets: list[socket.socket] = []
        self._heard, self._answered = threading.Event(), threading.Event()
        self.unmute()
        self.port: int = self._listening.getsockname()[1]
        self.accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _shut(self._listening)
        self.cut()
        self.unmute()

    def mute(self) -> None:
        """Pass nothing on any more that clients say, and let nobody know."""
        self._heard.clear()

    def withhold_answers(self) -> None:
        """Pass nothing on any more that the server says, and let nobody know."""
        self._answered.clear()

    def unmute(self) -> None:
        """Pass on what has come in the meantime, and what comes."""
        self._heard.set()
        self._answered.set()

    def cut(self) -> None:
        """End all connections, on both sides."""
        for one in list(self._sockets):
            _shut(one)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self.accepted += 1
                try:
                    server = socket.create_connection(self._server)
                except OSError:
                    _shut(client)
                    continue
                self._sockets += [client, server]
                for way in ((client, server, self._heard), (server, client, self._answered)):
                    threading.Thread(target=self._pass_on, args=way, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, may: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                may.wait()
                target.sendall(data)
        _shut(source)
        _shut(target)


class PoolingProxy:
    """A pool of server connections that clients share, for a URL that needs no password."""

    def __init__(self, url: str, mode: Literal["transaction", "session"]) -> None:
        there = conninfo_to_dict(url)
        self._address = (str(there["host"]), int(str(there.get("port", 5432))))
        self._names = {"user": str(there["user"]), "database": str(there["dbname"])}
        self._mode = mode
        self._listening = socket.create_server((HOST, 0))
        self._idle: list[_Line] = []
        self._all: list[_Line] = []
        self._lock = threading.Lock()
        self.url = (
            f"postgresql://{self._names['user']}@{HOST}:{self._listening.getsockname()[1]}/"
            + (self._names["database"])
        )
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _shut(self._listening)
        for line in list(self._all):
            _shut(line.socket)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = _Line(self._listening.accept()[0])
                self._all.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: _Line) -> None:
        server: _Line | None = None
        with contextlib.suppress(OSError, EOFError):
            client.greet_as_server()
            server = self._lend()
            client.send(server.greeting + _message(b"K", secrets.token_bytes(8)) + _message(b"Z", b"I"))
            while True:
                batch = client.receive_until(b"SQX")
                if batch.endswith(_message(b"X", b"")):
                    break
                if server is None:
                    server = self._lend()
                server.send(batch)
                client.send(server.receive_until(b"Z"))
                if self._mode == "transaction":
                    self._take_back(server)
                    server = None
        if server is not None:
            with contextlib.suppress(OSError, EOFError):
                server.send(_message(b"Q", b"DISCARD ALL\0"))
                server.receive_until(b"Z")
                self._take_back(server)
        _shut(client.socket)

    def _lend(self) -> _Line:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        line = _Line(socket.create_connection(self._address))
        self._all.append(line)
        line.greet_as_client(self._names)
        return line

    def _take_back(self, server: _Line) -> None:
        with self._lock:
            self._idle.append(server)


class _Line:
    """One connection, spoken in messages of PostgreSQL's protocol."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.greeting = b""
        self._stream = connected.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive_until(self, kinds: bytes) -> bytes:
        """Return messages up to one of these kinds."""
        batch = b""
        while True:
            kind, body = self._receive()
            batch += _message(kind, body)
            if kind in kinds:
                return batch

    def greet_as_server(self) -> None:
        while True:
            (length,) = struct.unpack("!i", self._read(4))
            (code,) = struct.unpack("!i", self._read(length - 4)[:4])
            if code not in (_SSL, _GSS):
                break
            self.send(b"N")
        if code == _CANCEL:
            raise EOFError

    def greet_as_client(self, names: dict[str, str]) -> None:
        said = b"".join(f"{key}\0{value}\0".encode() for key, value in names.items())
        self.send(_message(b"", struct.pack("!i", _VERSION) + said + b"\0"))
        while True:
            kind, body = self._receive()
            if kind in b"RS":
                self.greeting += _message(kind, body)
            if kind == b"Z":
                return

    def _receive(self) -> tuple[bytes, bytes]:
        kind = self._read(1)
        (length,) = struct.unpack("!i", self._read(4))
        return kind, self._read(length - 4)

    def _read(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) < count:
            raise EOFError
        return data


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()

"""Nursery: worker processes, forked in milliseconds from one that has imported everything and done nothing.

`python -m tests.processes.schedules.nursery SOCKET DIRECTORY KIND` forks one
worker for each connection to the socket, and ends when its input does, with
all its workers. A worker writes its log and its stderr to files in the
directory, by its pid.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.processes.handles import Worker
from tests.processes.settings import Settings
from tests.waiting import WITHIN

_ROOT = Path(__file__).parents[3]


class Nursling(Worker):
    """A worker that the nursery has forked."""

    def __init__(self, connection: socket.socket, directory: Path) -> None:
        self._directory = directory
        self._connection = connection
        connection.settimeout(None)
        super().__init__(connection.makefile("rb"), connection.makefile("wb"))

    def stop(self) -> None:
        """Stop it by SIGSTOP, and return when it has stopped; it is nobody's child here."""
        os.kill(self.pid, signal.SIGSTOP)
        state = Path(f"/proc/{self.pid}/stat")
        ends = time.monotonic() + 1.0
        while state.exists() and state.read_text().rpartition(")")[2].split()[0] not in "TZX":
            if time.monotonic() > ends:  # it may be in the middle of a write to the disk
                break
            time.sleep(0.001)
        self._is_stopped = True

    @property
    def is_gone(self) -> bool:
        """Tell whether it has ended."""
        return self._is_gone

    @property
    def is_stopped(self) -> bool:
        """Tell whether it was stopped."""
        return self._is_stopped

    def catches(self) -> str | None:
        """Return where it has paused, if it has since it was last asked."""
        return str(self._notice("paused")["at"]) if self._notices.qsize() and not self._is_gone else None

    def leave(self) -> bool:
        """Have it end in the ordinary way; tell whether it does."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
        self._reader.join(WITHIN / 2)
        return not self._reader.is_alive()

    def close(self) -> None:
        """Kill it if it lives, and let go of it."""
        super().close()
        self._connection.close()

    def complaints(self) -> str:
        """Return what it has written to stderr."""
        path = self._directory / f"{self.pid}.err"
        return path.read_text(errors="replace") if path.exists() else ""

    def log(self, most: int = 4000) -> str:
        """Return the end of what keyturn has logged in it."""
        path = self._directory / f"{self.pid}.log"
        return path.read_text(errors="replace")[-most:] if path.exists() else ""

    def forget(self) -> None:
        """Remove what it has written."""
        for kind in ("err", "log"):
            (self._directory / f"{self.pid}.{kind}").unlink(missing_ok=True)


class Nursery:
    """The process that forks, and where its children write."""

    def __init__(self, kind: str) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="keyturn-schedules-")
        self._path = Path(self._directory.name) / "socket"
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-W", "error", "-m", "tests.processes.schedules.nursery"),
                *(str(self._path), self._directory.name, kind),
            ],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "the nursery does not start"

    def one(self) -> Nursling:
        """Return a new process without credentials. May be called from any thread."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(WITHIN)
        connection.connect(str(self._path))
        return Nursling(connection, Path(self._directory.name))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(WITHIN)
        self._process.stdout.close()
        self._directory.cleanup()


def _main(path: str, directory: str, kind: str) -> None:
    from tests.processes.worker import Channel, Worker, log_to

    _warm_up(kind, directory)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        print("ready", flush=True)  # noqa: T201 - told to who started this
        gc.freeze()
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                os.killpg(0, signal.SIGKILL)  # whoever was stopped and forgotten, too
            connection, _ = listener.accept()
            if os.fork():
                connection.close()
                continue
            break
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    stderr = os.open(Path(directory) / f"{os.getpid()}.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(stderr, 2)
    os.close(stderr)
    os.close(0)  # whose end is the nursery's alone
    os.open(os.devnull, os.O_RDONLY)
    log_to(f"{directory}/{os.getpid()}.log")
    descriptor = connection.detach()  # which the last answers are still written to when this thread ends
    Worker(Channel(descriptor, descriptor)).obey()


def _warm_up(kind: str, directory: str) -> None:
    """Import whatever a worker will, and start nothing: what has threads cannot be forked."""
    import keyturn.client.httpx2  # noqa: F401
    from tests.processes.settings import credentials_of, plain_http

    urls = {
        "file": f"file://{directory}/warm",
        "sqlite": f"sqlite:///{directory}/warm.db",
        "postgresql": "postgresql://nobody@127.0.0.1:1/none",
        "redis": "redis://127.0.0.1:1/0",
    }
    settings: Settings = {"url": "http://127.0.0.1:1", "store": urls[kind], "name": "warm"}
    credentials_of(settings, plain_http, lambda _: None)
    asyncio.run(plain_http().aclose())
    assert threading.active_count() == 1


if __name__ == "__main__":
    _main(*sys.argv[1:])

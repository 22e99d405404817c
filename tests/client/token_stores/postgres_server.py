"""A PostgreSQL server of a test's own, to stop, restart and kill, with roles that need passwords, and TLS."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
import pytest

from tests.waiting import WITHIN

HOST = "127.0.0.1"
_INSTALLED = ("/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql*/bin")
# The superuser is let in; all others have to say who they are.
_HBA = f"""
host all postgres {HOST}/32 trust
host all all {HOST}/32 scram-sha-256
"""


def _program(name: str) -> str:
    """Return the path of one of the server's programs; skip where there is none, or fail in CI."""
    found = shutil.which(name)
    places = [path for pattern in _INSTALLED for path in Path("/").glob(f"{pattern[1:]}/{name}")]
    if found is None and not places:
        reason = f"no PostgreSQL server to start: {name} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return found or str(max(places))


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        port: int = one.getsockname()[1]
        return port


class PostgresServer:
    """One server on a port and a directory of its own; stopped and removed at the end of `with`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.database = "postgres"
        self._postgres, initdb = _program("postgres"), _program("initdb")
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch = Path(tempfile.mkdtemp(prefix="keyturn-postgres-"))
        self._data = self._scratch / "data"
        self._log = self._scratch / "log"
        # The server does not run as root.
        self._user = "postgres" if os.name == "posix" and os.geteuid() == 0 else None
        if self._user is not None:
            shutil.chown(self._scratch, self._user)
        self._run(initdb, "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        self._put("pg_hba.conf", _HBA)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.stop(signal.SIGQUIT)
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def url(self, user: str = "postgres", password: str = "", database: str = "postgres") -> str:
        """Return the URL of a database."""
        secret = f":{password}" if password else ""
        return f"postgresql://{user}{secret}@{HOST}:{self.port}/{database}"

    def start(self, *settings: str) -> None:
        """Start it, and wait until it answers. `settings` are as in `work_mem=4MB`."""
        options = [
            f"listen_addresses={HOST}",
            "unix_socket_directories=",
            "fsync=off",
            "log_statement=none",
            *settings,
        ]
        ends = time.monotonic() + WITHIN
        while True:  # a server that was killed leaves others behind, who take a moment to notice
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [
                        *(self._postgres, "-D", str(self._data), "-p", str(self.port)),
                        *(part for option in options for part in ("-c", option)),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._scratch,
                    user=self._user,
                    group=self._user,
                )
            if self._answers(ends):
                return
            assert time.monotonic() < ends, self._log.read_text()
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: the server ends every connection, with one word (SIGINT) or another (SIGQUIT)."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(how)
            process.wait(WITHIN)

    def kill(self) -> None:
        """End it without a word."""
        self.stop(signal.SIGKILL)

    def restart(self, *settings: str) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start(*settings)

    def execute(self, *statements: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run statements as the superuser; return the rows of the last."""
        with psycopg.connect(self.url(database=database), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def install(self, name: str, content: bytes) -> None:
        """Put a file beside the data that only the server may read: a key, a certificate."""
        self._put(name, content.decode())
        (self._data / name).chmod(0o600)

    def remove(self, name: str) -> None:
        """Take a file away again."""
        (self._data / name).unlink()

    def _put(self, name: str, content: str) -> None:
        path = self._data / name
        path.write_text(content, "utf-8")
        if self._user is not None:
            shutil.chown(path, self._user, self._user)

    def _answers(self, ends: float) -> bool:
        """Wait until it answers; tell whether it does."""
        process = self._process
        assert process is not None
        while process.poll() is None and time.monotonic() < ends:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url(), connect_timeout=2).close()
                return True
            time.sleep(0.01)
        return False

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self._scratch, user=self._user, group=self._user
        )
        assert done.returncode == 0, done.stderr

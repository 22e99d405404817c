"""Run one of tests/apps under gunicorn, on a loopback port that was free, and call it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from .store_contract import at_once

APPS = Path(__file__).parent.parent / "apps"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: dict[str, object]

    def text(self, name: str) -> str:
        value = self.body[name]
        assert isinstance(value, str)
        return value


@dataclass(frozen=True)
class Service:
    port: int

    def call(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            raw = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
            connection.request(
                method,
                path,
                raw,
                {"Content-Type": "application/json", "Connection": "close"} | dict(headers or {}),
            )
            response = connection.getresponse()
            text = response.read()
            said = json.loads(text) if "json" in (response.headers.get("Content-Type") or "") else {}
            return Answer(response.status, dict(response.headers), said)
        finally:
            connection.close()

    def sign_in(self) -> Answer:
        return self.call("POST", "/login")

    def refresh(self, token: str) -> Answer:
        return self.call("POST", "/auth/refresh", {"refresh_token": token})

    def refresh_at_once(self, tokens: Sequence[str]) -> list[Answer]:
        return cast("list[Answer]", at_once([partial(self.refresh, token) for token in tokens]))

    def statistics(self, access: str) -> Answer:
        return self.call("GET", "/statistics", headers={"Authorization": f"Bearer {access}"})


@contextmanager
def served(
    app: str, environment: Mapping[str, str], *, workers: int = 2, threads: int = 8
) -> Iterator[Service]:
    """Serve `app` ("module:name") until the end of the block."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(256)
        command = [
            sys.executable, "-m", "gunicorn", app, "--chdir", str(APPS), "--workers", str(workers),
            "--threads", str(threads), "--bind", f"fd://{listener.fileno()}", "--log-level", "warning",
            "--no-control-socket",
        ]  # fmt: skip
        process = subprocess.Popen(
            command, pass_fds=[listener.fileno()], env=os.environ | dict(environment), stderr=subprocess.PIPE
        )
        service = Service(listener.getsockname()[1])
        # Connections wait in the listener's queue until a worker is there.
        try:
            yield service
        finally:
            process.terminate()
            _, said = process.communicate(timeout=60)
    assert b"Traceback" not in said, said.decode()


def wait_for(service: Service, workers: int) -> None:
    """Return when that many workers have answered."""
    access = service.sign_in().text("access_token")
    seen: set[object] = set()
    deadline = time.monotonic() + 60
    while len(seen) < workers:
        assert time.monotonic() < deadline
        seen |= {
            one.body["worker"]
            for one in cast("list[Answer]", at_once([partial(service.statistics, access)] * 8))
        }

"""One of the applications in `apps`, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self, cast

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Arrived:
    """A request as it arrived."""

    method: str
    path: str
    csrf: str | None
    authorization: str | None
    cookies: Mapping[str, str]
    body: str
    status: int | None


class Service:
    """A running application: `with Service("keyturn_cookies") as service`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.url = ""

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.scenarios.apps.serve", self._name],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self.url = cast("IO[bytes]", self._process.stdout).readline().decode().strip()
        assert self.url, self._said()
        return self

    def __exit__(self, *_: object) -> None:
        cast("IO[bytes]", self._process.stdin).close()
        cast("IO[bytes]", self._process.stdout).close()
        self._process.wait(10)
        said = self._said()
        self._errors.close()
        assert "Traceback" not in said, said

    def reset(self) -> None:
        """Forget what arrived, put the clock right and every switch off."""
        self._control("reset")

    def hold(self, n: int) -> None:
        """Answer none of the next `n` API requests until all of them have arrived."""
        self._control("hold", n=n)

    def ahead(self, seconds: float) -> None:
        """Put the application's clock ahead."""
        self._control("ahead", seconds=seconds)

    def switch(self, **switches: bool) -> None:
        """Turn the application's own switches."""
        self._control("switch", **switches)

    @property
    def seen(self) -> list[Arrived]:
        """Every request since the reset, in order of arrival."""
        return [Arrived(**one) for one in self._control("seen")["seen"]]

    def at(self, path: str) -> list[Arrived]:
        """Return the requests to paths that begin with `path`."""
        return [one for one in self.seen if one.path.startswith(path)]

    def _control(self, verb: str, **asked: object) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.url}/_test/{verb}", json.dumps(asked).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return cast("dict[str, Any]", json.load(answer))

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

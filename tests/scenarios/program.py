"""Program: a Python process of a test, told by lines when to go on, and checked for noise when it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

import keyturn
from keyturn.testing import StrictServer
from tests.waiting import WITHIN

_ROOT = Path(__file__).parents[2]
_STRICT = ("-X", "dev", "-W", "error")


def given(server: StrictServer, tokens: keyturn.Tokens, **more: object) -> dict[str, object]:
    """Return what a program needs to make credentials for `server`."""
    return {"url": server.url, "tokens": written(tokens), **more}


def written(tokens: keyturn.Tokens) -> dict[str, object]:
    """Return tokens as a program is given them."""
    return {"access": tokens.access, "refresh": tokens.refresh, "expires_at": tokens.expires_at}


class Program:
    """`python -m <package>.<name>`, with every warning an error."""

    def __init__(
        self, name: str, given: dict[str, object], *, package: str = "tests.scenarios.programs"
    ) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - a file never fills up, as a pipe would
        self._process = subprocess.Popen(
            [sys.executable, *_STRICT, "-m", f"{package}.{name}", json.dumps(given)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )
        self._too_late = threading.Timer(WITHIN, self._process.kill)
        self._too_late.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._too_late.cancel()
        self._too_late.join()
        if error is not None:
            error.add_note(f"the program's stderr: {self.stderr()}")
        self._stderr.close()

    def line(self) -> str:
        """Return the next line that it says, "" once it has ended."""
        return cast("IO[bytes]", self._process.stdout).readline().decode().strip()

    def lines(self) -> list[str]:
        """Return all lines that it still says until it ends."""
        return cast("IO[bytes]", self._process.stdout).read().decode().splitlines()

    def tell(self, line: str = "go on") -> None:
        """Let it go on."""
        stdin = cast("IO[bytes]", self._process.stdin)
        stdin.write(f"{line}\n".encode())
        stdin.flush()

    @property
    def running(self) -> bool:
        """Tell whether it has not ended."""
        return self._process.poll() is None

    def end(self) -> tuple[int, str]:
        """Wait for it to end; return its exit code and what it wrote to stderr."""
        code = self._process.wait(WITHIN)
        return code, self.stderr()

    def ends_after(self) -> float:
        """Wait for it to end; return for how many seconds that took."""
        began = time.monotonic()
        self._process.wait(WITHIN)
        return time.monotonic() - began

    def stderr(self) -> str:
        """Return what it has written to stderr so far."""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")

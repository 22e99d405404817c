"""The server's process, from its parent's side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from typing import IO, cast

from keyturn.errors import KeyturnError

_STARTS_WITHIN = 10.0
_ENDS_WITHIN = 10.0


class Process:
    """A running `python -m keyturn.testing`: its `url`, and the `secret` of its control paths.

    It ends with `close()`, and when its stdin closes: with its parent,
    however that ends. Raises KeyturnError where it does not come up in time.
    """

    def __init__(self, flags: Sequence[str]) -> None:
        self._owner = os.getpid()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - a file never fills up, as a pipe would
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, and settings that were checked
            [sys.executable, "-m", "keyturn.testing", *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C is for the tests; the server ends with them
        )
        line = self._first_line()
        if not line:
            self._process.wait()
            message = (
                f"the strict server did not start (exit code {self._process.returncode}): {self.stderr()}"
            )
            self.close()
            raise KeyturnError(message)
        told = json.loads(line)
        self.url: str = told["url"]
        self.secret: str = told["control"]

    def _first_line(self) -> bytes:
        too_late = threading.Timer(_STARTS_WITHIN, self._process.kill)
        too_late.start()
        try:
            with cast("IO[bytes]", self._process.stdout) as stdout:
                return stdout.readline()
        finally:
            too_late.cancel()
            too_late.join()

    def close(self) -> None:
        """End the process and wait for it. In a fork of the owner, only let go of it."""
        cast("IO[bytes]", self._process.stdin).close()
        if self._owner == os.getpid():
            self._process.terminate()
            try:
                self._process.wait(_ENDS_WITHIN)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._errors.close()

    def stderr(self) -> str:
        """Return what the process wrote to stderr so far."""
        size = os.fstat(self._errors.fileno()).st_size
        return (
            os.pread(self._errors.fileno(), size, 0).decode(errors="replace").strip() or "nothing on stderr"
        )

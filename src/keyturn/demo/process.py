"""The server's process, from its parent's side.

The parent loads nothing of the server's: neither Flask nor keyturn.server.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from typing import IO, cast

from keyturn.errors import KeyturnError

_STARTS_WITHIN = 20.0
_ENDS_WITHIN = 5.0


class Server:
    """A running `python -m keyturn.demo.server`: `with Server() as url`.

    Raises KeyturnError, with what the process wrote to stderr, where it does
    not come up.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> str:
        try:
            return self._start()
        except BaseException:  # Ctrl-C too: no process is left over
            self.__exit__()
            raise

    def __exit__(self, *exc: object) -> None:
        if self._process is None:
            return
        cast("IO[bytes]", self._process.stdin).close()
        cast("IO[bytes]", self._process.stdout).close()
        self._process.terminate()  # it would end by itself; this does not wait for it to have started first
        try:
            self._process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> str:
        # A file, because a pipe that nobody reads fills up; and one without a name.
        with tempfile.TemporaryFile() as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "keyturn.demo.server"],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # the terminal's Ctrl-C is for the parent
            )
            line = self._first_line(self._process)
            if not line:
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip().splitlines()
                raise KeyturnError(f"the server did not come up: {said[-1] if said else 'it said nothing'}")
        return str(json.loads(line)["url"])

    @staticmethod
    def _first_line(process: subprocess.Popen[bytes]) -> bytes:
        too_late = threading.Timer(_STARTS_WITHIN, process.kill)
        too_late.start()
        try:
            return cast("IO[bytes]", process.stdout).readline()
        finally:
            too_late.cancel()

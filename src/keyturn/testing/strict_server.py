"""StrictServer: the strict server as a process of its own, held from a test.

Every call is one short request on a connection of its own, with the standard
library's client: nothing is shared, so any thread may call, whatever event
loops run in others.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
from collections.abc import Iterable, Mapping
from typing import Self, Unpack
from urllib.parse import urlsplit

from keyturn.errors import ConfigurationError, KeyturnError, MissingExtra
from keyturn.testing.handle import Body, Handle
from keyturn.testing.process import Process
from keyturn.testing.records import Switches

_HEADER = "x-keyturn-control"


class StrictServer(Handle):
    """A strict authorization and API server in a process of its own, on a loopback port.

    Takes the settings of `Settings` by name. It starts with `start()` or on
    entering a `with`; `close()` or the end of the `with` ends it, and so does
    the end of the process that started it. May be used from any thread.

    Raises MissingExtra where h11 is not installed, ConfigurationError for a
    setting that is none.
    """

    def __init__(self, **settings: Unpack[Switches]) -> None:
        try:
            import h11  # noqa: F401
        except ImportError:
            raise MissingExtra("keyturn.testing needs h11: pip install 'keyturn[testing]'") from None
        super().__init__(settings)
        self._given = dict(settings)
        self._process: Process | None = None

    # The process

    def start(self) -> Self:
        """Start the process and return when it listens.

        Raises KeyturnError, with what it wrote to stderr, where it does not
        come up within 10 seconds.
        """
        if self._process is not None:
            raise KeyturnError("the strict server was started before")
        self._process = Process(_flags(self._given))
        return self

    def close(self) -> None:
        """End the process, and return when it has ended. May be called again, and before a start."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<StrictServer {'not running' if self._process is None else self._process.url}>"

    @property
    def url(self) -> str:
        """The origin, such as "http://127.0.0.1:40123"."""
        return self._running().url

    # The API

    def hold_api(self, n: int) -> None:
        """Answer none of the next `n` API requests until all of them have arrived."""
        if n < 1:
            raise ConfigurationError("hold_api holds at least one request")
        self._control("hold_api", n=n)

    def fail_api(
        self,
        status: int,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        times: int = 1,
        path: str | None = None,
    ) -> None:
        """Answer the next `times` API requests (to `path`) with this, whatever their token."""
        self._fault("api", status, headers, body, times, path)

    def drop_api(self, times: int = 1, path: str | None = None) -> None:
        """Close the connection of the next `times` API requests (to `path`) without an answer."""
        self._fault("api", None, None, None, times, path)

    # Talking to the process

    def _ask(self, path: str, body: bytes, answers_within: float) -> tuple[int, bytes, Iterable[str]]:
        process = self._running()
        host = urlsplit(process.url).netloc
        headers = {"Content-Type": "application/json", _HEADER: process.secret}
        with contextlib.closing(http.client.HTTPConnection(host, timeout=answers_within)) as connection:
            try:
                connection.request("POST", path, body, headers)
                answer = connection.getresponse()
                return answer.status, answer.read(), answer.headers.get_all("Set-Cookie", [])
            except (OSError, http.client.HTTPException) as error:
                raise KeyturnError(f"the strict server does not answer {path}: {process.stderr()}") from error

    def _check(self, settings: Switches) -> None:
        super()._check(settings)
        if settings.get("client_auth") == "private_key_jwt" and importlib.util.find_spec("joserfc") is None:
            raise MissingExtra("private_key_jwt needs joserfc: pip install 'keyturn[private-key-jwt]'")

    def _running(self) -> Process:
        if self._process is None:
            raise KeyturnError("the strict server is not running")
        return self._process


def _flags(settings: Mapping[str, object]) -> list[str]:
    flags = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        flags += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}={value}"]
    return flags

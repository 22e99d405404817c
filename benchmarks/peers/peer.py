"""What a client must show to be measured."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import keyturn

TIMEOUT = 20.0  # seconds, of every request of every client
LIFETIME = 3600.0  # seconds, of an access token: some of the clients take less than five minutes for expired
CLIENT_ID = "benchmark"
TLS = ssl.create_default_context()  # one for all: nobody here speaks TLS, and making one takes long


class Get(Protocol):
    """Send a GET and return its status, or a coroutine that does; `timeout` is in seconds."""

    def __call__(self, url: str, timeout: float = TIMEOUT) -> Any: ...


Connect = Callable[[], AbstractContextManager[Get] | AbstractAsyncContextManager[Get]]


@dataclass(frozen=True)
class Peer:
    """A library on an HTTP library, in its own best use.

    `open(url, tokens)` takes up a session and returns `connect`, which makes
    an HTTP client on it, to be shared by threads or by the tasks of one loop;
    `each` thread gets one of its own if so. `package` is what its version is
    looked up of.
    """

    library: str
    host: str
    kind: Literal["threads", "tasks"]
    open: Callable[[str, keyturn.Tokens], Connect]
    package: str
    each: bool = False

    @property
    def name(self) -> str:
        """Return what the peer is called on the command line."""
        return f"{self.library}/{self.host}/{self.kind}"

"""Worker: a process with credentials, which obeys commands. `python -m tests.processes.worker LOG`.

Commands come as one line of JSON each, `{"id": 1, "do": "get", "count": 50}`,
and are answered by one line each, `{"id": 1, …}`, whenever they are done: each
runs on a thread of its own. A command that fails is answered with `error`, the
name of the exception, and what it carries. Lines with `notice` instead of an
id tell what the worker does by itself: that it pauses. A token is never said.

    open                  make credentials as in `Settings`; earlier ones are closed
    get                   send `count` requests from `loops` event loops and `threads` threads
    tokens                epoch, generation and seconds to live of the tokens at hand; no I/O
    get_tokens, renew, retry_unknown, sign_in, sign_out, close        as `Credentials` has them
    wait                  answer when `count` events of `kind` have been seen since `open`
    events                all that have been seen since: kind, epoch, generation, cause
    pause, go_on          see `pauses.py`
    fork                  fork; the child obeys commands over the Unix socket at `path`

It ends when its input does. Everything that Python complains of goes to
stderr, everything that keyturn logs to the file LOG.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, cast

import keyturn
from keyturn.client import events
from tests.processes import callers
from tests.processes.pauses import Pauses
from tests.processes.settings import Settings, credentials_of

Answer = dict[str, Any]

# Python 3.12 and later warn of every fork beside threads; what it warns of is what is tested here.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)


class Channel:
    """Lines of JSON, read and written on file descriptors."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._lock = threading.Lock()

    def commands(self) -> Iterator[dict[str, Any]]:
        """Return the commands as they come, until the other side has gone."""
        rest = b""
        while data := os.read(self._incoming, 65536):
            *lines, rest = (rest + data).split(b"\n")
            yield from map(json.loads, lines)

    def say(self, what: Answer) -> None:
        """Write one line, whole."""
        line = json.dumps(what).encode() + b"\n"
        with self._lock:
            while line:
                line = line[os.write(self._outgoing, line) :]


class Worker:
    """Obeys the commands of one channel, with one set of credentials."""

    def __init__(self, channel: Channel) -> None:
        self._pauses = Pauses(lambda place: self._channel.say({"notice": "paused", "at": place}))
        self._credentials: keyturn.Credentials | None = None
        self._serves(channel)

    def _serves(self, channel: Channel) -> None:
        self._channel = channel
        self._seen: list[events.Event] = []
        self._heard = threading.Condition()

    def obey(self) -> None:
        """Obey until nobody is left to tell anything."""
        self._channel.say({"notice": "ready", "pid": os.getpid()})
        for command in self._channel.commands():
            if command["do"] == "fork":
                self._fork(**command)
                continue
            threading.Thread(target=self._answer, kwargs=command, daemon=True).start()

    def _answer(self, *, id: int, do: str, **what: Any) -> None:  # noqa: A002
        method: Callable[..., Answer | None] = getattr(self, f"do_{do}")
        try:
            answer = method(**what) or {}
        except keyturn.KeyturnError as error:
            facts = {key: value for key, value in vars(error).items() if not key.startswith("_")}
            answer = {**facts, "error": type(error).__name__, "message": str(error)}
        except Exception as error:  # noqa: BLE001 - told to the test
            answer = {"error": type(error).__name__, "message": traceback.format_exc()}
        self._channel.say({"id": id, **answer})

    def _fork(self, *, id: int, do: str, path: str) -> None:  # noqa: A002
        pid = os.fork()
        if pid:
            self._channel.say({"id": id, "pid": pid})
            return
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1):  # which are the parent's, and end when it does
            os.dup2(nothing, stream)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        self._serves(Channel(connection.fileno(), connection.fileno()))
        with connection:
            self.obey()
        sys.exit(0)

    # Commands

    def do_open(self, **settings: Any) -> None:
        """Make credentials."""
        self.do_close()
        given = cast(Settings, settings)
        self._pauses.hook(given.get("store", "memory://"))
        self._seen = []
        self._credentials = credentials_of(given, self._pauses.http, self._hear)
        self._url = given["url"]

    def do_close(self, timeout: float | None = None) -> None:
        """Close the credentials, if there are any."""
        self._pauses.go_on()
        if self._credentials is not None:
            self._credentials.close(timeout)
        self._credentials = None

    def do_get(self, **how: Any) -> Answer:
        """Send requests to the API."""
        return {"outcomes": callers.send(self._mine, self._url, **how)}

    def do_tokens(self) -> Answer:
        """Tell of the tokens at hand."""
        return self._told(self._mine.tokens)

    def do_get_tokens(self, min_ttl: float | None = None, timeout: float | None = None) -> Answer:
        """Get tokens that are fresh."""
        needed = None if min_ttl is None else timedelta(seconds=min_ttl)
        return self._told(self._mine.get_tokens(needed, timeout))

    def do_renew(self, timeout: float | None = None) -> Answer:
        """Report the tokens at hand as refused."""
        current = self._mine.tokens
        if current is None:
            raise keyturn.NotSignedIn("no tokens at hand")
        return self._told(self._mine.renew(current, timeout))

    def do_retry_unknown(self, timeout: float | None = None) -> Answer:
        """Send the token again whose outcome is unknown."""
        return self._told(self._mine.retry_unknown(timeout))

    def do_sign_in(self, tokens: dict[str, Any]) -> Answer:
        """Sign in."""
        self._mine.sign_in(keyturn.Tokens(**tokens))
        return self._told(self._mine.tokens)

    def do_sign_out(self, timeout: float | None = None) -> None:
        """Sign out."""
        self._mine.sign_out(timeout)

    def do_wait(self, kind: str, count: int = 1, timeout: float = 50.0) -> Answer:
        """Wait for events."""
        with self._heard:
            if not self._heard.wait_for(lambda: self._count(kind) >= count, timeout):
                seen = [type(event).__name__ for event in self._seen]
                raise TimeoutError(f"{self._count(kind)} of {count} {kind}: {seen}")
        return {}

    def do_events(self) -> Answer:
        """Tell of the events so far."""
        return {"events": [_fact(event) for event in self._seen]}

    def do_pause(self, at: Any) -> None:
        """Pause at a place to come."""
        self._pauses.at(at)

    def do_go_on(self) -> None:
        """Go on from a place."""
        self._pauses.go_on()

    # Their parts

    @property
    def _mine(self) -> keyturn.Credentials:
        if self._credentials is None:
            raise RuntimeError("no credentials: open first")
        return self._credentials

    def _told(self, tokens: keyturn.client.Snapshot | None) -> Answer:
        if tokens is None:
            return {"epoch": None, "generation": None, "expires_in": None}
        left = None if tokens.expires_at is None else tokens.expires_at - self._mine._clock()
        return {"epoch": tokens.epoch, "generation": tokens.generation, "expires_in": left}

    def _hear(self, event: events.Event) -> None:
        with self._heard:
            self._seen.append(event)
            self._heard.notify_all()

    def _count(self, kind: str) -> int:
        return sum(type(event).__name__ == kind for event in self._seen)


def _fact(event: events.Event) -> Answer:
    cause = getattr(event, "cause", None)
    said = None if cause is None else callers.said(cause)
    return {
        "kind": type(event).__name__,
        "epoch": event.epoch,
        "generation": event.generation,
        "cause": said,
    }


class _Log(logging.Handler):
    """A log that is silent while there is no room for it.

    It has no buffer: a child that is forked in the middle of a line would
    inherit the buffer's lock, and wait for it for ever.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; complain of anything but a limit that a test has set."""
        try:
            os.write(self._file, f"{self.format(record)}\n".encode())
        except OSError as error:
            if error.errno != errno.EFBIG:
                self.handleError(record)


def log_to(path: str) -> None:
    """Write what keyturn logs to a file."""
    handler = _Log(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(threadName)s %(message)s"))
    logger = logging.getLogger("keyturn")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    # In development mode asyncio warns of callbacks that take 100 ms, as any may on a busy machine.
    logging.getLogger("asyncio").addFilter(lambda record: not record.getMessage().startswith("Executing "))


if __name__ == "__main__":
    log_to(sys.argv[1])
    Worker(Channel(0, 1)).obey()

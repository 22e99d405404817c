"""Handles: a worker as the tests see it. `fleet.py` tells how to come by one.

    worker.ask("get", count=50)           sends a command; `.answer()` waits for what comes of it
    worker.do("tokens"), worker.ok(…)     both; see `worker.py` for the commands
    worker.get(50), worker.waits(50)      requests; and wait until so many callers wait for a refresh
    worker.pause("saving"), .paused()     see `pauses.py`
    worker.kill(), .stop(), .go_on_after_stop()       SIGKILL, SIGSTOP, SIGCONT

Every wait is bounded, so that a worker that hangs fails its test.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any, Unpack, cast

from tests.processes.callers import at_once
from tests.processes.pauses import Place
from tests.processes.settings import Settings
from tests.waiting import WITHIN

Answer = dict[str, Any]

_ROOT = Path(__file__).parents[2]
_STRICT = ("-X", "dev", "-W", "error")
_LOG_SHOWN = 10000
_OF_CALLERS = re.compile(" (waiting|waited|replayed): ")


class Gone(Exception):
    """The worker has ended, so there will be no answer."""


class Asked:
    """A command that was sent."""

    def __init__(self, said: str, answer: Future[Answer]) -> None:
        self._said, self._answer = said, answer

    def answer(self, timeout: float = WITHIN) -> Answer:
        """Wait for the answer. Raises Gone where the worker ends before, TimeoutError where it hangs."""
        try:
            return self._answer.result(timeout)
        except TimeoutError:
            raise TimeoutError(f"no answer to {self._said} within {timeout} s") from None

    @property
    def outcomes(self) -> Counter[str]:
        """Wait for the requests of a `get`; return how many came to what: a status, or an error's name."""
        answer = self.answer()
        assert "outcomes" in answer, answer
        return Counter(answer["outcomes"])

    @property
    def is_open(self) -> bool:
        """Tell whether there is no answer yet."""
        return not self._answer.done()

    def then(self, call: Callable[[Answer | None], None]) -> None:
        """Have `call` called with the answer when it comes, on any thread; None if the worker ends before."""
        self._answer.add_done_callback(lambda done: call(None if done.exception() else done.result()))


class Worker:
    """A worker, over a pair of pipes or, for the child of one, over a socket."""

    def __init__(self, incoming: IO[bytes], outgoing: IO[bytes], pid: int = 0) -> None:
        self.pid = pid
        self._incoming, self._outgoing = incoming, outgoing
        self._asked: dict[int, tuple[str, Future[Answer]]] = {}
        self._lock = threading.Lock()
        self._numbers = iter(range(1, sys.maxsize))
        self._notices: queue.Queue[Answer | None] = queue.Queue()
        self._is_gone = False
        self._is_stopped = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.pid = int(self._notice("ready")["pid"])

    def __repr__(self) -> str:
        return f"<Worker {self.pid}>"

    # Commands

    def ask(self, do: str, **what: Any) -> Asked:
        """Send a command."""
        answer: Future[Answer] = Future()
        with self._lock:
            if self._is_gone:
                raise Gone(f"{self} has ended")
            number = next(self._numbers)
            self._asked[number] = (do, answer)
            with contextlib.suppress(BrokenPipeError):  # the reader tells that it has gone
                self._outgoing.write(json.dumps({"id": number, "do": do, **what}).encode() + b"\n")
                self._outgoing.flush()
        return Asked(f"{do} by {self}", answer)

    def do(self, do: str, **what: Any) -> Answer:
        """Send a command and wait for the answer, which may be an error: see `ok`."""
        return self.ask(do, **what).answer()

    def ok(self, do: str, **what: Any) -> Answer:
        """Send a command that must not fail, and wait for the answer."""
        answer = self.do(do, **what)
        assert "error" not in answer, answer
        return answer

    def open(self, **settings: Unpack[Settings]) -> None:
        """Make new credentials."""
        self.ok("open", **settings)

    def get(self, count: int, *, loops: int = 1, threads: int = 0) -> Asked:
        """Send requests to the API: see `Asked.outcomes`."""
        return self.ask("get", count=count, loops=loops, threads=threads)

    def waits(self, count: int, *, loops: int = 1, threads: int = 0) -> None:
        """Return once all callers of such a `get`, the only one so far, have begun to wait for a refresh."""
        self.saw("Waiting", at_once(count, loops=loops, threads=threads))

    def saw(self, kind: str, count: int = 1) -> None:
        """Return once it has seen `count` events of `kind` since it was opened."""
        self.ok("wait", kind=kind, count=count)

    def events(self, kind: str | None = None) -> list[Answer]:
        """Return the events that it has seen since it was opened: kind, epoch, generation, cause."""
        return [one for one in self.ok("events")["events"] if kind in {None, one["kind"]}]

    def pause(self, at: Place) -> None:
        """Have it pause once at `at`."""
        self.ok("pause", at=at)

    def paused(self) -> str:
        """Wait until it pauses; return where."""
        return str(self._notice("paused")["at"])

    def go_on(self) -> None:
        """Let it go on from where it pauses."""
        self.ok("go_on")

    def fork(self) -> Worker:
        """Have it fork; return the child, a worker with the same credentials."""
        with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
            path = str(Path(directory, "child"))
            listener.bind(path)
            listener.listen()
            listener.settimeout(WITHIN)
            self.ok("fork", path=path)
            connection, _ = listener.accept()
        with connection:
            connection.settimeout(None)
            return Worker(connection.makefile("rb"), connection.makefile("wb"))

    # Signals

    def kill(self) -> None:
        """End it by SIGKILL, and return when it has ended."""
        os.kill(self.pid, signal.SIGKILL)
        self._reader.join(WITHIN)
        assert not self._reader.is_alive(), "somebody else holds its output open"

    def stop(self) -> None:
        """Stop it by SIGSTOP, and return when it has stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)
        self._is_stopped = True

    def go_on_after_stop(self) -> None:
        """Let it go on, by SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)
        self._is_stopped = False

    # Its end

    @property
    def is_idle(self) -> bool:
        """Tell whether it lives, and has answered everything."""
        return not (self._is_gone or self._is_stopped or self._asked)

    def end(self) -> None:
        """Tell it that there is nothing more to do: it ends by itself."""
        self._outgoing.close()

    def close(self) -> None:
        """Kill it if it lives, and let go of it."""
        if not self._is_gone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._reader.join(WITHIN)
        for stream in (self._incoming, self._outgoing):
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    # Reading

    def _read(self) -> None:
        for line in self._lines():
            told = json.loads(line)
            if "notice" in told:
                self._notices.put(told)
                continue
            with self._lock:
                _, answer = self._asked.pop(told.pop("id"))
            answer.set_result(told)
        with self._lock:
            self._is_gone = True
            unanswered = list(self._asked.values())
        for said, answer in unanswered:
            answer.set_exception(Gone(f"{self} has ended, and did not answer {said}"))
        self._notices.put(None)

    def _lines(self) -> Iterator[bytes]:
        with contextlib.suppress(ConnectionError):
            yield from self._incoming

    def _notice(self, kind: str) -> Answer:
        try:
            told = self._notices.get(timeout=WITHIN)
        except queue.Empty:
            raise TimeoutError(f"{self} was to say {kind!r}") from None
        if told is None:
            raise Gone(f"{self} has ended, and was to say {kind!r}")
        assert told["notice"] == kind, told
        return told


class Started(Worker):
    """A worker that this process has started; `within` is a command that runs it somewhere else."""

    def __init__(self, environment: Mapping[str, str] | None = None, within: Sequence[str] = ()) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - a file never fills up, as a pipe would
        self._log = tempfile.NamedTemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [*within, sys.executable, *_STRICT, "-m", "tests.processes.worker", self._log.name],
            cwd=_ROOT,
            env=os.environ | dict(environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )
        try:
            super().__init__(cast("IO[bytes]", self.process.stdout), cast("IO[bytes]", self.process.stdin))
        except Gone:
            raise RuntimeError(f"a worker does not start: {self.stderr()}") from None

    def close(self) -> None:
        """Kill it if it lives, and let go of it."""
        super().close()
        self.process.wait(WITHIN)
        self._stderr.close()
        self._log.close()

    def leave(self) -> None:
        """Have it end in the ordinary way, and check that it does so without a complaint."""
        self.end()
        assert self.ended() == (0, "")
        self._reader.join(WITHIN)

    def ended(self) -> tuple[int, str]:
        """Wait for its end; return its exit code and what it wrote to stderr."""
        code = self.process.wait(WITHIN)
        return code, self.stderr()

    def stderr(self) -> str:
        """Return what it has written to stderr so far."""
        return _content(self._stderr.fileno())

    def log(self) -> str:
        """Return the end of what keyturn has logged in it, without what each caller waited for."""
        lines = _content(self._log.fileno()).splitlines()
        return "\n".join(line for line in lines if not _OF_CALLERS.search(line))[-_LOG_SHOWN:]


def _content(descriptor: int) -> str:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")

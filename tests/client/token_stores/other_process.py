"""Another process that opens a token store: the program, and the handle by which a test tells it what to do.

Test and program speak in lines of JSON, so a test knows what has happened and
never waits by the clock. The URL goes over the pipe, not over the command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from keyturn.client.record import Record, Version
from keyturn.client.token_stores import Lease, TokenStore, new_store
from keyturn.errors import KeyturnError
from tests.client.token_stores.kit import a_record, leased, on_loop
from tests.waiting import WITHIN

ROOT = Path(__file__).parents[3]
Answer = dict[str, Any]


class OtherProcess:
    """A process with a store object of its own; ended, by force if need be, at the end of `with`."""

    def __init__(self, url: str, environment: Mapping[str, str] | None = None) -> None:
        self._noise = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-W", "error", "-m", __name__],
            cwd=ROOT,
            env=os.environ | dict(environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._noise,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        self.tell({"url": url})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._process.poll() is None:
                self.end()
        finally:
            self.kill()
            self._reader.join(WITHIN)
            for stream in (self._process.stdin, self._process.stdout):
                assert stream is not None
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
            self._noise.close()

    @property
    def pid(self) -> int:
        """Return the process's number."""
        return self._process.pid

    def tell(self, request: Answer) -> None:
        """Ask for something, without waiting for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Answer:
        """Return the next answer."""
        line = self._lines.get(timeout=WITHIN)
        assert line, f"the process has ended: {self.noise()}"
        answer: Answer = json.loads(line)
        return answer

    def ask(self, do: str, **arguments: object) -> Any:
        """Have something done; return its result. A KeyturnError is returned by the name of its class."""
        self.tell({"do": do, **arguments})
        return self.hear()["result"]

    def noise(self) -> str:
        """Return what the process wrote to its standard error."""
        self._noise.seek(0)
        return self._noise.read().decode()

    def stop(self) -> None:
        """Halt it in its tracks."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on after `stop`."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it as the kernel does when memory is short: without a word."""
        self._process.kill()
        self._process.wait(WITHIN)

    def end(self) -> None:
        """End it as a program ends, and see that nothing was amiss."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert (self._process.wait(WITHIN), self.noise()) == (0, "")

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")


class Program:
    """What the other process does: each method is something to ask for."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._store: TokenStore = new_store(url)
        self._leases: dict[str, Lease] = {}

    def run(self, request: Answer) -> Any:
        """Do what is asked; return the result, or the name of a KeyturnError."""
        request = dict(request)
        try:
            return getattr(self, request.pop("do"))(**request)
        except KeyturnError as error:
            return type(error).__name__

    def hello(self) -> str:
        """Say that the process is there."""
        return "here"

    def read(self, name: str) -> str | None:
        """Return a record as JSON."""
        record = on_loop(lambda: self._store.read(name)).record
        return None if record is None else record.to_json()

    def write(self, name: str, record: str, over: list[Any] | None, under: bool = False) -> bool:
        """Write a record that is given as JSON."""
        parsed = Record.from_json(record)
        lease = self._leases[name] if under else None
        return on_loop(lambda: self._store.write(name, parsed, over=_version(over), under=lease))

    def remove(self, name: str) -> bool:
        """Forget a name."""
        return on_loop(lambda: self._store.remove(name))

    def lease(self, name: str, seconds: float) -> bool:
        """Try for the lease of a name, and keep it."""
        lease = on_loop(lambda: self._store.try_lease(name, seconds))
        if lease is not None:
            self._leases[name] = lease
        return lease is not None

    def held(self, name: str) -> bool:
        """Tell whether the lease of a name is still held."""
        return self._leases[name].held

    def release(self, name: str) -> None:
        """Release the lease of a name."""
        on_loop(self._leases[name].release)

    def race(self, name: str, until: int) -> list[int]:
        """Write generation after generation, as fast as the others allow; return the ones that were ours."""
        return on_loop(lambda: self._race(name, until))

    async def _race(self, name: str, until: int) -> list[int]:
        ours: list[int] = []
        over: Version | None = None
        while over is None or over[1] < until:
            generation = 0 if over is None else over[1] + 1
            mine = a_record(name, generation=generation, sealed=f"{os.getpid()}:{generation}")
            if await self._store.write(name, mine, over=over):
                ours.append(generation)
            record = (await self._store.read(name)).record
            assert record is not None
            over = record.version
        return ours

    def take_turns(self, name: str, times: int, seconds: float, witness: str) -> int:
        """Take the lease so many times; return how often somebody else had it at the same time."""
        return on_loop(lambda: self._take_turns(name, times, seconds, witness))

    async def _take_turns(self, name: str, times: int, seconds: float, witness: str) -> int:
        broken = 0
        for _ in range(times):
            lease = await leased(self._store, name, seconds)
            try:
                os.close(os.open(witness, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                broken += 1
            await asyncio.sleep(0)
            broken += not lease.held
            with contextlib.suppress(FileNotFoundError):
                os.unlink(witness)  # noqa: PTH108 - takes no time
            await lease.release()
        return broken

    def fork(self, then: list[Answer], stay: bool = False) -> Answer:
        """Fork; return the child's pid and what it got for what it did with a store of its own.

        The child exits as a program does, or stays until it is killed.
        """
        ends, begins = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
            child = os.fork()
        if child == 0:
            os.close(ends)
            self._store.abandon()
            inherited = [lease.held for lease in self._leases.values()]
            self._store = new_store(self._url)
            results = [self.run(request) for request in then]
            with os.fdopen(begins, "w") as pipe:
                json.dump({"held": inherited, "results": results}, pipe)
            while stay:
                time.sleep(600)
            on_loop(self._store.aclose)
            sys.exit(0)
        os.close(begins)
        with os.fdopen(ends) as pipe:
            answer: Answer = json.load(pipe)
        if not stay:
            answer["status"] = os.waitpid(child, 0)[1]
        return answer | {"pid": child}

    def spawn(self) -> int:
        """Start a program that inherits all that is inheritable, and stays; return its pid."""
        program = "import time; print('here', flush=True); time.sleep(600)"
        self._child = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, close_fds=False
        )
        assert self._child.stdout is not None
        assert self._child.stdout.readline()
        return self._child.pid

    def limit_files(self, size: int) -> None:
        """Let no file grow beyond `size` bytes, as a quota does."""
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    def become(self, user: int) -> None:
        """Go on as another user, whom permissions hold for."""
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)

    def close(self) -> None:
        """Close the store."""
        on_loop(self._store.aclose)


def _version(given: list[Any] | None) -> Version | None:
    return None if given is None else (given[0], given[1])


def main() -> None:
    """Do what the lines of standard input say until they end."""
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # in development mode it warns of slow callbacks
    program = Program(json.loads(sys.stdin.readline())["url"])
    while line := sys.stdin.readline():
        sys.stdout.write(json.dumps({"result": program.run(json.loads(line))}) + "\n")
        sys.stdout.flush()
    program.close()


if __name__ == "__main__":
    main()

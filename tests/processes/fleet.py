"""Fleet: the workers of a test.

    fleet.crew(8, tokens=…, window=…)     workers that all hold the same credentials (`Settings`)
    fleet.one(…), fleet.child_of(worker)  one more; the child of one that forks
    together([…])                         what came of the requests of several, counted

A worker serves one test after another, with new credentials each time; who
was killed, or has not answered everything by the end of a test, does not.
Whatever a worker writes to stderr fails the test, unless it was killed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack, cast

from keyturn import Tokens
from tests.processes.handles import Asked, Gone, Started, Worker
from tests.processes.settings import Settings, written


class Yard:
    """Where workers wait for the next test, all started with one environment, within one command."""

    def __init__(self, environment: Mapping[str, str] | None = None, within: Sequence[str] = ()) -> None:
        self._environment, self._within = environment, within
        self._idle: list[Started] = []

    def take(self) -> Started:
        """Return a worker without credentials."""
        return self._idle.pop() if self._idle else Started(self._environment, self._within)

    def take_back(self, worker: Started) -> None:
        """Keep a worker for another test."""
        self._idle.append(worker)

    def close(self) -> None:
        """End all workers in the ordinary way. Raises AssertionError for what they complain of."""
        for worker in self._idle:
            worker.end()
        ends = [worker.ended() for worker in self._idle]
        for worker in self._idle:
            worker.close()
        assert ends == [(0, "")] * len(ends), ends


class Fleet:
    """The workers of one test. All hold the credentials that `settings` describe."""

    def __init__(self, yard: Yard, **settings: Unpack[Settings]) -> None:
        self._yard, self._settings = yard, settings
        self._workers: list[Started] = []
        self._children: list[Worker] = []

    def crew(
        self, count: int, *, tokens: Tokens | None = None, lifetime: float | None = None, **settings: Any
    ) -> list[Started]:
        """Return `count` more workers with credentials: `tokens` are the seed, `settings` as in `Settings`.

        With `lifetime` the seed says that it has lived for most of that: a
        token with little left is then refreshed while it is still used.
        """
        crew = [self._yard.take() for _ in range(count)]
        self._workers += crew
        given = self.settings(tokens=tokens, lifetime=lifetime, **settings)
        for asked in [worker.ask("open", **given) for worker in crew]:
            answer = asked.answer()
            assert "error" not in answer, answer
        return crew

    def one(self, *, tokens: Tokens | None = None, lifetime: float | None = None, **settings: Any) -> Started:
        """Return one more worker: see `crew`."""
        return self.crew(1, tokens=tokens, lifetime=lifetime, **settings)[0]

    def settings(
        self, *, tokens: Tokens | None = None, lifetime: float | None = None, **settings: Any
    ) -> Settings:
        """Return what `crew` has its workers open, for `Worker.open`."""
        seed = None if tokens is None else written(tokens, lifetime)
        return cast(Settings, {**self._settings, "tokens": seed, **settings})

    def child_of(self, worker: Worker) -> Worker:
        """Have a worker fork; return the child, which ends with the test."""
        child = worker.fork()
        self._children.append(child)
        return child

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for child in self._children:
            child.close()
        complaints = self._close_credentials()
        for worker in self._workers:
            complaints += [said for said in [worker.stderr()] if said and worker.is_idle]
            print(f"{worker}, of its log:\n{worker.log()}{worker.stderr()}")  # noqa: T201 - shown on failure
            if worker.is_idle and not worker.stderr():
                self._yard.take_back(worker)
            else:
                worker.close()
        if error is None:
            assert not complaints, complaints

    def _close_credentials(self) -> list[str]:
        """Have nothing in the air any more, for the next test's sake; return what went wrong."""
        complaints = []
        for asked in [worker.ask("close") for worker in self._workers if worker.is_idle]:
            try:
                answer = asked.answer()
            except (Gone, TimeoutError) as error:
                complaints.append(repr(error))
            else:
                complaints += [answer["message"]] if "error" in answer else []
        return complaints


def together(asked: Iterable[Asked]) -> Counter[str]:
    """Wait for the requests of several `get`s; return how many came to what."""
    return sum((one.outcomes for one in asked), Counter[str]())

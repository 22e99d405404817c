"""Generator: a seed's schedule, a pure function.

A schedule is a few episodes. Each makes a situation (a process caught at a
place, an exchange held by the server, a storm) and strikes into it; and
sometimes nothing but chance decides what a strike meets.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Set
from typing import TypeVar

from tests.processes.pauses import PLACES
from tests.processes.schedules.steps import HOLDER, MENDS, STORE_FAULTS, Schedule, Step

T = TypeVar("T")

STRICT, LONG, SHORT = 0.0, 30.0, 4.0
_LIFE = 60.0


def schedule(kind: str, seed: int, faults: Set[str]) -> Schedule:
    """Return the schedule of a seed for a kind of store that can suffer `faults`."""
    return _Writer(kind, seed, faults).written()


class _Writer:
    def __init__(self, kind: str, seed: int, faults: Set[str]) -> None:
        self._kind, self._seed = kind, seed
        self._random = random.Random(f"{kind} {seed}")
        self._faults = sorted(faults & STORE_FAULTS)
        self._steps: list[Step] = []
        self._window = self._one(STRICT, STRICT, LONG, LONG, SHORT)
        self._timeout = 3.0
        self._crew = self._random.randint(2, 4)
        self._alive = {f"w{i + 1}" for i in range(self._crew)}
        self._down = False

    def written(self) -> Schedule:
        episodes: list[Callable[[], None]] = [
            *[self._caught] * 6,
            *[self._held] * 3,
            self._late,
            *[self._lost_answer] * 3,
            *[self._chaos] * 2,
            self._slow,
            self._failing,
            self._signing,
            self._signing,
            self._renewal,
            self._storm,
            self._revoked,
            *([self._store_fault] * 3 if self._faults else []),
        ]
        count = self._random.randint(2, 4)
        for episode in self._random.choices(episodes, k=count):
            episode()
            if self._random.random() < 0.7:
                self._do("settle")
            self._revive()
        retry_for = 8.0 if self._window else self._one(2.0, 8.0)
        return Schedule(
            kind=self._kind,
            seed=self._seed,
            crew=self._crew,
            window=self._window,
            timeout=self._timeout,
            retry_for=retry_for,
            ttl=self._one(_LIFE, _LIFE, _LIFE, 1.5),
            first_ttl=self._one(_LIFE, -1.0, -1.0),
            steps=tuple(self._steps),
        )

    # Episodes

    def _storm(self) -> None:
        self._expire()
        self._ask(*self._everyone())

    def _caught(self) -> None:
        """Catch a process on its way through a refresh, and strike."""
        victim, others = self._split()
        place = self._one(*PLACES)
        self._expire()
        self._do("pause", victim, place)
        self._ask(victim)
        self._do("caught", victim)
        stops_first = self._random.random() < 0.3
        if stops_first:
            self._do("stop", victim)
        if others:
            self._ask(*self._some(others))
        self._meanwhile(others)
        if self._random.random() < 0.4:
            self._kill(victim)
            return
        if not stops_first and self._random.random() < 0.4:
            self._do("stop", victim)
            stops_first = True
        self._pass_by()
        if stops_first:
            self._do("wake", victim)
        self._do("go_on", victim)

    def _late(self) -> None:
        """Stop whoever is about to save, until somebody has signed in or out without waiting any longer."""
        victim, others = self._split()
        if not others or self._window == LONG:
            return
        self._timeout = 1.0
        self._expire()
        self._do("pause", victim, "saving")
        self._ask(victim)
        self._do("caught", victim)
        self._do("stop", victim)
        self._do(self._one("sign_in", "sign_out"), self._one(*others))
        self._do("settle")
        self._do("wake", victim)
        self._do("go_on", victim)

    def _held(self) -> None:
        """Strike while an exchange is at the server."""
        self._expire()
        self._do("hold", how=self._one("before", "after"))
        self._ask(*self._everyone())
        self._do("arrived")
        strike = self._one("kill", "kill", "stop", "meanwhile", "nothing")
        if strike in {"kill", "stop"}:
            self._do(strike, HOLDER)
        self._meanwhile(self._everyone() if strike in {"meanwhile", "nothing"} else [])
        self._do("release")
        if strike == "stop":
            self._pass_by()
            self._do("wake", HOLDER)

    def _lost_answer(self) -> None:
        """Drop answers on their way."""
        self._do("drop", how=self._one("after", "after", "before"), times=self._one(1, 1, 2))
        self._expire()
        self._ask(*self._everyone())
        if self._random.random() < 0.3:
            self._pass_by()
            self._kill(self._one(*self._everyone()))

    def _chaos(self) -> None:
        """Let chance decide what a strike meets; what the dead have sent is decided as in `_slow`."""
        seconds = round(self._random.uniform(0.05, 0.3), 2)
        self._do("delay", how=seconds)
        self._expire()
        self._ask(*self._everyone())
        self._do("wait", how=round(self._random.uniform(0.0, 0.3), 3))
        victim = self._one(*self._everyone())
        if self._random.random() < 0.5:
            self._kill(victim)
        else:
            self._do("stop", victim)
            self._pass_by()
            self._do("wake", victim)
        self._do("delay", how=0)
        self._do("wait", how=seconds)

    def _slow(self) -> None:
        """Let exchanges take longer than anybody waits for them, or nearly.

        What was given up is decided late. All of it is, before anything else
        happens: a copy that comes when its successor is spent is reuse.
        """
        self._timeout = 1.0
        seconds = self._one(0.3, 1.6)
        self._do("delay", how=seconds)
        self._expire()
        self._ask(*self._everyone())
        self._do("settle")
        self._do("delay", how=0)
        self._do("wait", how=seconds)

    def _failing(self) -> None:
        self._do("fail", how=self._one(503, 429, 500), times=self._one(1, 2))
        self._expire()
        self._ask(*self._everyone())

    def _signing(self) -> None:
        who = self._one(*self._everyone())
        if self._random.random() < 0.4:
            self._expire()
            self._ask(*self._some(self._everyone()))
        self._do(self._one("sign_in", "sign_out"), who)
        if self._random.random() < 0.5:
            self._do("settle")
        if self._random.random() < 0.5:
            self._ask(*self._everyone())

    def _renewal(self) -> None:
        """End a process in the ordinary way, and begin anew with the seed of old."""
        who = self._one(*self._everyone())
        if self._random.random() < 0.5:
            self._expire()
            self._ask(*self._some(self._everyone()))
        self._do("close", who)
        self._do("start", who)
        self._ask(who)

    def _revoked(self) -> None:
        """End the session where it is kept."""
        self._do("revoke")
        self._ask(*self._everyone())
        self._do("settle")
        self._do("sign_in", self._one(*self._everyone()))
        self._do("settle")

    def _store_fault(self) -> None:
        if self._random.random() < 0.7:
            self._expire()
            self._ask(*self._some(self._everyone()))
            self._do("wait", how=round(self._random.uniform(0.0, 0.1), 3))
        self._strike_store()

    # Their parts

    def _meanwhile(self, others: list[str]) -> None:
        """Have something else happen at the same time, perhaps."""
        chance = self._random.random()
        if chance < 0.12 and others:
            self._do("sign_in", self._one(*others))
        elif chance < 0.24 and others:
            self._do("sign_out", self._one(*others))
        elif chance < 0.36 and others:
            self._expire()
        elif chance < 0.6 and self._faults:
            self._strike_store()
        elif chance < 0.7 and len(others) > 1:
            self._kill(self._one(*others))

    def _strike_store(self) -> None:
        fault = self._one(*self._faults)
        self._do(fault)
        if fault in MENDS:
            self._pass_by()
            self._do(MENDS[fault])

    def _pass_by(self) -> None:
        longest = 5.0 if self._window == SHORT and self._random.random() < 0.3 else 0.6
        self._do("wait", how=round(self._random.uniform(0.05, longest), 2))

    def _expire(self) -> None:
        self._do("expire")

    def _ask(self, *who: str) -> None:
        for one in who:
            if self._random.random() < 0.15:
                self._do("tokens", one)
            else:
                self._do("get", one, self._random.randint(1, 4))

    def _kill(self, who: str) -> None:
        self._do("kill", who)
        self._alive.discard(who)

    def _revive(self) -> None:
        """Have a process begin for one that was killed, perhaps; somebody has to be there."""
        for one in sorted({f"w{i + 1}" for i in range(self._crew)} - self._alive):
            if not self._alive or self._random.random() < 0.5:
                self._do("start", one)
                self._alive.add(one)

    def _split(self) -> tuple[str, list[str]]:
        everyone = self._everyone()
        victim = self._one(*everyone)
        return victim, [one for one in everyone if one != victim]

    def _everyone(self) -> list[str]:
        return sorted(self._alive) or ["w1"]

    def _some(self, of: list[str]) -> list[str]:
        return sorted(self._random.sample(of, self._random.randint(1, len(of))))

    def _one(self, *of: T) -> T:
        return self._random.choice(of)

    def _do(self, do: str, who: str = "", how: str | float | int | None = None, times: int = 1) -> None:
        self._steps.append(Step(do, who, how, times))

"""Stage: plays a schedule, one step after another, and writes down what happens."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from keyturn.testing import StrictServer
from keyturn.tokens import Tokens
from tests.processes.handles import Answer, Gone
from tests.processes.schedules.account import Account, Arrival, Asked, Sent
from tests.processes.schedules.grounds import Ground, Unread
from tests.processes.schedules.nursery import Nursery, Nursling
from tests.processes.schedules.steps import HOLDER, MENDS, STORE_FAULTS, Schedule, Step
from tests.processes.settings import Settings, written

BOUND = 45.0  # seconds within which everybody has an answer
_CATCH, _ARRIVE = 3.0, 3.0
_PROMPT = 15.0  # seconds for a command that waits for nobody
_SIGHTS = {"SignedIn", "Refreshed", "Found", "Adopted"}


@dataclass
class Actor:
    """A process that takes part. `name` is what it calls itself at the server."""

    name: str
    worker: Nursling
    asked: list[Asked] = field(default_factory=list)

    @property
    def waits(self) -> bool:
        """Tell whether something that it was asked is open."""
        return any(one.over is None for one in self.asked)


class Stage:
    """One schedule on one ground, with one strict server."""

    def __init__(self, schedule: Schedule, nursery: Nursery, server: StrictServer, ground: Ground) -> None:
        self.schedule, self.server, self.ground = schedule, server, ground
        self.account = Account(schedule)
        self.name = f"alice-{uuid.uuid4().hex[:12]}"
        self._nursery = nursery
        self._slots: dict[str, Actor] = {}
        self._everyone: dict[str, Nursling] = {}
        self._held_by: Actor | None = None
        self._before = 0
        self._sign_ins = self._begun = self._gets = 0
        server.reset()
        server.configure(window=schedule.window, ttl=schedule.ttl)
        self._seed = self.signed_in(schedule.first_ttl)

    # Whoever takes part

    @property
    def actors(self) -> list[Actor]:
        """Return who is there, in order."""
        return [actor for _, actor in sorted(self._slots.items()) if not actor.worker.is_gone]

    def signed_in(self, ttl: float | None = None) -> Tokens:
        """Return the first tokens of a new session."""
        self._sign_ins += 1
        return self.server.sign_in(f"alice {self._sign_ins}", ttl)

    def play(self) -> None:
        """Carry out all steps."""
        for i in range(self.schedule.crew):
            self._start(f"w{i + 1}")
        self.look()
        for step in self.schedule.steps:
            self.account.say(f"-- {step}")
            self.account.moments.append((time.monotonic(), step.do))
            self._carry_out(step)
            self.look()

    def look(self) -> None:
        """Write down what the record is now."""
        account = self.account
        try:
            record = self.ground.read(self.name)
        except Unread:
            return
        last = account.records[-1][1] if account.records else None
        if record != last or not account.records:
            account.records.append((time.monotonic(), record))
            account.say(f"the record: {_told(record)}")

    def ask(self, actor: Actor, do: str, **what: Any) -> Asked:
        """Give a command, and wait for nothing."""
        asked = Asked(actor.name, do, time.monotonic())

        def over(answer: Answer | None) -> None:
            asked.answer, asked.over = answer, time.monotonic()
            said = "gone" if answer is None else ", ".join(f"{n} {one}" for one, n in asked.outcomes.items())
            self.account.say(f"{actor.name} {do}: {said}")

        actor.asked.append(asked)
        if do in {"get", "get_tokens", "sign_in", "sign_out", "close"}:
            self.account.asked.append(asked)
        try:
            actor.worker.ask(do, **what).then(over)
        except Gone:
            over(None)
        return asked

    def get(self, actor: Actor, count: int) -> Asked:
        """Have a process send requests, each of which says which it is."""
        self._gets += 1
        return self.ask(actor, "get", count=count, label=str(self._gets))

    def answered(self, actor: Actor, do: str, **what: Any) -> Answer | None:
        """Give a command and wait for the answer; None where there is none in time."""
        try:
            return actor.worker.ask(do, **what).answer(_PROMPT)
        except (Gone, TimeoutError):
            return None

    def settle(self, within: float = BOUND) -> None:
        """Wait until all who run have their answers."""
        if not self.wait(lambda: not any(one.waits for one in self.actors if self._runs(one)), within):
            open_ = [
                f"{one.who} {one.do}" for actor in self.actors for one in actor.asked if one.over is None
            ]
            self.account.breaks(f"a caller was left hanging for {within:g} s: {', '.join(open_)}")

    def wait(self, condition: Callable[[], bool], within: float) -> bool:
        """Wait for a condition; tell whether it came to that."""
        ends = time.monotonic() + within
        while not condition():
            if time.monotonic() > ends:
                return False
            time.sleep(0.003)
        return True

    def arrivals(self) -> list[Arrival]:
        """Return the exchanges that the server has seen."""
        return [Arrival.of(seen) for seen in self.server.seen if seen.path == "/token"]

    def sent(self) -> list[Sent]:
        """Return the requests to the API that the server has seen."""
        return [Sent.of(seen) for seen in self.server.seen if seen.query.startswith("request=")]

    def let_all_go(self) -> None:
        """End all that holds anybody."""
        self.server.release()
        for actor in self.actors:
            if actor.worker.is_stopped:
                actor.worker.go_on_after_stop()
        for actor in self.actors:
            self.answered(actor, "go_on")

    def begin_again(self) -> None:
        """Have somebody there."""
        if not self.actors:
            self._start("w1")

    def history(self, actor: Actor) -> None:
        """Write down what a process has held so far."""
        answer = self.answered(actor, "events")
        if answer is not None:
            self.account.histories[actor.name] = [
                (one["epoch"], one["generation"])
                for one in answer["events"]
                if one["kind"] in _SIGHTS and one["generation"] >= 0
            ]

    def logs(self) -> str:
        """Return the ends of all logs."""
        return "\n".join(f"{name}:\n{one.log()}{one.complaints()}" for name, one in self._everyone.items())

    def clear(self) -> None:
        """End everybody, and forget the name."""
        for worker in self._everyone.values():
            worker.close()
        self.ground.forget(self.name)

    def sweep(self) -> None:
        """Remove what they have written."""
        for worker in self._everyone.values():
            worker.forget()

    # Steps

    def _carry_out(self, step: Step) -> None:
        verb = step.do
        if verb in STORE_FAULTS or verb in MENDS.values():
            self.ground.strike(verb)
        elif verb == "wait":
            time.sleep(float(cast(float, step.how)))
        elif verb == "settle":
            self.settle()
        elif verb == "start":
            self._start(step.who)
        elif step.who:
            actor = self._whom(step)
            if actor is None or actor.worker.is_gone:
                self.account.say("   there is nobody")
            else:
                getattr(self, f"_{verb}")(actor, step)
        else:
            getattr(self, f"_{verb}")(step)

    def _whom(self, step: Step) -> Actor | None:
        if step.who != HOLDER:
            return self._slots.get(step.who)
        if step.do != "wake":
            arrivals = self.arrivals()[self._before :]
            names = {actor.name: actor for actor in self.actors}
            self._held_by = names.get(arrivals[-1].who) if arrivals else None
        if self._held_by is not None:
            self.account.say(f"   the holder is {self._held_by.name}")
        return self._held_by

    def _runs(self, actor: Actor) -> bool:
        return not actor.worker.is_stopped and not actor.worker.is_gone

    def _start(self, slot: str) -> None:
        there = self._slots.get(slot)
        if there is not None and not there.worker.is_gone:
            self.account.say("   it is there")
            return
        self._begun += 1
        actor = self._slots[slot] = Actor(f"{slot}-{self._begun}", self._nursery.one())
        self._everyone[actor.name] = actor.worker
        self.account.processes.append(actor.name)
        schedule = self.schedule
        settings: Settings = {
            "url": self.server.url,
            "store": self.ground.url,
            "name": self.name,
            "tokens": written(self._seed),
            "window": schedule.window,
            "timeout": schedule.timeout,
            "retry_for": schedule.retry_for,
            "client": actor.name,
        }
        answer = self.answered(actor, "open", **settings)
        if answer is None or "error" in answer:
            self.account.breaks(f"{actor.name} does not begin: {answer}")

    def _close(self, actor: Actor, step: Step) -> None:
        if not self._runs(actor):
            return
        self.history(actor)
        asked = self.ask(actor, "close")
        if not self.wait(lambda: asked.over is not None, BOUND):
            self.account.breaks(f"{actor.name} does not close")
        elif not actor.worker.leave():
            self.account.breaks(f"{actor.name} does not end")
        elif actor.worker.complaints():
            self.account.breaks(f"{actor.name} complains: {actor.worker.complaints()}")

    def _get(self, actor: Actor, step: Step) -> None:
        self.get(actor, cast(int, step.how))

    def _tokens(self, actor: Actor, step: Step) -> None:
        self.ask(actor, "get_tokens")

    def _sign_in(self, actor: Actor, step: Step) -> None:
        self.ask(actor, "sign_in", tokens=written(self.signed_in()))

    def _sign_out(self, actor: Actor, step: Step) -> None:
        self.ask(actor, "sign_out")

    def _pause(self, actor: Actor, step: Step) -> None:
        if self._runs(actor):
            self.answered(actor, "pause", at=step.how)

    def _caught(self, actor: Actor, step: Step) -> None:
        if not self._runs(actor):
            return
        places: list[str] = []

        def is_caught() -> bool:
            place = actor.worker.catches()
            places.extend([] if place is None else [place])
            return bool(places) or not actor.waits

        self.wait(is_caught, _CATCH)
        self.account.say(f"   {'at ' + places[0] if places else 'not there'}")

    def _go_on(self, actor: Actor, step: Step) -> None:
        if self._runs(actor):
            self.answered(actor, "go_on")

    def _kill(self, actor: Actor, step: Step) -> None:
        actor.worker.kill()

    def _stop(self, actor: Actor, step: Step) -> None:
        actor.worker.stop()

    def _wake(self, actor: Actor, step: Step) -> None:
        actor.worker.go_on_after_stop()

    def _hold(self, step: Step) -> None:
        self._before = len(self.arrivals())
        self.server.hold_refresh(cast(Any, step.how))

    def _arrived(self, step: Step) -> None:
        def is_there() -> bool:
            return len(self.arrivals()) > self._before or not any(actor.waits for actor in self.actors)

        self.wait(is_there, _ARRIVE)

    def _release(self, step: Step) -> None:
        self.server.release()

    def _drop(self, step: Step) -> None:
        self.server.drop_refresh(step.times, rotated=step.how == "after")

    def _fail(self, step: Step) -> None:
        headers = {"Retry-After": "1"} if step.how == 429 else {}
        self.server.fail_refresh(cast(int, step.how), headers=headers, times=step.times)

    def _delay(self, step: Step) -> None:
        self.server.configure(refresh_delay=float(cast(float, step.how)))

    def _expire(self, step: Step) -> None:
        self.server.expire()

    def _revoke(self, step: Step) -> None:
        self.server.revoke()


def _told(record: Any) -> str:
    if record is None:
        return "none"
    marked = ", marked" if record.marker else ""
    failed = f", failed: {record.failure.error}" if record.failure else ""
    ended = f", {record.ended}" if record.ended else ""
    return f"epoch {record.epoch[:4]}, generation {record.generation}{ended}{marked}{failed}"

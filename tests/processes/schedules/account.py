"""Account: what happened while a schedule was played, as the judge is told it."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from keyturn.client.record import Record, fingerprint
from keyturn.testing.records import Seen, Stats
from tests.processes.schedules.steps import Schedule

SWEEPER = "sweeper"  # the client that uses up what faults are left
SPENT_NOTHING = {429, 503}  # and 4xx: the server says that it has done nothing


@dataclass
class Asked:
    """A command to a process: when it was given, and what came of it when."""

    who: str
    do: str
    at: float
    over: float | None = None
    answer: Mapping[str, Any] | None = None

    @property
    def outcomes(self) -> dict[str, int]:
        """Return what came of it, counted; nothing where the process ended before."""
        if self.answer is None:
            return {}
        if "error" in self.answer:
            reason = f" {self.answer['reason']}" if self.answer.get("reason") else ""
            return {f"{self.answer['error']}{reason}": 1}
        counted: dict[str, int] = {}
        for one in self.answer.get("outcomes", ["200"]):
            counted[one] = counted.get(one, 0) + 1
        return counted


@dataclass(frozen=True)
class Arrival:
    """An exchange as the server saw it: whose, of which refresh token, when, and how it was answered."""

    who: str
    token: str
    at: float
    status: int | None
    answered_at: float | None

    @property
    def spent_nothing(self) -> bool:
        """Tell whether the server has said that the token is as good as before."""
        return self.status in SPENT_NOTHING

    @classmethod
    def of(cls, seen: Seen) -> Arrival:
        """Return what was seen as an arrival; its token is a fingerprint."""
        form = parse_qs(seen.body.decode())
        return cls(
            form.get("client_id", ["?"])[0],
            fingerprint(form.get("refresh_token", ["?"])[0])[:8],
            seen.at,
            seen.status,
            seen.answered_at,
        )


@dataclass(frozen=True)
class Sent:
    """A request to the API as the server saw it: which one, and whose token it carried."""

    request: str
    subject: str

    @classmethod
    def of(cls, seen: Seen) -> Sent:
        """Return what was seen as a request."""
        payload = seen.headers["authorization"].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return cls(seen.query, str(claims["sub"]))


@dataclass
class Account:
    """Everything that the judge may look at. Times are on this machine's monotonic clock."""

    schedule: Schedule
    began: float = field(default_factory=time.monotonic)
    lines: list[tuple[float, str]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    records: list[tuple[float, Record | None]] = field(default_factory=list)
    processes: list[str] = field(default_factory=list)
    histories: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    moments: list[tuple[float, str]] = field(default_factory=list)  # the verbs that were carried out
    stats: Stats = field(default_factory=Stats)
    broken: list[str] = field(default_factory=list)
    signed_in_at_the_end: list[str] = field(default_factory=list)  # and why that was in order
    ended: float | None = None  # when the faults did

    def say(self, what: str) -> None:
        """Write down what happens now."""
        self.lines.append((time.monotonic() - self.began, what))

    def breaks(self, what: str) -> None:
        """Write down that an invariant does not hold."""
        self.broken.append(what)
        self.say(f"BROKEN: {what}")

    def did(self, *verbs: str, before: float | None = None) -> bool:
        """Tell whether any of these was carried out, before a moment."""
        return any(verb in verbs and (before is None or at <= before) for at, verb in self.moments)

    @property
    def text(self) -> str:
        """Return what happened, line by line."""
        return "\n".join(f"  {at:7.3f}  {what}" for at, what in sorted(self.lines, key=lambda one: one[0]))

"""Steps: what can happen in a schedule, as data that a reader can follow.

    get, tokens          a process sends requests, asks for tokens; nobody waits for the answers
    sign_in, sign_out    a process signs in, signs out; nobody waits for it
    start, close         a process begins with the seed of old, ends in the ordinary way
    pause, caught, go_on a process is to stop itself at a place; until it does; it goes on
    kill, stop, wake     SIGKILL, SIGSTOP, SIGCONT, to a process or to whoever has sent the last exchange
    hold, arrived, release    the server holds exchanges; until one is there; it lets them go
    drop, fail, delay    the server closes the connection, answers with an error, takes its time
    expire, revoke       the server refuses all access tokens of now, ends all sessions
    disconnect, restart, lose     the connections of the store end, its server does, its data goes
    down, up, freeze, thaw        its server is gone for a while, or answers nobody
    wait, settle         seconds go by; until all who run have their answers

What has no subject happens to the server of the tokens, or to the store.
"""

from __future__ import annotations

from dataclasses import dataclass

HOLDER = "the holder"

STORE_FAULTS = frozenset({"disconnect", "restart", "down", "freeze", "lose"})
MENDS = {"down": "up", "freeze": "thaw"}  # what ends a fault that does not end by itself


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what, by or to whom, and how."""

    do: str
    who: str = ""
    how: str | float | int | None = None
    times: int = 1

    def __str__(self) -> str:
        said = " ".join(str(one) for one in (self.who, self.do, self.how) if one not in ("", None))
        return said + (f" x{self.times}" if self.times != 1 else "")


@dataclass(frozen=True, slots=True)
class Schedule:
    """A seed's schedule. Times are in seconds; `window` is the server's and the grant's, 0 is strict."""

    kind: str
    seed: int
    crew: int
    window: float
    timeout: float
    retry_for: float
    ttl: float
    first_ttl: float
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        rules = f"window {self.window:g}, timeout {self.timeout:g}, retry_for {self.retry_for:g}"
        ages = f"tokens live {self.ttl:g} s, the seed {self.first_ttl:g} s"
        head = f"{self.kind}, seed {self.seed}: {self.crew} processes; {rules}; {ages}"
        return "\n".join([head, *(f"  {i:2} {step}" for i, step in enumerate(self.steps, 1))])

    def has(self, *verbs: str) -> bool:
        """Tell whether any of these happens."""
        return any(step.do in verbs for step in self.steps)

"""What is done to every client, on a strict server of its own, and what is counted.

    expired N       N requests at once, with a token that has expired and whose expiry is known
    revoked N       the same with a token that is believed valid, and refused
    cancelled       the first caller leaves while its refresh is under way and the token is spent:
                    a task is cancelled, a thread's request has a time-out of 0.3 s (which not every
                    client hands on to its refresh); then 49 others come
    loops           100 tasks in 4 event loops, in threads, on one session; 25 tasks a loop
    dead            50 requests with an expired token, in a session that was ended on the server
    503             the token end point answers 503 to 50 requests with an expired token

Refresh tokens are single-use and a refresh takes 50 ms. Afterwards a session
has ended on the server, or it goes on there; then the client is stuck if one
more request of its own is not answered.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

from benchmarks.peers.callers import Callers, Outcome, Tasks, callers
from benchmarks.peers.peer import LIFETIME, Connect, Peer

import keyturn
from keyturn.testing import StrictServer

REFRESH = 0.05
_LOOPS, _GIVES_UP, _A_WHILE = 4, 0.3, 0.2


@dataclass(frozen=True)
class Result:
    """What a client did: `seconds` is from the start of its requests to the last outcome."""

    token_calls: int
    outcomes: dict[str, int]
    session: Literal["goes on", "stuck", "ended"]
    seconds: float

    @property
    def requests(self) -> int:
        return sum(self.outcomes.values())

    @property
    def answered(self) -> int:
        return self.outcomes.get("200", 0)


@dataclass(frozen=True)
class Row:
    """One thing that is done: its title, and whether its outcome is failures or a live session."""

    title: str
    run: Callable[[Peer, StrictServer], Result]
    fails: bool = False
    tasks_only: bool = False


def _urls(server: StrictServer, count: int) -> list[str]:
    return [f"{server.url}/statistics/{i}" for i in range(count)]


def _outcomes(futures: Sequence[Future[Outcome]]) -> list[Outcome]:
    return [future.result() for future in futures]


def _result(
    server: StrictServer, tokens: keyturn.Tokens, outcomes: list[Outcome], seconds: float, *on: Callers
) -> Result:
    calls = server.stats.refreshes + sum(one.path == "/login" for one in server.seen)
    counted = dict(Counter(map(str, outcomes)))
    answered = [_outcomes(one.start([server.url + "/statistics/after"])) == [200] for one in on]
    for one in on:
        one.close()
    session: Literal["goes on", "stuck", "ended"] = "goes on" if all(answered) else "stuck"
    return Result(calls, counted, session if server.alive(tokens) else "ended", seconds)


def _storm(count: int, *, expired: bool) -> Callable[[Peer, StrictServer], Result]:
    def run(peer: Peer, server: StrictServer) -> Result:
        tokens = server.sign_in(ttl=0.0 if expired else LIFETIME)
        if not expired:
            server.expire()
        on = callers(peer, peer.open(server.url, tokens))
        started = time.monotonic()
        outcomes = _outcomes(on.start(_urls(server, count)))
        took = time.monotonic() - started
        return _result(server, tokens, outcomes, took, on)

    return run


def _cancelled(peer: Peer, server: StrictServer) -> Result:
    tokens = server.sign_in(ttl=0.0)
    on = callers(peer, peer.open(server.url, tokens))
    server.hold_refresh("after")
    leader, *_ = on.start(_urls(server, 1), timeout=_GIVES_UP)
    server.wait_for(rotations=1)
    if peer.kind == "tasks":
        leader.cancel()
    else:
        time.sleep(_GIVES_UP + _A_WHILE)
    started = time.monotonic()
    others = on.start(_urls(server, 50)[1:])
    time.sleep(_A_WHILE)
    server.release()
    outcomes = _outcomes(others)
    took = time.monotonic() - started
    return _result(server, tokens, outcomes, took, on)


def _loops(peer: Peer, server: StrictServer) -> Result:
    tokens = server.sign_in(ttl=0.0)
    connect: Connect = peer.open(server.url, tokens)
    loops = [Tasks(connect) for _ in range(_LOOPS)]
    started = time.monotonic()
    futures = [future for on in loops for future in on.start(_urls(server, 25))]
    outcomes = _outcomes(futures)
    took = time.monotonic() - started
    return _result(server, tokens, outcomes, took, *loops)


def _failing(break_: Callable[[StrictServer], None]) -> Callable[[Peer, StrictServer], Result]:
    def run(peer: Peer, server: StrictServer) -> Result:
        tokens = server.sign_in(ttl=0.0)
        break_(server)
        on = callers(peer, peer.open(server.url, tokens))
        started = time.monotonic()
        outcomes = _outcomes(on.start(_urls(server, 50)))
        took = time.monotonic() - started
        result = _result(server, tokens, outcomes, took)
        on.close()
        return result

    return run


ROWS = {
    "expired-50": Row("50 expired", _storm(50, expired=True)),
    "expired-200": Row("200 expired", _storm(200, expired=True)),
    "revoked-50": Row("50 revoked", _storm(50, expired=False)),
    "revoked-200": Row("200 revoked", _storm(200, expired=False)),
    "cancelled": Row("first caller gone, 49", _cancelled),
    "loops": Row("4 loops, 100", _loops, tasks_only=True),
    "dead": Row("dead refresh token", _failing(lambda server: server.revoke()), fails=True),
    "503": Row("503", _failing(lambda server: server.fail_refresh(503, times=10**6)), fails=True),
}


def measure(peer: Peer, row: str) -> Result:
    """Do one row to one client."""
    with StrictServer(ttl=LIFETIME, refresh_delay=REFRESH) as server:
        return ROWS[row].run(peer, server)

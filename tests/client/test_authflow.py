"""authflow: what becomes of a refused request, as a table, and the journey driven by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

import keyturn
from keyturn.client.answer import Answer
from keyturn.client.authflow import MOST_REPLAYS, Journey, Step, Verdict, authflow, judge
from keyturn.client.carriers import Bearer
from keyturn.client.snapshot import Snapshot
from keyturn.testing import Clock

CLOCK = Clock()
SENT = Snapshot.first(keyturn.Tokens("sent", "r0", CLOCK() + 60, 60.0), CLOCK()).next(
    keyturn.Tokens("access", "r1", CLOCK() + 60, 60.0), CLOCK()
)
CURRENT: dict[str, Snapshot | None] = {
    "nobody": None,
    "another": Snapshot.first(keyturn.Tokens("other", "s0", CLOCK() + 60, 60.0), CLOCK()).next(SENT, CLOCK()),
    "another, newer": Snapshot.first(SENT, CLOCK()).next(SENT, CLOCK()).next(SENT, CLOCK()),
    "the same": SENT,
    "newer": SENT.next(keyturn.Tokens("newer", "r2", CLOCK() + 60, 60.0), CLOCK()),
}

# Who is signed in now; whether the request still carried its tokens; whether it was renewed for; the verdict.
TABLE = """
    nobody          carried  renewed  RENEW
    nobody          carried  -        RENEW
    nobody          lost     renewed  RENEW
    nobody          lost     -        RENEW
    another         carried  renewed  RENEW
    another         carried  -        RENEW
    another         lost     renewed  RENEW
    another         lost     -        RENEW
    another, newer  carried  renewed  RENEW
    another, newer  carried  -        RENEW
    another, newer  lost     renewed  RENEW
    another, newer  lost     -        RENEW
    the same        carried  renewed  HAND_OVER
    the same        carried  -        RENEW
    the same        lost     renewed  REPLAY
    the same        lost     -        REPLAY
    newer           carried  renewed  REPLAY
    newer           carried  -        REPLAY
    newer           lost     renewed  REPLAY
    newer           lost     -        REPLAY
"""
ROWS = [line.strip().replace("   ", "  ").split("  ") for line in TABLE.strip().splitlines()]
CASES = [[cell.strip() for cell in row if cell.strip()] for row in ROWS]


def test_the_table_has_every_case_once() -> None:
    cases = {tuple(row[:3]) for row in CASES}
    assert len(cases) == len(CASES) == len(CURRENT) * 2 * 2


@pytest.mark.parametrize("replays", [0, 1, 2, 9])
@pytest.mark.parametrize(("now", "carried", "renewed", "verdict"), CASES)
def test_a_refused_request_is_judged_by_the_table(
    now: str, carried: str, renewed: str, verdict: str, replays: int
) -> None:
    assert (
        judge(
            carried=carried == "carried",
            snapshot=SENT,
            current=CURRENT[now],
            renewed=renewed == "renewed",
            replays=replays,
        )
        is Verdict[verdict]
    )


@pytest.mark.parametrize("replays", [10, 11, 1000])
@pytest.mark.parametrize(("now", "carried", "renewed", "verdict"), CASES)
def test_after_ten_replays_the_caller_gets_the_response_whatever_else_is_so(
    now: str, carried: str, renewed: str, verdict: str, replays: int
) -> None:
    outcome = judge(
        carried=carried == "carried",
        snapshot=SENT,
        current=CURRENT[now],
        renewed=renewed == "renewed",
        replays=replays,
    )
    assert outcome is Verdict.HAND_OVER
    assert MOST_REPLAYS == 10


# The journey, driven by hand


class FakeCall:
    """A request that is sent by the test: `answers` are the statuses to come."""

    method = "POST"
    destination = "https://elsewhere.example"

    def __init__(self, *, ours: bool = True, repeatable: bool = True) -> None:
        self.attached: list[Snapshot] = []
        self._ours, self._repeatable = ours, repeatable

    def serves(self, credentials: keyturn.Credentials) -> bool:
        return self._ours

    def attach(self, snapshot: Snapshot) -> None:
        self.attached.append(snapshot)

    def refused(self, response: int) -> bool:
        return response == 401

    def arrived_at(self, response: int) -> None:
        pass

    def carries(self, snapshot: Snapshot) -> bool:
        return True

    def replayable(self) -> bool:
        return self._repeatable

    def withhold(self) -> None:
        pass

    def status(self, response: int) -> int:
        return response

    def answer(self, response: int) -> Answer:
        headers: Mapping[str, str] = {}
        return Answer(response, headers, CLOCK())


class Switched(keyturn.Credentials):
    """Credentials whose holder changes at a moment of the test's choosing."""

    on_depart: keyturn.Tokens | None = None

    def depart(self, snapshot: Snapshot) -> bool:
        if self.on_depart is not None:
            self.sign_in(self.on_depart)
            self.on_depart = None
            return False
        return super().depart(snapshot)


async def _no_refresh(tokens: keyturn.Tokens, http: Any) -> keyturn.Tokens:
    raise AssertionError("no refresh is due")


def _tokens(name: str) -> keyturn.Tokens:
    return keyturn.Tokens(name, name + "-refresh", CLOCK() + 60, 60.0)


def _credentials(**options: Any) -> Switched:
    origins = ["https://api.example"]
    return Switched(_no_refresh, origins=origins, clock=CLOCK, tokens=_tokens("alice"), **options)


def _drive(flow: Journey[int], answer: Callable[[], int]) -> int:
    """Take a journey to its end; `answer` sends, and every wait is over at once."""
    try:
        step = next(flow)
        while True:
            step = flow.send(answer() if step is Step.SEND else None)
    except StopIteration as end:
        return int(end.value)


def _overtake(credentials: keyturn.Credentials) -> None:
    """Let somebody else bring newer tokens."""
    carried = credentials.tokens
    assert carried is not None
    assert credentials.adopt(_tokens(f"alice-{carried.generation + 1}"), carried)


def test_a_request_for_another_origin_is_sent_as_it_is() -> None:
    call = FakeCall(ours=False)

    assert _drive(authflow(_credentials(), call), lambda: 401) == 401
    assert call.attached == []


def test_a_superseded_refusal_is_replayed_ten_times_and_then_handed_over() -> None:
    credentials, call = _credentials(), FakeCall()

    def refuse() -> int:
        _overtake(credentials)
        return 401

    assert _drive(authflow(credentials, call), refuse) == 401
    assert [snapshot.generation for snapshot in call.attached] == list(range(1 + MOST_REPLAYS))
    assert not credentials.turnstile.crowded


def test_a_request_that_is_given_up_leaves_the_turnstile() -> None:
    credentials, call = _credentials(), FakeCall()
    flow = authflow(credentials, call)
    step = next(flow)
    while not credentials.turnstile.crowded:
        if step is Step.SEND:
            _overtake(credentials)
        step = flow.send(401 if step is Step.SEND else None)

    flow.close()

    assert not credentials.turnstile.crowded


def test_nothing_crosses_an_epoch_between_judging_a_request_and_sending_it_again() -> None:
    names = {"access": "X-Access", "refresh": "X-Refresh"}
    credentials, call = _credentials(carrier=Bearer(adopt=names)), FakeCall()
    alice = credentials.tokens
    assert alice is not None

    def refuse() -> int:
        _overtake(credentials)
        credentials.on_depart = _tokens("bob")
        return 401

    with pytest.raises(keyturn.SessionEnded) as ended:
        _drive(authflow(credentials, call), refuse)

    assert ended.value.reason == "replaced"
    assert [snapshot.epoch for snapshot in call.attached] == [alice.epoch]

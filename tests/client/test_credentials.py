"""Credentials without a server: zones, obstacles, cool-downs, adoption, late refusals, epochs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest

import keyturn
from keyturn.client import events, grants
from keyturn.client.gate import Gate
from keyturn.client.snapshot import Snapshot
from keyturn.testing import Clock

LIFE = 60.0
FRESH, ADVISORY, MANDATORY, EXPIRED = 40.0, 50.0, 58.0, 61.0  # seconds into that life, whatever the jitter
LONG = 30.0  # seconds that nothing here takes: a wait this long is a hang


class EndPoint:
    """A token end point in memory: gives `answers` in order, and new pairs when there are none left."""

    def __init__(self, clock: Clock) -> None:
        self.answers: deque[httpx2.Response | Exception] = deque()
        self.clock = clock
        self.requests: list[str] = []
        self.expires_in = LIFE
        self.open = Gate()
        self.open.open()
        self.on_request: Callable[[], None] = lambda: None

    def hold(self) -> None:
        """Answer nothing until `open.open()`."""
        self.open = Gate()

    def arrived(self, count: int) -> None:
        """Return when there have been `count` requests."""
        _until(lambda: len(self.requests) >= count)

    def client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.MockTransport(self._answer))

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        form = dict(pair.split("=") for pair in request.content.decode().split("&"))
        self.requests.append(form["refresh_token"])
        self.on_request()
        await self.open.wait_async()
        answer = self.answers.popleft() if self.answers else self._pair()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _pair(self) -> httpx2.Response:
        name = f"new{len(self.requests)}"
        pair = {"access_token": name, "refresh_token": name + "-refresh", "expires_in": self.expires_in}
        return httpx2.Response(200, json=pair)


class Case:
    """Credentials of a fake clock, and their end point."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.end_point = EndPoint(self.clock)
        self.events: list[events.Event] = []
        grant = grants.OAuth2(
            "https://id.example/token", http=self.end_point.client, **options.pop("grant", {})
        )
        tokens = options.pop("tokens", self.tokens("old"))
        self.credentials = keyturn.Credentials(
            grant,
            origins=["https://api.example"],
            clock=self.clock,
            on_event=self.events.append,
            **({"tokens": tokens, "retry_for": timedelta(0)} | options),
        )

    def tokens(self, name: str, life: float = LIFE, refresh: bool = True) -> keyturn.Tokens:
        return keyturn.Tokens(
            name, name + "-refresh" if refresh else None, self.clock() + life, max(0.0, life)
        )

    @property
    def current(self) -> Snapshot:
        assert self.credentials.tokens is not None
        return self.credentials.tokens

    @property
    def asked(self) -> int:
        return len(self.end_point.requests)

    def settled(self) -> None:
        """Return when nothing is in the air."""
        _until(lambda: self.credentials._flight is None)

    def get(self) -> Snapshot:
        return self.credentials.get_tokens(timeout=LONG)


def _until(reached: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10.0
    while not reached():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.001)


def _in_thread(work: Callable[[], Snapshot]) -> list[Snapshot | keyturn.KeyturnError]:
    """Start `work` in a thread; return the list that gets what became of it."""
    outcome: list[Snapshot | keyturn.KeyturnError] = []

    def run() -> None:
        try:
            outcome.append(work())
        except keyturn.KeyturnError as error:
            outcome.append(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome


@pytest.fixture
def case() -> Case:
    return Case()


# Zones


@pytest.mark.parametrize("age", [0.0, FRESH])
def test_a_fresh_token_is_handed_out_without_a_request(case: Case, age: float) -> None:
    case.clock.advance(age)

    assert case.get() is case.current
    assert case.credentials.fresh() is case.current
    assert case.asked == 0


def test_an_advisory_token_is_handed_out_at_once_while_one_refresh_runs(case: Case) -> None:
    case.clock.advance(ADVISORY)
    case.end_point.hold()

    assert [case.get().access for _ in range(5)] == ["old"] * 5
    case.end_point.arrived(1)
    assert case.get().access == "old"
    case.end_point.open.open()
    case.settled()

    assert (case.get().access, case.asked) == ("new1", 1)


@pytest.mark.parametrize("age", [MANDATORY, EXPIRED])
def test_a_mandatory_token_is_renewed_before_anyone_goes_on(case: Case, age: float) -> None:
    case.clock.advance(age)

    assert (case.get().access, case.get().access, case.asked) == ("new1", "new1", 1)


def test_an_expired_token_is_never_handed_out_as_a_success(case: Case) -> None:
    case.clock.advance(EXPIRED)
    case.end_point.answers.extend([httpx2.Response(403), httpx2.ConnectError("refused")])

    with pytest.raises(keyturn.RefreshMisconfigured):
        case.get()
    case.clock.advance(60.0)
    with pytest.raises(keyturn.RefreshUnavailable):
        case.get()


def test_a_token_that_expires_while_its_holder_waits_is_not_handed_out(case: Case) -> None:
    case.clock.advance(MANDATORY)
    case.end_point.answers.append(httpx2.ConnectError("refused"))
    case.end_point.on_request = lambda: case.clock.advance(EXPIRED - MANDATORY)

    with pytest.raises(keyturn.RefreshUnavailable):
        case.get()


def test_a_token_without_an_expiry_is_fresh_until_it_is_refused() -> None:
    case = Case(tokens=keyturn.Tokens("old", "old-refresh"))
    case.clock.advance(1e9)

    assert (case.get().access, case.asked) == ("old", 0)
    assert case.credentials.renew(case.current, timeout=LONG).access == "new1"


def test_min_ttl_asks_for_one_refresh_and_takes_the_server_at_its_word(case: Case) -> None:
    assert case.credentials.get_tokens(timedelta(seconds=30)).access == "old"
    assert case.credentials.get_tokens(timedelta(hours=12), timeout=LONG).access == "new1"
    assert case.credentials.get_tokens(timedelta(hours=12), timeout=LONG).access == "new1"
    assert case.asked == 1


def test_a_pair_that_is_born_expired_costs_one_request_and_is_handed_out(case: Case) -> None:
    case.clock.advance(EXPIRED)
    case.end_point.expires_in = 0.0

    assert (case.get().access, case.asked) == ("new1", 1)


# Obstacles


def test_without_a_sign_in_there_is_nothing_to_hand_out() -> None:
    case = Case(tokens=None)

    for call in (case.get, lambda: case.credentials.retry_unknown(timeout=LONG)):
        with pytest.raises(keyturn.NotSignedIn):
            call()
    assert case.asked == 0


def test_without_a_refresh_token_a_valid_token_is_used_to_its_end() -> None:
    case = Case()
    case.credentials.sign_in(case.tokens("old", refresh=False))
    case.clock.advance(MANDATORY)
    assert case.get().access == "old"

    case.clock.advance(EXPIRED - MANDATORY)
    with pytest.raises(keyturn.NotSignedIn):
        case.get()
    assert case.asked == 0


def test_an_unknown_outcome_stops_nobody_whose_token_is_valid_and_everybody_after_it(case: Case) -> None:
    case.clock.advance(MANDATORY)
    case.end_point.answers.append(httpx2.ReadError("reset"))
    assert [case.get().access for _ in range(3)] == ["old"] * 3

    case.clock.advance(3600.0)
    for _ in range(3):
        with pytest.raises(keyturn.OutcomeUnknown):
            case.get()
        with pytest.raises(keyturn.OutcomeUnknown):
            case.credentials.renew(case.current, timeout=LONG)
    assert case.asked == 1

    assert case.credentials.retry_unknown(timeout=LONG).access == "new2"
    assert case.end_point.requests == ["old-refresh", "old-refresh"]


def test_an_adopted_pair_is_a_way_out_of_an_unknown_outcome(case: Case) -> None:
    case.clock.advance(EXPIRED)
    case.end_point.answers.append(httpx2.ReadError("reset"))
    with pytest.raises(keyturn.OutcomeUnknown):
        case.get()

    assert case.credentials.adopt(case.tokens("adopted"), case.current)
    case.clock.advance(EXPIRED)
    assert case.get().access == "new2"
    assert case.end_point.requests[1] == "adopted-refresh"


def test_a_declared_window_is_measured_on_the_clock_that_shows_more() -> None:
    case = Case(grant={"replay_window": timedelta(seconds=20)}, retry_for=timedelta(seconds=30))
    case.clock.advance(EXPIRED)
    case.end_point.answers.append(httpx2.ReadError("reset"))
    case.end_point.on_request = lambda: case.clock.advance(20.0)  # the machine slept

    with pytest.raises(keyturn.OutcomeUnknown):
        case.get()
    assert case.asked == 1


def test_the_end_of_the_session_is_told_to_everyone_and_announced_once(case: Case) -> None:
    case.clock.advance(ADVISORY)
    before = case.current
    case.end_point.answers.append(httpx2.Response(400, json={"error": "invalid_grant"}))
    assert case.get() is before
    _until(lambda: case.credentials.tokens is None)

    for _ in range(3):
        with pytest.raises(keyturn.SessionEnded) as ended:
            case.get()
        assert (ended.value.reason, ended.value.epoch) == ("refused", before.epoch)
    with pytest.raises(keyturn.SessionEnded):
        case.credentials.renew(before, timeout=LONG)
    assert case.asked == 1
    _until(lambda: len(case.events) > 1)
    assert [type(event) for event in case.events] == [events.Refreshing, events.Ended]


def test_the_end_of_the_session_is_told_to_who_waits_with_a_valid_token_too(case: Case) -> None:
    case.clock.advance(MANDATORY)
    case.end_point.answers.append(httpx2.Response(400, json={"error": "invalid_grant"}))

    with pytest.raises(keyturn.SessionEnded):
        case.get()


def test_a_grant_that_asks_the_credentials_it_refreshes_is_told_so() -> None:
    found: list[keyturn.Credentials] = []

    async def circular(tokens: keyturn.Tokens, http: httpx2.AsyncClient) -> keyturn.Tokens:
        return await found[0].aget_tokens()

    clock = Clock()
    tokens = keyturn.Tokens("old", "old-refresh", clock() - 1.0, LIFE)
    found.append(keyturn.Credentials(circular, origins=["https://api.example"], tokens=tokens, clock=clock))
    with pytest.raises(keyturn.ReentrantRefresh):
        found[0].get_tokens(timeout=LONG)


# Cool-downs


def test_a_failing_end_point_is_left_alone_for_a_while_that_grows_with_each_failure(case: Case) -> None:
    case.credentials.sign_in(case.tokens("old", life=10_000.0))
    case.clock.advance(9_900.0)  # valid for another hundred seconds, and due
    case.end_point.answers.extend(httpx2.Response(403) for _ in range(100))

    pauses: list[float] = []
    since = case.clock()
    while len(pauses) < 5:
        asked = case.asked
        assert case.get().access == "old"
        case.settled()
        if case.asked > asked:
            pauses.append(case.clock() - since)
            since = case.clock()
        case.clock.advance(0.125)

    assert pauses == [0.0, 0.25, 0.5, 1.0, 2.0]


def test_a_refused_client_is_told_from_memory_until_the_pause_is_over(case: Case) -> None:
    case.clock.advance(EXPIRED)
    case.end_point.answers.append(httpx2.Response(400, json={"error": "invalid_client"}))

    for _ in range(5):
        with pytest.raises(keyturn.RefreshMisconfigured) as refused:
            case.get()
        assert (refused.value.status, refused.value.error) == (400, "invalid_client")
    assert case.asked == 1

    case.clock.advance(0.25)
    assert case.get().access == "new2"


def test_nobody_asks_before_the_time_that_the_end_point_named(case: Case) -> None:
    case.clock.advance(EXPIRED)
    case.end_point.answers.append(httpx2.Response(503, headers={"Retry-After": "100"}))

    told = []
    for _ in range(4):
        with pytest.raises(keyturn.RefreshUnavailable) as refused:
            case.get()
        told.append(refused.value.retry_after)
        case.clock.advance(30.0)
    assert told == [100.0, 70.0, 40.0, 10.0]
    assert case.asked == 1

    assert case.get().access == "new2"


def test_who_holds_a_valid_token_does_not_sit_out_the_time_that_the_end_point_named() -> None:
    case = Case(retry_for=timedelta(seconds=100))
    case.credentials.sign_in(case.tokens("old", life=10_000.0))
    case.clock.advance(9_980.0)
    case.end_point.answers.append(httpx2.Response(503, headers={"Retry-After": "105"}))
    assert case.get().access == "old"
    case.clock.advance(7.0)  # 98 seconds to go: a flight is worth its while, and 13 of the token's life

    answered = _in_thread(case.get)

    _until(lambda: bool(answered))
    assert case.asked == 1
    case.credentials.close()


# Adoption


@pytest.mark.parametrize(
    ("behind", "life", "adopted"),
    [
        pytest.param(0, LIFE, True, id="with the current tokens, as long"),
        pytest.param(0, LIFE / 2, True, id="with the current tokens, shorter"),
        pytest.param(1, LIFE * 2, True, id="with older tokens, longer"),
        pytest.param(1, LIFE, False, id="with older tokens, as long"),
        pytest.param(1, LIFE / 2, False, id="with older tokens, shorter"),
        pytest.param(2, LIFE * 2, True, id="with much older tokens, longer"),
        pytest.param(2, LIFE / 2, False, id="with much older tokens, shorter"),
    ],
)
def test_a_late_pair_is_adopted_only_where_it_is_the_later_one(
    case: Case, behind: int, life: float, adopted: bool
) -> None:
    history = [case.current]
    for name in ("second", "third"):
        assert case.credentials.adopt(case.tokens(name), history[-1])
        history.append(case.current)

    assert case.credentials.adopt(case.tokens("late", life), history[-1 - behind]) is adopted
    assert case.current.access == ("late" if adopted else "third")
    assert case.current.generation == (3 if adopted else 2)
    assert len(case.events) == (3 if adopted else 2)


def test_the_pair_that_is_here_already_is_not_adopted_again(case: Case) -> None:
    before = case.current

    assert not case.credentials.adopt(case.tokens("old"), before)
    assert case.current is before
    assert case.events == []


@pytest.mark.parametrize("again", ["old", "another"])
def test_nothing_is_adopted_across_a_sign_in(case: Case, again: str) -> None:
    before = case.current
    case.credentials.sign_in(case.tokens(again))
    after = case.current

    assert after.epoch != before.epoch
    assert not case.credentials.adopt(case.tokens("late", LIFE * 2), before)
    assert case.current is after
    case.credentials.sign_out()
    assert not case.credentials.adopt(case.tokens("late", LIFE * 2), after)
    assert case.credentials.tokens is None


def test_a_refresh_that_is_overtaken_by_a_longer_lived_pair_does_not_replace_it(case: Case) -> None:
    case.clock.advance(EXPIRED)
    case.end_point.hold()
    old = case.current
    answered = _in_thread(case.get)
    case.end_point.arrived(1)
    assert case.credentials.adopt(case.tokens("adopted", LIFE * 2), old)
    case.end_point.open.open()
    _until(lambda: bool(answered))
    case.settled()

    assert case.current.access == "adopted"


# Refusals


def test_a_late_refusal_is_answered_with_the_tokens_that_came_since(case: Case) -> None:
    old = case.current
    renewed = case.credentials.renew(old, timeout=LONG)

    assert renewed.access == "new1"
    assert renewed.supersedes(old)
    assert case.credentials.renew(old, timeout=LONG) is renewed
    assert asyncio.run(case.credentials.arenew(old, timeout=LONG)) is renewed
    assert case.asked == 1


def test_a_refusal_of_the_newer_tokens_is_a_new_report(case: Case) -> None:
    first = case.credentials.renew(case.current, timeout=LONG)
    second = case.credentials.renew(first, timeout=LONG)

    assert (first.access, second.access, case.asked) == ("new1", "new2", 2)
    assert case.end_point.requests == ["old-refresh", "new1-refresh"]


def test_a_refusal_of_adopted_tokens_is_not_answered_with_those_same_tokens(case: Case) -> None:
    case.clock.advance(EXPIRED)
    case.end_point.hold()
    case.end_point.answers.append(httpx2.Response(400, json={"error": "invalid_grant"}))
    old = case.current
    waiter = _in_thread(case.get)
    case.end_point.arrived(1)
    assert case.credentials.adopt(case.tokens("adopted"), old)
    adopted = case.current

    refused = _in_thread(lambda: case.credentials.renew(adopted, timeout=LONG))
    _until(lambda: case.credentials._refused is adopted)
    case.end_point.open.open()
    _until(lambda: bool(waiter and refused))

    assert getattr(refused[0], "access", refused[0]) not in {"old", "adopted"}
    assert case.end_point.requests == ["old-refresh", "adopted-refresh"]


def test_a_refusal_from_an_earlier_sign_in_is_not_the_new_ones_business(case: Case) -> None:
    old = case.current
    case.credentials.sign_in(case.tokens("old"))

    with pytest.raises(keyturn.SessionEnded) as ended:
        case.credentials.renew(old, timeout=LONG)
    assert (ended.value.reason, ended.value.epoch) == ("replaced", old.epoch)
    assert case.asked == 0


def test_a_refusal_that_cannot_be_renewed_is_an_error_even_for_a_valid_token(case: Case) -> None:
    case.end_point.answers.append(httpx2.Response(403))

    with pytest.raises(keyturn.RefreshMisconfigured):
        case.credentials.renew(case.current, timeout=LONG)
    assert case.get().access == "old"


# Epochs


def test_each_sign_in_is_an_epoch_of_its_own_and_counts_from_nothing(case: Case) -> None:
    seen = {case.current.epoch}
    for _ in range(3):
        case.credentials.renew(case.current, timeout=LONG)
        assert (case.current.epoch in seen, case.current.generation) == (True, 1)
        case.credentials.sign_in(case.tokens("old"))
        assert case.current.epoch not in seen
        assert case.current.generation == 0
        seen.add(case.current.epoch)


def test_a_sign_in_forgets_the_failures_of_the_one_before(case: Case) -> None:
    failures: list[httpx2.Response | Exception] = [
        httpx2.ReadError("reset"),
        httpx2.Response(403),
        httpx2.Response(503),
    ]
    for failure in failures:
        case.clock.advance(EXPIRED)
        case.end_point.answers.append(failure)
        with pytest.raises(keyturn.RefreshError):
            case.get()
        case.credentials.sign_in(case.tokens("again", life=-1.0))
        assert case.get().access.startswith("new")


@pytest.mark.parametrize("reason", ["replaced", "signed_out"])
def test_a_caller_who_waits_is_told_of_a_sign_in_or_a_sign_out_at_once(case: Case, reason: str) -> None:
    case.clock.advance(EXPIRED)
    case.end_point.hold()
    told = _in_thread(case.get)
    case.end_point.arrived(1)

    if reason == "replaced":
        case.credentials.sign_in(case.tokens("bob"))
    else:
        case.credentials.sign_out()

    _until(lambda: bool(told))
    assert isinstance(told[0], keyturn.SessionEnded)
    assert told[0].reason == reason
    case.end_point.open.open()


def test_a_caller_gives_up_waiting_and_the_refresh_goes_on(case: Case) -> None:
    case.clock.advance(EXPIRED)
    case.end_point.hold()

    with pytest.raises(keyturn.RefreshTimeout):
        case.credentials.get_tokens(timeout=0.0)
    case.end_point.arrived(1)
    case.end_point.open.open()
    assert (case.get().access, case.asked) == ("new1", 1)


def test_after_a_close_everything_is_refused(case: Case) -> None:
    case.credentials.close()

    with pytest.raises(keyturn.CredentialsClosed):
        case.get()
    with pytest.raises(keyturn.CredentialsClosed):
        case.credentials.sign_in(case.tokens("again"))
    assert case.credentials.tokens is None

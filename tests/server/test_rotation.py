"""The decision about a refresh token: every row of the table, in the order of its checks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyturn.errors import ConfigurationError
from keyturn.server.rotation import (
    Advance,
    MoveForward,
    Presented,
    Refuse,
    Replay,
    Reuse,
    Rotation,
    SameAgain,
    Verdict,
    decide,
)
from keyturn.server.session import Session

NOW = 1_000_000.0

# A loaded machine is no reason to fail.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
COUNTER = 7
SESSION = Session(
    sid="s",
    subject="alice",
    started_at=NOW - 5_000,
    expires_at=NOW + 5_000,
    counter=COUNTER,
    rotated_at=NOW - 100,
)
WINDOW = Rotation(window=timedelta(seconds=10), max_ahead=3)
STRICT = Rotation(window=timedelta(0), max_ahead=3)
LEASE = Rotation(window=timedelta(seconds=10), recovery=timedelta(seconds=60), max_ahead=3)
STRICT_LEASE = Rotation(window=timedelta(0), recovery=timedelta(seconds=60), max_ahead=3)


def rotated(seconds_ago: float | None, **changes: object) -> Session:
    at = None if seconds_ago is None else NOW - seconds_ago
    return replace(SESSION, rotated_at=at, **changes)  # type: ignore[arg-type]


def test_the_current_token_of_a_session_never_rotated_advances() -> None:
    assert decide(rotated(None), Presented(COUNTER), NOW, WINDOW) == Advance(7, 8)


def test_the_current_token_advances_once_the_window_has_passed() -> None:
    assert decide(rotated(10), Presented(COUNTER), NOW, WINDOW) == Advance(7, 8)


def test_the_current_token_inside_the_window_is_given_again_so_that_a_window_has_one_rotation() -> None:
    assert decide(rotated(9.999), Presented(COUNTER), NOW, WINDOW) == SameAgain(7)


def test_one_behind_inside_the_window_gets_the_same_successor() -> None:
    assert decide(rotated(9.999), Presented(6), NOW, WINDOW) == Replay(7)


def test_one_behind_at_the_end_of_the_window_is_reuse() -> None:
    assert decide(rotated(10), Presented(6), NOW, WINDOW) == Reuse(7, behind=1)


def test_two_behind_is_reuse_even_inside_the_window() -> None:
    assert decide(rotated(0), Presented(5), NOW, LEASE) == Reuse(7, behind=2)


def test_a_rotation_in_the_future_counts_as_one_of_this_moment() -> None:
    assert decide(rotated(-3600), Presented(6), NOW, WINDOW) == Replay(7)
    assert decide(rotated(-3600), Presented(7), NOW, WINDOW) == SameAgain(7)


def test_with_a_window_of_0_the_current_token_always_advances() -> None:
    assert decide(rotated(0), Presented(7), NOW, STRICT) == Advance(7, 8)
    assert decide(rotated(-5), Presented(7), NOW, STRICT) == Advance(7, 8)


def test_with_a_window_of_0_one_behind_is_reuse_at_once() -> None:
    assert decide(rotated(0), Presented(6), NOW, STRICT) == Reuse(7, behind=1)


def test_ahead_by_what_a_store_may_lose_moves_the_row_forward_and_on() -> None:
    assert decide(rotated(0), Presented(8), NOW, WINDOW) == MoveForward(7, 9)
    assert decide(rotated(0), Presented(10), NOW, WINDOW) == MoveForward(7, 11)


def test_ahead_by_more_is_refused_and_ends_nothing() -> None:
    assert decide(rotated(0), Presented(11), NOW, WINDOW) == Refuse("too_far_ahead")


def test_a_lost_answer_is_recovered_inside_the_lease_by_a_client_that_proved_itself() -> None:
    session = rotated(59.999, client="app", seen_generation=6)
    assert decide(session, Presented(6, "app", authenticated=True), NOW, LEASE) == Replay(7, recovered=True)


def test_a_lost_answer_is_recovered_inside_the_lease_by_the_holder_of_the_key() -> None:
    session = rotated(59.999, key="thumb")
    assert decide(session, Presented(6, key="thumb"), NOW, LEASE) == Replay(7, recovered=True)


def test_the_lease_is_over_when_its_time_is() -> None:
    session = rotated(60, key="thumb")
    assert decide(session, Presented(6, key="thumb"), NOW, LEASE) == Reuse(7, behind=1)


def test_the_lease_is_over_when_an_access_token_of_the_successor_was_seen() -> None:
    session = rotated(20, key="thumb", seen_generation=7)
    assert decide(session, Presented(6, key="thumb"), NOW, LEASE) == Reuse(7, behind=1)


def test_the_lease_is_over_when_the_successor_was_refreshed() -> None:
    session = rotated(20, key="thumb")
    assert decide(session, Presented(5, key="thumb"), NOW, LEASE) == Reuse(7, behind=2)


def test_the_lease_is_not_for_a_client_that_only_says_its_name() -> None:
    session = rotated(20, client="app")
    assert decide(session, Presented(6, "app"), NOW, LEASE) == Reuse(7, behind=1)


def test_the_lease_is_off_by_default() -> None:
    session = rotated(20, key="thumb")
    assert Rotation().recovery is None
    assert decide(session, Presented(6, key="thumb"), NOW, Rotation()) == Reuse(7, behind=1)


def test_no_session_is_refused() -> None:
    assert decide(None, Presented(7), NOW, WINDOW) == Refuse("unknown")


def test_a_session_that_is_over_stays_so_whatever_comes() -> None:
    """An old token of an ended session is no second reuse, and one that is ahead revives nothing."""
    over = rotated(20, ended_at=NOW - 1)
    for counter in range(15):
        assert decide(over, Presented(counter), NOW, WINDOW) == Refuse("ended")


# The whole product, against a literal table.

AGES = (None, -5.0, 0.0, 9.999, 10.0, 59.999, 60.0)
_ = "reuse"
A, S, R, L = "advance", "same again", "replay", "recovered"
TABLE: dict[tuple[int, bool], dict[int, tuple[str, ...]]] = {
    # (window in seconds, may recover): {difference: a verdict for each of AGES}
    (10, False): {
        -3: (_, _, _, _, _, _, _),
        -2: (_, _, _, _, _, _, _),
        -1: (_, R, R, R, _, _, _),
        0: (A, S, S, S, A, A, A),
    },
    (10, True): {
        -3: (_, _, _, _, _, _, _),
        -2: (_, _, _, _, _, _, _),
        -1: (_, R, R, R, L, L, _),
        0: (A, S, S, S, A, A, A),
    },
    (0, False): {
        -3: (_, _, _, _, _, _, _),
        -2: (_, _, _, _, _, _, _),
        -1: (_, _, _, _, _, _, _),
        0: (A, A, A, A, A, A, A),
    },
    (0, True): {
        -3: (_, _, _, _, _, _, _),
        -2: (_, _, _, _, _, _, _),
        -1: (_, L, L, L, L, L, _),
        0: (A, A, A, A, A, A, A),
    },
}
AHEAD = {1: "forward", 2: "forward", 3: "forward", 4: "too_far_ahead"}
BINDINGS = (
    # (the session's, the presented one, does it fit)
    (None, None, True),
    (None, "x", True),
    ("x", "x", True),
    ("x", "y", False),
    ("x", None, False),
)


def said(verdict: Verdict) -> str:
    match verdict:
        case Advance(read, to):
            assert (read, to) == (COUNTER, COUNTER + 1)
            return "advance"
        case MoveForward(read, to):
            assert read == COUNTER
            assert to > COUNTER + 1
            return "forward"
        case SameAgain(read):
            assert read == COUNTER
            return "same again"
        case Replay(read, recovered):
            assert read == COUNTER
            return "recovered" if recovered else "replay"
        case Reuse(read, _behind):
            assert read == COUNTER
            return "reuse"
        case Refuse(reason):
            return reason


def every_case() -> Iterator[tuple[Session, Presented, Rotation, str]]:
    for policy, ended, expired, idle, client, key in itertools.product(
        (WINDOW, STRICT, LEASE, STRICT_LEASE), (False, True), (-1, 0, 1), (None, -1, 0, 1), BINDINGS, BINDINGS
    ):
        refused = (
            "ended" if ended
            else "expired" if expired >= 0
            else "idle" if idle is not None and idle >= 0
            else "wrong_client" if not client[2]
            else "wrong_key" if not key[2]
            else None
        )  # fmt: skip
        for position, age in enumerate(AGES):
            used_ago = 5_000 if age is None else age
            if idle is not None and used_ago - idle <= 0:
                continue  # such a limit could not have been set
            for seen, authenticated in itertools.product((-1, COUNTER - 1, COUNTER), (False, True)):
                session = Session(
                    sid="s",
                    subject="alice",
                    started_at=NOW - 5_000,
                    expires_at=NOW - expired,
                    counter=COUNTER,
                    rotated_at=None if age is None else NOW - age,
                    idle_limit=None if idle is None else used_ago - idle,
                    ended_at=NOW - 50 if ended else None,
                    seen_generation=seen,
                    client=client[0],
                    key=key[0],
                )
                proved = key[0] is not None or (client[0] is not None and authenticated)
                recovers = policy.recovery is not None and proved and seen != COUNTER
                rows = TABLE[int(policy.window.total_seconds()), recovers]
                for difference in (-3, -2, -1, 0, 1, 2, 3, 4):
                    expected = refused or AHEAD.get(difference) or rows[difference][position]
                    shown = Presented(COUNTER + difference, client[1], authenticated, key[1])
                    yield session, shown, policy, expected


def test_every_combination_has_the_verdict_of_the_table() -> None:
    cases = 0
    for session, shown, policy, expected in every_case():
        cases += 1
        verdict = said(decide(session, shown, NOW, policy))
        assert verdict == expected, (session, shown, policy)
    assert cases > 500_000


def test_a_replay_does_not_prolong_the_window() -> None:
    """Nothing that is answered without a rotation changes the row, so the age goes on counting."""
    session = rotated(0)
    answers = [said(decide(session, Presented(6), NOW + seconds, WINDOW)) for seconds in range(12)]
    assert answers == ["replay"] * 10 + ["reuse"] * 2


@unhurried
@given(
    counter=st.integers(0, 2**53 - 1),
    shown=st.integers(0, 2**53 - 1),
    age=st.none() | st.floats(-1e6, 1e6),
    window=st.integers(0, 3600),
)
def test_every_verdict_that_mints_is_conditional_on_the_counter_that_was_read(
    counter: int, shown: int, age: float | None, window: int
) -> None:
    at = None if age is None else NOW - age
    session = replace(SESSION, counter=counter, rotated_at=at)
    verdict = decide(session, Presented(shown), NOW, Rotation(window=timedelta(seconds=window)))
    if not isinstance(verdict, Refuse):
        assert verdict.read == counter
    if isinstance(verdict, Advance | MoveForward):
        assert verdict.to > counter


@pytest.mark.parametrize(
    "arguments",
    [
        {"window": timedelta(seconds=-1)},
        {"window": 10},
        {"window": None},
        {"recovery": timedelta(seconds=10)},
        {"recovery": timedelta(seconds=1)},
        {"recovery": 60},
        {"max_ahead": -1},
        {"max_ahead": 1.5},
        {"max_ahead": True},
        {"max_ahead": None},
    ],
)
def test_a_policy_that_cannot_work_is_refused_when_it_is_made(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        Rotation(**arguments)  # type: ignore[arg-type]


def test_a_verdict_and_a_policy_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        WINDOW.max_ahead = 4  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        SameAgain(1).read = 2  # type: ignore[misc]

"""Snapshots: the place of a pair in the history of a sign-in."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.client.schedule import Zone
from keyturn.client.snapshot import Snapshot
from keyturn.tokens import Tokens

NOW = 1_700_000_000.0


def pair(number: int = 0, life: float = 3600.0) -> Tokens:
    """Return a pair that is told apart by its number."""
    return Tokens(
        f"access-{number}", f"refresh-{number}", NOW + life, life, {"csrf_access_token": f"csrf-{number}"}
    )


def test_a_sign_in_starts_at_generation_0_of_an_epoch_that_no_other_has() -> None:
    snapshots = [Snapshot.first(pair(), NOW) for _ in range(1000)]

    assert {one.generation for one in snapshots} == {0}
    assert len({one.epoch for one in snapshots}) == 1000


def test_an_epoch_is_random_and_tells_nothing_of_the_tokens() -> None:
    assert all(len(Snapshot.first(pair(), NOW).epoch) == 16 for _ in range(10))
    assert Snapshot.first(pair(), NOW).epoch != Snapshot.first(pair(), NOW).epoch


def test_a_refresh_counts_up_within_the_epoch() -> None:
    first = Snapshot.first(pair(), NOW)
    second = first.next(pair(1), NOW)
    third = second.next(pair(2), NOW)

    assert [first.generation, second.generation, third.generation] == [0, 1, 2]
    assert first.epoch == second.epoch == third.epoch


def test_a_snapshot_holds_the_whole_pair() -> None:
    snapshot = Snapshot.first(pair(), NOW).next(pair(1), NOW)

    for field in dataclasses.fields(Tokens):
        assert getattr(snapshot, field.name) == getattr(pair(1), field.name)


def test_only_a_later_generation_of_the_same_epoch_supersedes() -> None:
    first = Snapshot.first(pair(), NOW)
    second = first.next(pair(1), NOW)
    elsewhere = Snapshot.first(pair(), NOW).next(pair(1), NOW)

    assert second.supersedes(first)
    assert not first.supersedes(second)
    assert not first.supersedes(first)
    assert not elsewhere.supersedes(first)


def test_the_plan_is_made_once_so_that_a_token_does_not_change_its_zone_by_chance() -> None:
    snapshot = Snapshot.first(pair(), NOW)

    assert snapshot.plan is snapshot.plan
    assert snapshot.plan.expires_at == snapshot.expires_at


def test_a_fleet_that_signed_in_together_does_not_refresh_together() -> None:
    begins = {Snapshot.first(pair(), NOW).plan.advisory_at for _ in range(100)}

    assert len(begins) > 90
    assert max(begins) - min(begins) > 50.0  # of the 150 s that the jitter spreads over


def test_a_snapshot_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Snapshot.first(pair(), NOW).generation = 5  # type: ignore[misc]


@settings(deadline=None, max_examples=100)
@given(st.floats(-1e6, 1e6), st.none() | st.floats(0.0, 1e6))
def test_a_new_snapshot_is_fresh_exactly_if_half_of_its_life_or_more_is_left(
    left: float, lifetime: float | None
) -> None:
    snapshot = Snapshot.first(Tokens("access", expires_at=NOW + left, lifetime=lifetime), NOW)
    life = max(0.0, snapshot.left(NOW)) if lifetime is None else lifetime

    if left > life / 2 + 1e-3:
        assert snapshot.plan.zone(NOW) is Zone.FRESH
    if left <= 0:
        assert snapshot.plan.zone(NOW) is Zone.MANDATORY

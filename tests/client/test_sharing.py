"""The decision of whoever holds a lease, as a table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keyturn.client.record import Marker, Record, Version
from keyturn.client.sharing import Move, Rules, Verdict, decide

NOW = 1_000.0
STRICT, WINDOW, REUSABLE = Rules(True, 0.0), Rules(True, 10.0), Rules(False, 0.0)
HELD = ("E", 3)

VALID = Record(
    name="alice", epoch="E", generation=3, began_at=0.0, saved_at=0.0, sealed="{}", expires_at=NOW + 1.0
)
EXPIRED = replace(VALID, expires_at=NOW)
UNDATED = replace(VALID, expires_at=None)
NEWER, NEWER_EXPIRED = replace(VALID, generation=4), replace(EXPIRED, generation=4)
OTHER = replace(VALID, epoch="F", generation=0)
OLDER = replace(VALID, generation=2)
TOMBSTONE = replace(VALID, generation=4, sealed=None, expires_at=None, ended="signed_out")


def marked(age: float, record: Record = EXPIRED, **other: object) -> Record:
    """Return a record whose token was first sent `age` seconds ago."""
    about = {"epoch": record.epoch, "generation": record.generation, "fingerprint": "f", "at": NOW - age}
    return replace(record, marker=Marker(**{**about, **other}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("record", "held", "rules", "verdict"),
    [
        (None, None, STRICT, Verdict(Move.ABSENT)),
        (None, HELD, STRICT, Verdict(Move.ABSENT)),
        (TOMBSTONE, HELD, STRICT, Verdict(Move.OVER)),
        (TOMBSTONE, None, STRICT, Verdict(Move.OVER)),
        # somebody was faster, or it is the first use
        (NEWER, HELD, STRICT, Verdict(Move.ADOPT)),
        (OTHER, HELD, STRICT, Verdict(Move.ADOPT)),
        (OLDER, HELD, STRICT, Verdict(Move.ADOPT)),
        (VALID, None, STRICT, Verdict(Move.ADOPT)),
        (replace(UNDATED, generation=4), HELD, STRICT, Verdict(Move.ADOPT)),
        (NEWER_EXPIRED, HELD, STRICT, Verdict(Move.SPEND)),
        (EXPIRED, None, STRICT, Verdict(Move.SPEND)),
        # what is held was refused, or has expired
        (VALID, HELD, STRICT, Verdict(Move.SPEND)),
        (EXPIRED, HELD, STRICT, Verdict(Move.SPEND)),
        (UNDATED, HELD, STRICT, Verdict(Move.SPEND)),
        # a holder died, or hangs
        (marked(0.0), HELD, STRICT, Verdict(Move.UNKNOWN)),
        (marked(0.0), None, STRICT, Verdict(Move.UNKNOWN)),
        (marked(0.0, VALID), HELD, STRICT, Verdict(Move.UNKNOWN)),
        (marked(0.0), HELD, WINDOW, Verdict(Move.SPEND, NOW, marked(0.0).marker)),
        (marked(9.0), HELD, WINDOW, Verdict(Move.SPEND, NOW - 9.0, marked(9.0).marker)),
        (marked(9.1), HELD, WINDOW, Verdict(Move.UNKNOWN)),
        (marked(1e6), HELD, WINDOW, Verdict(Move.UNKNOWN)),
        (marked(-1.0), HELD, WINDOW, Verdict(Move.SPEND, NOW + 1.0, marked(-1.0).marker)),
        (marked(-1.1), HELD, WINDOW, Verdict(Move.UNKNOWN)),
        (marked(0.0), HELD, REUSABLE, Verdict(Move.SPEND)),
        # a marker about another pair
        (marked(0.0, generation=2), HELD, STRICT, Verdict(Move.SPEND)),
        (marked(0.0, epoch="D"), HELD, STRICT, Verdict(Move.SPEND)),
        (marked(0.0, fingerprint="g"), HELD, STRICT, Verdict(Move.SPEND)),
        # a marker in a record that is valid and new to us: its holder is at work, and we can go on
        (marked(0.0, NEWER), HELD, STRICT, Verdict(Move.ADOPT)),
    ],
)
def test_what_whoever_holds_the_lease_does(
    record: Record | None, held: Version | None, rules: Rules, verdict: Verdict
) -> None:
    assert decide(record, held=held, spends="f", now=NOW, rules=rules) == verdict


@pytest.mark.parametrize("rules", [STRICT, WINDOW])
def test_somebody_who_insists_spends_what_may_be_spent_and_nothing_else_changes(rules: Rules) -> None:
    def insisting(record: Record | None) -> Verdict:
        return decide(record, held=HELD, spends="f", now=NOW, rules=rules, insists=True)

    assert insisting(marked(100.0)) == Verdict(Move.SPEND, doubt=marked(100.0).marker)
    assert insisting(EXPIRED) == Verdict(Move.SPEND)
    assert insisting(TOMBSTONE).move is Move.OVER
    assert insisting(NEWER).move is Move.ADOPT
    assert insisting(None).move is Move.ABSENT


@pytest.mark.parametrize("timeout", [0.1, 1.0, 5.0, 30.0])
@pytest.mark.parametrize("window", [0.0, 2.0, 10.0, 60.0])
def test_a_lease_outlasts_an_exchange_and_leaves_time_for_a_retry(window: float, timeout: float) -> None:
    if window:
        timeout = min(timeout, window / 2)  # as every grant has it
    rules = Rules(True, window)
    lease = rules.lease(timeout)

    assert lease > timeout
    if window:
        assert lease + rules.margin < window


def test_a_marker_of_ours_after_which_nothing_was_sent_stands_for_nothing_but_in_a_window() -> None:
    record = marked(0.0)

    def verdict(rules: Rules, unsent: Marker | None) -> Verdict:
        return decide(record, held=HELD, spends="f", now=NOW, rules=rules, unsent=unsent)

    assert verdict(STRICT, record.marker) == Verdict(Move.SPEND)
    assert verdict(STRICT, marked(1.0).marker).move is Move.UNKNOWN
    assert verdict(WINDOW, record.marker) == Verdict(Move.SPEND, NOW, record.marker)

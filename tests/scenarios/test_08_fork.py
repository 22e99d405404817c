"""Scenario 8, a fork before, during and after a flight: the child may use the tokens, not refresh them."""

from __future__ import annotations

import os

import pytest

from keyturn.testing import StrictServer
from tests.scenarios.program import Program, given, written
from tests.waiting import WITHIN

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")

CHILD = [
    "child: uses 200 200 200 200",
    "child: renews RefreshAfterFork RefreshAfterFork RefreshAfterFork",
    "child: retries RefreshAfterFork",
    "child: with its own 1 200 200 2",
    "child: signed out SessionEnded",
    "child: signed in 1 200 200 2",
    "grandchild: uses 200 200 200 200",
    "grandchild: renews RefreshAfterFork RefreshAfterFork RefreshAfterFork",
    "child: left with 0 3",
    "parent: left with 0",
]

WHENS = [("before", "leave"), ("unrotated", "close"), ("rotated", "leave"), ("after", "close")]


@pytest.mark.parametrize(("when", "ending"), WHENS)
def test_a_child_uses_tokens_and_refreshes_only_its_own_and_the_parents_flight_lands(
    strict_server: StrictServer, other_server: StrictServer, when: str, ending: str
) -> None:
    tokens = strict_server.sign_in(ttl=600.0)
    there = {
        "second": written(other_server.sign_in("second", ttl=600.0)),
        "own": written(other_server.sign_in("own", ttl=-1.0)),
        "signed_in": written(other_server.sign_in("signed in", ttl=-1.0)),
    }
    flights = 0 if when == "before" else 1
    if when in {"unrotated", "rotated"}:
        strict_server.hold_refresh("before" if when == "unrotated" else "after")
    what = given(strict_server, tokens, when=when, ending=ending, other_url=other_server.url, **there)
    with Program("forking", what) as program:
        strict_server.wait_for(WITHIN, refreshes=flights, rotations=flights if when != "unrotated" else 0)
        program.tell()

        assert [program.line() for _ in CHILD] == CHILD
        assert strict_server.stats.refreshes == flights, "the child did not touch the parent's refresh token"
        assert other_server.stats.refreshes == 5

        strict_server.release()
        program.tell()
        assert program.line() == ("parent: landed" + " 1 1" * flights)
        assert program.line() == "parent: uses 200 200 200 200"
        assert program.line() == f"parent: renews {flights + 1} 1 200 200 200 200"
        assert program.end() == (0, "")
    assert strict_server.stats.refreshes == strict_server.stats.rotations == flights + 1
    assert strict_server.stats.reuses == other_server.stats.reuses == 0


def test_a_child_that_is_forked_while_threads_hold_every_lock_finds_them_free(
    strict_server: StrictServer,
) -> None:
    own = [written(strict_server.sign_in(f"child {i}", ttl=-1.0)) for i in range(5)]
    with Program("fork_storm", given(strict_server, strict_server.sign_in(ttl=600.0), own=own)) as program:
        assert [program.line() for _ in own] == ["child: 0 1"] * len(own)
        assert program.line() == "parent: 1"
        assert program.end() == (0, "")
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses) == (len(own) + 1, len(own) + 1, 0)


def test_a_child_that_is_forked_while_a_tls_context_is_made_can_make_its_own(
    strict_server: StrictServer,
) -> None:
    own = written(strict_server.sign_in("the child's own", ttl=-1.0))
    with Program("fork_tls", given(strict_server, strict_server.sign_in(ttl=-1.0), own=own)) as program:
        assert program.lines() == ["child: 1", "parent: left with 0", "parent: 1"]
        assert program.end() == (0, "")
    assert strict_server.stats.refreshes == strict_server.stats.rotations == 2

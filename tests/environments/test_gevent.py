"""gevent's monkey-patching: greenlets share one refresh, and only they wait for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from keyturn.testing import StrictServer
from tests.environments import programs
from tests.scenarios.program import Program, given, written
from tests.waiting import WITHIN

pytest.importorskip("gevent")

both_grants = pytest.mark.parametrize("grant", ["oauth2", "plain"])


def program(
    server: StrictServer, does: str, *, patches: str = "first", grant: str = "oauth2", **more: object
) -> Program:
    what = given(server, server.sign_in(ttl=-1.0), does=does, patches=patches, grant=grant, **more)
    return Program("greenlets", what, package=programs.NAME)


@both_grants
@pytest.mark.parametrize("patches", ["first", "late"])
def test_120_greenlets_share_one_refresh_while_their_hub_goes_on(
    strict_server: StrictServer, patches: str, grant: str
) -> None:
    strict_server.hold_refresh("after")
    with program(strict_server, "crowd", patches=patches, grant=grant) as running:
        assert running.line() == "ticked, marked 0", "which it says while the refresh is held"
        strict_server.wait_for(WITHIN, rotations=1)
        strict_server.release()
        assert running.lines() == [
            "event: Refreshed",
            "[200]",
            "1",
            *["event: Refreshed"] * 10,
            "marked False",
        ]
        assert running.end() == (0, "")
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses) == (11, 11, 0)
    assert (stats.answered, stats.refused) == (120, 0)


@both_grants
def test_a_process_of_greenlets_waits_at_exit_for_the_refresh_that_it_has_sent(
    strict_server: StrictServer, grant: str
) -> None:
    strict_server.hold_refresh("after")
    with program(strict_server, "exit_while_it_flies", grant=grant) as running:
        strict_server.wait_for(WITHIN, rotations=1)
        running.tell()
        assert running.line() == "leaving"
        strict_server.release()
        assert running.lines() == ["event: Refreshed", "the interpreter goes on with its exit"]
        assert running.end() == (3, "")


@both_grants
def test_a_forked_copy_of_the_greenlets_takes_nothing_of_the_parents_refresh(
    strict_server: StrictServer, grant: str
) -> None:
    strict_server.hold_refresh("after")
    own = written(strict_server.sign_in("the child's own", ttl=-1.0))
    with program(strict_server, "fork_while_it_flies", grant=grant, own=own) as running:
        strict_server.wait_for(WITHIN, rotations=1)
        running.tell()
        assert running.line() == "child: RefreshAfterFork"
        strict_server.release()
        running.tell()
        assert running.line() == "child: with its own 1"
        assert running.line() == "parent: left with 0"
        assert sorted(running.lines()) == ["event: Refreshed", "parent: 1", "parent: 1"]
        assert running.end() == (0, "")
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses) == (2, 2, 0)


def test_real_threads_beside_greenlets_wait_for_the_same_refresh_once_the_main_one_has_begun(
    strict_server: StrictServer,
) -> None:
    strict_server.hold_refresh()
    with program(strict_server, "use_pool_threads") as running:
        assert running.line() == "RefreshUnsupported"
        assert running.line() == "all wait"
        strict_server.release()
        assert sorted(running.lines()) == ["['1']", "event: Refreshed"]
        assert running.end() == (0, "")
    assert strict_server.stats.refreshes == 1


def test_keyturn_never_imports_gevent_by_itself() -> None:
    code = "import sys, keyturn, keyturn.client.httpx2; sys.exit('gevent' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=WITHIN).returncode == 0

"""The exit of an interpreter with requests under way (tests/scenarios/test_08_exit.py has the mere calls)."""

from __future__ import annotations

import sys

from keyturn.testing import StrictServer
from tests.environments import programs
from tests.scenarios.program import Program, given
from tests.waiting import WITHIN


def leaving(server: StrictServer, way: str) -> Program:
    """Start a program that will leave in this way."""
    return Program("leaving", given(server, server.sign_in(ttl=-1.0), way=way), package=programs.NAME)


def test_the_refresh_for_requests_of_daemon_threads_is_waited_for(strict_server: StrictServer) -> None:
    strict_server.hold_refresh("after")
    with leaving(strict_server, "in_daemon_threads") as program:
        strict_server.wait_for(WITHIN, rotations=1)
        program.tell()
        assert program.line() == "leaving"
        strict_server.release()
        lines = program.lines()
        assert program.end() == (0, "")
    said = {"event: Refreshed", "the interpreter goes on with its exit"}
    assert said <= set(lines) <= said | {f"thread {i}: 200" for i in range(3)}
    assert strict_server.stats.rotations == 1


def test_a_request_of_an_exit_handler_refreshes_and_is_answered(strict_server: StrictServer) -> None:
    with leaving(strict_server, "at_exit") as program:
        lines = program.lines()
        assert program.end() == (0, "")
    ending = ["leaving", "the interpreter goes on with its exit"]
    if lines[0] == "at exit: RefreshUnavailable":
        assert sys.version_info[:2] == (3, 12), "some of which start no thread in an exit handler"
        assert sorted(lines[1:]) == ending
    else:
        assert sorted(lines) == ["at exit: 200", "event: Refreshed", *ending]
        assert strict_server.stats.refreshes == 1


def test_an_exit_in_a_pool_thread_takes_no_request_down(strict_server: StrictServer) -> None:
    strict_server.hold_refresh("after")
    with leaving(strict_server, "exit_in_a_pool") as program:
        strict_server.wait_for(WITHIN, rotations=1)
        program.tell()
        assert program.line() == "exit: SystemExit"
        assert program.line() == "waiting"
        strict_server.release()
        lines = program.lines()
        assert program.end() == (0, "")
    assert sorted(lines) == [
        "event: Refreshed",
        "leaving",
        *[f"pool {i}: 200" for i in range(3)],
        "the interpreter goes on with its exit",
    ]
    assert strict_server.stats.refreshes == 1

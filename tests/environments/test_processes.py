"""Processes that Python starts by itself: tokens travel, credentials do not and say what to do instead."""

from __future__ import annotations

import multiprocessing
import pickle

import pytest

from keyturn.testing import StrictServer
from tests.environments import programs
from tests.kit import credentials_for
from tests.scenarios.program import Program, given, written


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_worker_process_makes_credentials_of_the_tokens_that_it_is_handed(
    strict_server: StrictServer, method: str
) -> None:
    handed = written(strict_server.sign_in("the worker's", ttl=-1.0))
    inherited = written(strict_server.sign_in("the parent's", ttl=-1.0))
    what = given(
        strict_server, strict_server.sign_in(ttl=-1.0), method=method, handed=handed, inherited=inherited
    )
    with Program("spawning", what, package=programs.NAME) as program:
        lines = program.lines()
        code, stderr = program.end()
    assert lines.pop(0) == "before: 1"
    assert lines.pop(0) == "tokens: (200, 1)"
    assert lines.pop(0).startswith("credentials: Credentials cannot be pickled: create them in the process")
    if method == "fork":
        assert lines.pop(0) == "inherited: " + " ".join(["RefreshAfterFork"] * 4)
    assert lines == ["after: 2"]
    assert (code, stderr) == (0, "")
    assert strict_server.stats.refreshes == strict_server.stats.rotations == 3


def test_tokens_travel_whole_and_credentials_and_what_holds_them_do_not(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()
    assert pickle.loads(pickle.dumps(tokens)) == tokens  # noqa: S301 - our own
    credentials = credentials_for(strict_server, tokens)
    for carrier in (credentials, [credentials]):
        with pytest.raises(TypeError, match="create them in the process that uses them"):
            pickle.dumps(carrier)

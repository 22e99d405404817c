"""Where no thread can be started: valid tokens are used; a refresh is refused by name, with the way out."""

from __future__ import annotations

import sys
import threading
from datetime import timedelta

import httpx2
import pytest

import keyturn
from keyturn.client.httpx2 import Auth
from keyturn.errors import RefreshUnavailable, RefreshUnsupported
from keyturn.testing import StrictServer
from tests.environments import programs
from tests.kit import credentials_for
from tests.scenarios.program import Program, given, written
from tests.waiting import WITHIN

# What Python says, and what that means here: for now, or for good.
LIMIT = "can't start new thread"
REASONS = {
    LIMIT: ("linux", RefreshUnavailable, "ulimit -u"),
    "can't create new thread at interpreter shutdown": ("linux", RefreshUnavailable, "shutting down"),
    "thread is not supported for isolated subinterpreters": ("linux", RefreshUnsupported, "sign_in"),
    "daemon threads are disabled in this (sub)interpreter": ("linux", RefreshUnsupported, "sign_in"),
    "browser: " + LIMIT: ("emscripten", RefreshUnsupported, "sign_in"),
}


def refuse_threads(patched: pytest.MonkeyPatch, said: str = LIMIT, platform: str = sys.platform) -> None:
    """Have every start of a thread fail."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError(said)

    patched.setattr(threading.Thread, "start", refuse)
    patched.setattr(sys, "platform", platform)


@pytest.mark.parametrize("said", REASONS)
@pytest.mark.usefixtures("no_loop_yet")
def test_a_refresh_that_gets_no_thread_says_why_and_what_to_do_and_costs_nothing(
    strict_server: StrictServer, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    platform, kind, way_out = REASONS[said]
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=-1.0))
    api = httpx2.Client(base_url=strict_server.url, auth=Auth(credentials), trust_env=False)

    with monkeypatch.context() as patched, api:
        refuse_threads(patched, said, platform)
        with pytest.raises(kind, match=way_out) as caught:
            api.get("/x")

    assert type(caught.value) is kind
    if isinstance(caught.value, RefreshUnavailable):
        assert caught.value.attempts == 0
    assert strict_server.stats.refreshes == 0


@pytest.mark.usefixtures("no_loop_yet")
def test_a_limit_of_threads_is_tried_again_at_the_next_call(
    strict_server: StrictServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=-1.0))
    with monkeypatch.context() as patched:
        refuse_threads(patched)
        for _ in range(3):
            with pytest.raises(RefreshUnavailable):
                credentials.get_tokens()

    assert credentials.get_tokens().generation == 1


@pytest.mark.parametrize("platform", [sys.platform, "emscripten"])
@pytest.mark.usefixtures("no_loop_yet")
def test_a_token_that_is_valid_is_used_where_no_refresh_can_begin(
    strict_server: StrictServer, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    moment = [0.0]
    tokens = strict_server.sign_in(ttl=600.0)
    assert tokens.expires_at is not None
    credentials = credentials_for(strict_server, tokens, clock=lambda: moment[0])
    api = httpx2.Client(base_url=strict_server.url, auth=Auth(credentials), trust_env=False)

    with monkeypatch.context() as patched, api:
        refuse_threads(patched, platform=platform)
        for left in (599.0, 30.0, 20.0, 1.0):
            moment[0] = tokens.expires_at - left
            assert api.get("/x").status_code == 200
            assert credentials.get_tokens(min_ttl=timedelta(seconds=100)).access == tokens.access

    moment[0] = tokens.expires_at - 1.0 + 60.0
    assert credentials.get_tokens().generation == 1, "and the refresh comes once it can"


def test_tokens_that_were_refreshed_elsewhere_are_the_way_out(
    strict_server: StrictServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=-1.0))
    with monkeypatch.context() as patched:
        refuse_threads(patched, platform="emscripten")
        credentials.sign_in(strict_server.sign_in())
        assert credentials.get_tokens().generation == 0


@pytest.mark.skipif(sys.platform != "linux", reason="limits address space by Linux's rules")
def test_a_real_limit_ends_in_the_error_and_a_higher_one_in_tokens(strict_server: StrictServer) -> None:
    what = given(strict_server, strict_server.sign_in(ttl=-1.0))
    with Program("limited", what, package=programs.NAME) as program:
        assert program.lines() == ["RefreshUnavailable", "1"]
        assert program.end() == (0, "")


# Subinterpreters


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="subinterpreters are CPython's")
def test_an_isolated_subinterpreter_is_told_by_name_that_it_cannot_refresh(
    strict_server: StrictServer,
) -> None:
    valid = written(strict_server.sign_in("valid", ttl=600.0))
    what = given(strict_server, strict_server.sign_in(ttl=-1.0), kind="isolated", valid=valid)
    with Program("subinterpreter", what, package=programs.NAME) as program:
        lines = program.lines()
        assert lines[-2:] == ["main: 1", "ended"], "the main interpreter refreshes"
        assert lines[:-2] in (
            ["RefreshUnsupported", "valid: 0"],
            ["grant: RefreshUnsupported"],  # Python 3.11 with trio installed
        )
        assert program.end() == (0, "")
    assert strict_server.stats.refreshes == 1


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="subinterpreters are CPython's")
def test_an_embedders_subinterpreter_refreshes_and_ends_with_a_refresh_in_the_air(
    strict_server: StrictServer,
) -> None:
    pytest.importorskip("_testcapi")
    strict_server.hold_refresh("after")
    what = given(strict_server, strict_server.sign_in(ttl=-1.0), kind="embedded")
    with Program("subinterpreter", what, package=programs.NAME) as program:
        strict_server.wait_for(WITHIN, rotations=1)
        program.tell()
        assert program.line() == "ending"
        strict_server.release()
        assert program.lines() == ["event: Refreshed", "ended"]
        assert program.end() == (0, "")
    assert strict_server.stats.refreshes == 1


def test_the_error_is_at_the_root_and_says_where_it_comes_from() -> None:
    assert keyturn.RefreshUnsupported is RefreshUnsupported
    assert issubclass(RefreshUnsupported, keyturn.RefreshError)

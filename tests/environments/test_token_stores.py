"""Credentials in a shared store, in every environment: one refresh for all processes, and a quiet end."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from keyturn.testing import StrictServer
from tests.client.token_stores.conftest import postgres_url, redis_url
from tests.environments import programs
from tests.processes.conftest import own_postgres, own_redis
from tests.processes.stores import KINDS, a_prefix, a_table
from tests.scenarios.program import Program, given, written
from tests.waiting import WITHIN

__all__ = ["own_postgres", "own_redis", "postgres_url", "redis_url"]


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A new store of each kind, gone afterwards."""
    kind: str = request.param
    with ExitStack() as stack:
        if kind == "postgresql":
            yield stack.enter_context(a_table(request.getfixturevalue("postgres_url")))
        elif kind == "redis":
            yield stack.enter_context(a_prefix(request.getfixturevalue("redis_url")))
        else:
            yield f"file://{tmp_path}/tokens" if kind == "file" else f"sqlite:///{tmp_path}/tokens.db"


def started(server: StrictServer, program: str, store: str, count: int = 2, **more: object) -> list[Program]:
    """Start programs that share a name in a store."""
    what = given(server, server.sign_in(ttl=-1.0), store=store, name=f"alice-{uuid.uuid4().hex[:8]}", **more)
    return [Program(program, what, package=programs.NAME) for _ in range(count)]


ENVIRONMENTS = {
    "threads": {"runs": "threads"},
    "gevent": {"runs": "gevent"},
    "gevent, patched late": {"runs": "gevent_late"},
    "asyncio.run": {"runs": "asyncio"},
    "uvloop": {"runs": "uvloop"},
    "trio": {"runs": "trio"},
    "freezegun": {"runs": "threads", "clock": "freezegun"},
    "time-machine": {"runs": "asyncio", "clock": "time_machine"},
}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_two_processes_share_each_refresh_and_end_quietly_with_everything_open(
    strict_server: StrictServer, store: str, environment: str
) -> None:
    what = {"clock": "real"} | ENVIRONMENTS[environment]
    pytest.importorskip(what["runs"].partition("_")[0]) if "gevent" in what["runs"] else None
    with ExitStack() as stack:
        both = [stack.enter_context(one) for one in started(strict_server, "sharing", store, 2, **what)]
        assert [one.line() for one in both] == ["ready"] * 2
        strict_server.hold_refresh()
        for one in both:
            one.tell()
        strict_server.wait_for(WITHIN, refreshes=1)
        strict_server.release()
        assert [one.line() for one in both] == ["200"] * 2, "at first use"
        assert strict_server.stats.refreshes == 1

        for refreshes, order in ((2, both), (3, both[::-1])):
            strict_server.expire()
            for one in order:
                one.tell()
                assert one.line() == "200"
            assert strict_server.stats.refreshes == refreshes, "whoever is first refreshes for both"

        for one in both:
            one.tell("end")
            assert (one.lines(), *one.end()) == ([], 0, "")
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses) == (3, 3, 0)


# Processes that come from each other


def sockets(program: Program) -> set[str]:
    """Return which sockets a program has open."""
    there = Path(f"/proc/{program._process.pid}/fd")
    links = set()
    for one in there.iterdir():
        with suppress(OSError):
            links.add(str(one.readlink()))
    return {link for link in links if link.startswith("socket:")}


@pytest.mark.parametrize("method", ["fork", "os.fork", "spawn"])
@pytest.mark.parametrize("first_use", ["before", "after"])
def test_related_processes_each_refresh_in_their_turn_and_the_parents_connections_outlive_them(
    strict_server: StrictServer, store: str, method: str, first_use: str
) -> None:
    children = ["parent.child", "parent.child.grandchild", "parent.second"]
    with started(strict_server, "relatives", store, 1, method=method)[0] as program:

        def ask(process: str, what: str) -> str:
            program.tell(f"{process} {what}")
            return program.line()

        if first_use == "before":
            assert ask("parent", "crowd") == "200"
        for process in children:
            assert ask(process, "fork") == "forked"
        for refreshes, process in enumerate([*children[::-1], "parent"], 1 + (first_use == "before")):
            strict_server.expire()
            assert ask(process, "crowd") == "200", process
            assert strict_server.stats.refreshes == refreshes, f"it is the turn of {process}"
            for other in ["parent", *children]:
                assert ask(other, "request") == "200", other
        used = sockets(program)

        for process in children[::-1]:
            assert ask(process, "end") == "0"
        assert len(used - sockets(program)) == 2, "the pipes to its children; its connections outlive them"
        strict_server.expire()
        assert ask("parent", "crowd") == "200"
        program.tell("parent end")
        assert (program.lines(), *program.end()) == ([], 0, "")
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses) == (refreshes + 1, refreshes + 1, 0)


# The end of a program

PROMPTLY = 20.0  # seconds, on a busy machine: far less than the exchange that is held may take
LEFT = ["leaving", "the interpreter goes on with its exit"]
ENDS = {
    "while_threads_wait": (0, LEFT),
    "by_exit_in_a_thread": (0, LEFT),
    "by_os_exit": (4, []),
    "by_sigterm": (-15, []),
    "by_ctrl_c": (130, ["interrupted", *LEFT]),
}


@pytest.mark.parametrize("way", ENDS)
def test_a_process_that_ends_while_it_waits_for_another_one_does_so_at_once_and_quietly(
    strict_server: StrictServer, store: str, way: str
) -> None:
    what = given(
        strict_server, strict_server.sign_in(ttl=-1.0), store=store, name=f"alice-{uuid.uuid4().hex}"
    )
    first = what | {"way": "fall_off_the_end"}
    with Program("leaving_store", first, package=programs.NAME) as holder:
        strict_server.hold_refresh("after")
        strict_server.wait_for(WITHIN, rotations=1)
        with Program("leaving_store", what | {"way": way}, package=programs.NAME) as program:
            assert program.line() == "ready"
            if way != "by_ctrl_c":
                program.tell()
            assert program.ends_after() < PROMPTLY
            code, said = ENDS[way]
            assert (program.lines(), *program.end()) == (said, code, "")
        strict_server.release()
        assert sorted(holder.line() for _ in range(3)) == ["1", "event: Refreshed", "ready"]
        holder.tell()
        assert (holder.lines(), *holder.end()) == (LEFT, 0, "")
    stats = strict_server.stats
    assert (stats.refreshes, stats.reuses) == (1, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_process_whose_store_has_gone_says_what_it_could_not_save_and_ends_within_bounds(
    strict_server: StrictServer, request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    server = None
    if kind in ("redis", "postgresql"):
        server = request.getfixturevalue("own_redis" if kind == "redis" else "own_postgres")
        server.start()
        store = server.url
    else:
        store = f"file://{tmp_path}/tokens" if kind == "file" else f"sqlite:///{tmp_path}/tokens.db"
    strict_server.hold_refresh("after")
    with started(strict_server, "leaving_store", store, 1, way="with_a_save_to_do")[0] as program:
        assert program.line() == "ready"
        strict_server.wait_for(WITHIN, rotations=1)
        program.tell()
        assert program.line() == "full"
        if server is not None:
            server.stop()
        strict_server.release()
        assert program.ends_after() < PROMPTLY
        said = program.lines()
        assert program.end() == (0, "")
    assert set(said) == {"event: Refreshed", "1", "event: SaveFailed", *LEFT}, "who waited has the pair"
    assert strict_server.stats.refreshes == 1


# Where the system lacks something

WITHOUT_LOCKS_AND_FORKS = """
import logging, os, sys, warnings
logging.disable()
warnings.filterwarnings("ignore", "only soft file lock")  # filelock's, which keyturn does not use
sys.modules["fcntl"] = None
for name in ("fork", "register_at_fork"):
    delattr(os, name)
import keyturn
from keyturn.client import grants
here, tokens = "http://127.0.0.1:1", keyturn.Tokens("access", "refresh")
grant = grants.OAuth2(here + "/token", client_id="programs")
for url in sys.argv[1:]:
    mine = keyturn.Credentials(grant, tokens=tokens, origins=[here], store=url, name="alice")
    if not url.startswith(("postgresql", "redis")):
        try:
            mine.get_tokens(timeout=60)
        except keyturn.RefreshMisconfigured as error:
            print(error)
"""


def test_every_store_loads_where_there_are_no_forks_and_says_where_it_misses_file_locks(
    tmp_path: Path,
) -> None:
    urls = [f"file://{tmp_path}/tokens", f"sqlite:///{tmp_path}/tokens.db"]
    urls += ["postgresql://127.0.0.1:1/nothing", "redis://127.0.0.1:1/0"]
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", WITHOUT_LOCKS_AND_FORKS, *urls]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WITHIN)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("the file system has no such locks") == 2


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="subinterpreters are CPython's")
def test_an_isolated_subinterpreter_is_told_by_name_that_it_reaches_no_store(
    strict_server: StrictServer, store: str
) -> None:
    valid = written(strict_server.sign_in("valid", ttl=600.0))
    more = {"kind": "isolated", "valid": valid, "store": store, "name": "alice"}
    what = given(strict_server, strict_server.sign_in(ttl=-1.0), **more)
    with Program("subinterpreter", what, package=programs.NAME) as program:
        lines = program.lines()
        assert lines[-2:] == ["main: 1", "ended"]
        assert lines[:-2] in (
            ["RefreshUnsupported", "valid: RefreshUnsupported"],
            ["grant: RefreshUnsupported"],  # Python 3.11 with trio installed
        )
        assert program.end() == (0, "")

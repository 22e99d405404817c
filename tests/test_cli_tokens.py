"""`keyturn tokens`, as operators type it: over stores of every kind, and over one that misbehaves."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Self

import psycopg
import pytest
import redis
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet
from rich.cells import cell_len

import keyturn
from keyturn.cli import commands
from keyturn.cli.listing import draw
from keyturn.client.loop import on_thread
from keyturn.client.record import Failure, Marker, Record, Version, fingerprint
from keyturn.client.token_stores import Changed, Lease, Reading, TokenStore, inventory, new_store
from keyturn.client.token_stores.inventory import Item
from keyturn.errors import RefreshMisconfigured, TokenStoreUnavailable
from keyturn.testing import StrictServer
from tests.client.token_stores.conftest import postgres_url, redis_url
from tests.client.token_stores.kit import on_loop
from tests.kit import credentials_for

__all__ = ["postgres_url", "redis_url"]

EPOCH = "3f9a1c2e4b5d6a7f"
NOW = 1_795_000_000.0  # 2026-11-18 11:06:40 UTC, to the stores' clock
SECRET = "s3cret-refresh-token"
SEED = fingerprint("the seed")


def a_record(name: str, **fields: object) -> Record:
    """Return a record of a session that goes on, refreshed 41 times."""
    record = Record(
        name=name,
        epoch=EPOCH,
        generation=41,
        began_at=NOW - 86400.0,
        saved_at=NOW - 180.0,
        sealed=json.dumps({"refresh": SECRET}),
        expires_at=NOW + 720.0,
        lifetime=900.0,
        seed=SEED,
    )
    return dataclasses.replace(record, **fields)  # type: ignore[arg-type]


def a_marker(record: Record, age: float) -> Record:
    """Return a record whose refresh was begun so many seconds ago."""
    marker = Marker(
        epoch=record.epoch, generation=record.generation, fingerprint=fingerprint(SECRET), at=NOW - age
    )
    return dataclasses.replace(record, marker=marker)


def failed(kind: str = "unavailable", error: str = "RefreshUnavailable") -> Failure:
    """Return how a refresh failed two minutes ago."""
    message = "the token end point answers 503"
    return Failure(kind=kind, at=NOW - 120.0, error=error, message=message, status=503)  # type: ignore[arg-type]


def ended(name: str, why: str = "signed_out") -> Record:
    """Return a tombstone."""
    return a_record(name, sealed=None, expires_at=None, lifetime=None, ended=why)


class Fake:
    """A token store whose clock stands still, and which misbehaves on demand."""

    records: ClassVar[dict[str, Record]] = {}
    damaged: ClassVar[set[str]] = set()
    held: ClassVar[set[str]] = set()
    did: ClassVar[list[str]] = []
    hangs: ClassVar[set[str]] = set()
    fails: ClassVar[Exception | None] = None
    notifies = False

    @classmethod
    def from_url(cls, url: str) -> Self:
        return cls()

    async def _do(self, what: str) -> None:
        self.did.append(what)
        if what in self.hangs:
            await asyncio.Event().wait()
        if self.fails is not None and what not in {"aclose", "release"}:
            raise self.fails

    async def read(self, name: str) -> Reading:
        await self._do("read")
        if name in self.damaged:
            raise RefreshMisconfigured("a record in the token store cannot be read: it is damaged")
        return Reading(self.records.get(name), NOW)

    async def write(
        self, name: str, record: Record, *, over: Version | None, under: Lease | None = None
    ) -> bool:
        await self._do("write")
        there = self.records.get(name)
        if (None if there is None else there.version) != over:
            return False
        self.records[name] = record
        return True

    async def try_lease(self, name: str, seconds: float) -> Lease | None:
        await self._do("lease")
        return None if name in self.held else FakeLease(self)

    def watch(self, name: str, changed: Changed) -> None:
        raise AssertionError("nobody watches")

    def unwatch(self, name: str, changed: Changed) -> None:
        raise AssertionError("nobody watches")

    async def names(self) -> list[str]:
        await self._do("names")
        return sorted({*self.records, *self.damaged})

    async def remove(self, name: str) -> bool:
        await self._do("remove")
        was = name in self.records or name in self.damaged
        self.records.pop(name, None)
        self.damaged.discard(name)
        return was

    async def aclose(self) -> None:
        await self._do("aclose")

    def abandon(self) -> None:
        raise AssertionError("nobody forks")


@dataclasses.dataclass
class FakeLease:
    """The fake's lease."""

    store: Fake
    held: bool = True

    async def release(self) -> None:
        """Note that it was given up."""
        self.held = False
        await self.store._do("release")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Fake]]:
    """Have fake:// open the fake, empty and well."""
    real = new_store

    def opened(url: str) -> TokenStore:
        return Fake.from_url(url) if url.startswith("fake://") else real(url)

    monkeypatch.setattr(inventory, "new_store", opened)
    monkeypatch.delenv("KEYTURN_STORE", raising=False)
    Fake.records, Fake.damaged, Fake.held, Fake.did, Fake.hangs = {}, set(), set(), [], set()
    Fake.fails = None
    yield Fake
    assert Fake.did[-1:] in ([], ["aclose"]), "the store is closed at the end"


def put(*records: Record) -> None:
    """Have the fake hold records."""
    Fake.records.update({record.name: record for record in records})


def typed(*words: str, environment: dict[str, str] | None = None, answer: str | None = None) -> Result:
    """Run `keyturn tokens …` in this process, its output a pipe."""
    return CliRunner().invoke(commands(), ["tokens", *words], env=environment, input=answer)


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `keyturn tokens …` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "keyturn", "tokens", *words],
        env={key: value for key, value in os.environ.items() if key != "KEYTURN_STORE"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# What is shown


def test_list_shows_each_name_sorted_with_its_state_its_times_and_its_last_error(fake: type[Fake]) -> None:
    put(
        a_record("worker"),
        a_record("alice", generation=0, saved_at=NOW - 3.0, expires_at=None),
        a_record("old", expires_at=NOW - 7200.0, failure=failed()),
        ended("bob"),
    )

    done = typed("list", "fake://")

    assert (done.exit_code, done.stderr) == (0, "")
    lines = [re.split(r"  +", line) for line in done.stdout.splitlines()]
    assert lines == [
        ["NAME", "STATE", "EPOCH", "GEN", "EXPIRES", "SAVED", "LAST ERROR"],
        ["alice", "signed in", EPOCH, "0", "unknown", "signed in 3 s ago", "-"],
        ["bob", "signed out", EPOCH, "41", "-", "ended 3 min ago", "-"],
        [
            *("old", "signed in", EPOCH, "41", "2 h ago (2026-11-18 09:06:40Z)", "refreshed 3 min ago"),
            "RefreshUnavailable 2 min ago",
        ],
        ["worker", "signed in", EPOCH, "41", "in 12 min (2026-11-18 11:18:40Z)", "refreshed 3 min ago", "-"],
    ]


def test_the_columns_of_a_list_stand_below_their_heads(fake: type[Fake]) -> None:
    put(a_record("a"), a_record("a-longer-name"), a_record("\u65e5\u672c"))

    head, *lines = typed("list", "fake://").stdout.splitlines()

    assert len(lines) == 3
    for line in lines:
        assert cell_len(line[: line.index("signed in")]) == head.index("STATE")
        assert cell_len(line[: line.index("in 12 min")]) == head.index("EXPIRES")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (a_record("x"), "signed in"),
        (ended("x"), "signed out"),
        (ended("x", "refused"), "refused"),
        (a_marker(a_record("x"), 5.0), "refreshing"),
        (a_marker(a_record("x"), 61.0), "outcome unknown"),
        (a_marker(a_record("x", failure=failed()), 5.0), "refreshing"),
        (a_marker(a_record("x", failure=dataclasses.replace(failed(), at=NOW)), 5.0), "outcome unknown"),
        (dataclasses.replace(a_marker(a_record("x"), 61.0), generation=42), "signed in"),
        (dataclasses.replace(a_marker(a_record("x"), 61.0), epoch="another"), "signed in"),
        (a_record("x", failure=failed("unknown", "OutcomeUnknown")), "outcome unknown"),
        (a_record("x", failure=failed()), "signed in"),
    ],
)
def test_a_state_is_that_of_the_record_and_of_a_marker_that_is_the_records(
    fake: type[Fake], record: Record, said: str
) -> None:
    put(record)

    assert f"  {said}  " in typed("list", "fake://").stdout
    assert re.search(f"^state +{said}$", typed("show", "fake://", "x").stdout, re.MULTILINE)
    for command in (["list", "fake://"], ["show", "fake://", "x"]):
        assert json.loads(typed(*command, "--json").stdout)["state"] == said.replace(" ", "_")


def test_a_damaged_record_is_listed_beside_the_others(fake: type[Fake]) -> None:
    put(a_record("well"))
    fake.damaged = {"hurt"}

    done = typed("list", "fake://")

    assert done.exit_code == 0
    assert "unreadable" in done.stdout.splitlines()[1]
    assert "it is damaged" in done.stdout.splitlines()[1]
    assert done.stdout.splitlines()[2].startswith("well")
    assert json.loads(typed("show", "--json", "fake://", "hurt").stdout)["state"] == "unreadable"


def test_a_list_as_data_is_a_line_of_json_a_name_with_iso_and_posix_times(fake: type[Fake]) -> None:
    put(a_marker(a_record("alice", failure=failed()), 5.0), ended("bob"))

    alice, bob = [json.loads(line) for line in typed("list", "--json", "fake://").stdout.splitlines()]

    assert (alice["name"], alice["epoch"], alice["generation"]) == ("alice", EPOCH, 41)
    assert (alice["expires_at"], alice["expires_at_posix"]) == ("2026-11-18T11:18:40.000Z", NOW + 720)
    assert (alice["now"], alice["expires_in"]) == ("2026-11-18T11:06:40.000Z", 720.0)
    assert (alice["encrypted"], alice["remembers_seed"]) == (False, True)
    assert alice["marker"]["at_posix"] == NOW - 5
    assert alice["failure"]["error"] == "RefreshUnavailable"
    assert alice["failure"]["at"] == "2026-11-18T11:04:40.000Z"
    assert (bob["ended"], bob["expires_at"], bob["encrypted"]) == ("signed_out", None, None)


def test_show_says_all_of_one_name_in_words(fake: type[Fake]) -> None:
    put(a_marker(a_record("alice", sealed="gAAAAA", failure=failed()), 65.0))

    said = typed("show", "fake://", "alice").stdout

    for words in (
        "in 12 min (2026-11-18 11:18:40Z)",
        "after a life of 900 s",
        "encrypted",
        "remembered",
        "a refresh was begun 65 s ago",
        "its end is not recorded",
        "RefreshUnavailable, status 503, 2 min ago (2026-11-18 11:04:40Z): the token end point answers 503",
    ):
        assert words in said
    assert "not encrypted" not in said


def test_neither_tokens_nor_fingerprints_are_shown_anywhere(fake: type[Fake]) -> None:
    put(a_marker(a_record("alice"), 5.0))
    commands = [["list"], ["list", "--json"], ["show"], ["show", "--json"], ["remove", "--yes"]]

    for command, *options in commands:
        done = typed(command, "fake://", *(["alice"] if command != "list" else []), *options)
        assert done.exit_code == 0
        for secret in (SECRET, "refresh_token", "sealed", SEED[:6], fingerprint(SECRET)[:6]):
            assert secret not in done.output


def test_what_would_move_the_cursor_is_spelled_out(fake: type[Fake]) -> None:
    failure = dataclasses.replace(failed(), message="\x1b]0;title\x07", error="\x1b[2J")
    put(a_record("\x1b[31m\nred", failure=failure))

    for command in (["list"], ["list", "--json"], ["show"], ["show", "--json"], ["remove", "--yes"]):
        name = [] if command[0] == "list" else ["\x1b[31m\nred"]
        done = typed(*command, "fake://", *name)
        assert done.exit_code == 0
        assert "\x1b" not in done.output
        assert "\x07" not in done.output


def test_a_token_that_lives_longer_than_a_calendar_does_no_harm(fake: type[Fake]) -> None:
    put(a_record("alice", expires_at=1e18))

    for command in (["list"], ["list", "--json"]):
        assert typed(*command, "fake://").exit_code == 0
    assert typed("show", "fake://", "alice").exit_code == 0


def test_a_store_without_names_says_so_and_prints_nothing(fake: type[Fake]) -> None:
    done = typed("list", "fake://")

    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "The store holds no names.\n")


def test_ten_thousand_names_are_listed(fake: type[Fake]) -> None:
    put(*(a_record(f"customer-{number:05}") for number in range(10_000)))

    assert len(typed("list", "fake://", "--json").stdout.splitlines()) == 10_000


# On a terminal


WIDE = [Item(name, a_record(name, failure=failed()), NOW) for name in ("alice", "a" * 70)]


@pytest.mark.parametrize("width", [72, 80, 100, 120])
def test_on_a_terminal_only_a_name_that_is_longer_than_it_is_longer_than_it(width: int) -> None:
    lines = [line.plain for line in draw(WIDE, width)]

    assert all(len(line) <= width for line in lines)
    assert "a" * 70 in lines, "a long name has a line of its own, whole"
    assert lines.count("  RefreshUnavailable 2 min ago") == 2


def test_a_wide_terminal_shows_what_a_pipe_does() -> None:
    assert [line.plain for line in draw(WIDE, 220)] == [line.plain for line in draw(WIDE, None)]


def test_what_is_amiss_is_red_and_nothing_else_has_a_colour() -> None:
    items = [Item("alice", a_record("alice"), NOW), Item("eve", ended("eve", "refused"), NOW)]
    _, alice, eve = draw(items, None)

    assert alice.spans == []
    assert [(eve.plain[span.start : span.end].strip(), span.style) for span in eve.spans] == [
        ("refused", "red")
    ]


# remove


def test_remove_leaves_a_tombstone_that_keeps_the_seed_and_loses_no_race(fake: type[Fake]) -> None:
    before = a_marker(a_record("alice", failure=failed()), 5.0)
    put(before)

    done = typed("remove", "fake://", "alice", "--yes")

    assert (done.exit_code, done.stdout) == (0, "alice is signed out, for every process.\n")
    after = fake.records["alice"]
    assert (after.sealed, after.ended, after.seed) == (None, "signed_out", SEED)
    assert (after.marker, after.failure, after.expires_at) == (None, None, None)
    assert after.saved_at == NOW
    assert after.supersedes(before)
    assert after.version != before.version, "a save under way compares with the version that it read"
    assert Record.from_json(after.to_json()) == after
    assert fake.did.count("lease") == fake.did.count("release") == 1


def test_remove_takes_what_a_refresh_saves_in_between(
    fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(a_record("alice"))
    write = fake.write

    async def late(
        self: Fake, name: str, record: Record, *, over: Version | None, under: Lease | None = None
    ) -> bool:
        if record.generation == 42:
            self.records[name] = a_record(name, generation=42)
        return await write(self, name, record, over=over, under=under)

    monkeypatch.setattr(fake, "write", late)

    assert typed("remove", "fake://", "alice", "-y").exit_code == 0
    assert (fake.records["alice"].ended, fake.records["alice"].generation) == ("signed_out", 43)


def test_remove_goes_on_without_a_lease_that_somebody_keeps(
    fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(a_record("alice"))
    fake.held = {"alice"}
    monkeypatch.setattr(inventory, "WAITS_FOR_LEASE", 0.2)

    assert typed("remove", "fake://", "alice", "-y").exit_code == 0
    assert fake.records["alice"].ended == "signed_out"
    assert fake.did.count("lease") > 1
    assert "release" not in fake.did


def test_remove_of_what_is_over_says_so_and_changes_nothing(fake: type[Fake]) -> None:
    put(ended("alice", "refused"))

    done = typed("remove", "fake://", "alice", "-y")

    assert (done.exit_code, done.stdout) == (
        0,
        "alice is over already: refused. --forget erases its record.\n",
    )
    assert fake.records["alice"] == ended("alice", "refused")


@pytest.mark.parametrize("record", [a_record("alice"), ended("alice")])
def test_forget_erases_the_record_tombstone_included(fake: type[Fake], record: Record) -> None:
    put(record)

    done = typed("remove", "--forget", "--yes", "fake://", "alice")

    assert (done.exit_code, done.stdout) == (0, "alice is forgotten.\n")
    assert fake.records == {}


def test_a_damaged_record_can_only_be_forgotten(fake: type[Fake]) -> None:
    fake.damaged = {"alice"}

    done = typed("remove", "fake://", "alice", "-y")
    assert done.exit_code == 1
    assert "--forget erases it" in done.stderr
    assert fake.damaged == {"alice"}

    assert typed("remove", "fake://", "alice", "-y", "--forget").exit_code == 0
    assert fake.damaged == set()


def test_without_a_terminal_remove_wants_to_be_told_yes(fake: type[Fake]) -> None:
    put(a_record("alice"))

    done = typed("remove", "fake://", "alice", answer="y\n")

    assert done.exit_code == 2
    assert "--yes" in done.stderr
    assert fake.records["alice"].ended is None


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_on_a_terminal_remove_asks(
    fake: type[Fake], monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    put(a_record("alice"))
    monkeypatch.setattr("keyturn.cli.tokens.has_terminal", lambda: True)

    done = typed("remove", "fake://", "alice", answer=answer)

    assert done.exit_code == code
    assert "End the session of alice (signed in), for every process that shares the store?" in done.stderr
    assert (fake.records["alice"].ended is None) is (code == 1)


# Wrong use, and stores that fail: one line each


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["list"], "which store?"),
        (["show", "alice"], "which store?"),
        (["list", "fake://", "more"], "list takes one STORE-URL"),
        (["show", "fake://"], "which NAME?"),
        (["show"], "which NAME?"),
        (["remove", "fake://", "-y"], "which NAME?"),
        (["show", "fake://", "a", "b"], "quote a name that has spaces"),
        (["show", "alice", "fake://"], "STORE-URL comes before NAME"),
        (["list", "ftp://host"], "there is no token store 'ftp'"),
        (["list", "/var/lib/tokens"], "named by a URL"),
        (["list", "memory://"], "memory of one process"),
        (["fake://"], "list, show or remove comes before STORE-URL"),
        (["show", "fake://", "alcie"], "the store has no name alcie; did you mean alice?"),
        (["remove", "fake://", "alcie", "-y"], "did you mean alice?"),
        (["show", "fake://", "nothing like it"], "the store has no name nothing like it\n"),
    ],
)
def test_a_wrong_use_is_one_line_that_says_what_is_wrong(
    fake: type[Fake], words: list[str], said: str
) -> None:
    put(a_record("alice"))

    done = typed(*words)

    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.startswith("keyturn tokens: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_typo_in_a_command_or_an_option_is_answered_with_what_was_meant(fake: type[Fake]) -> None:
    for words, meant in ((["lst"], "list"), (["list", "--jsn", "fake://"], "--json")):
        done = typed(*words)
        assert done.exit_code == 2
        assert meant in done.stderr


def test_the_url_may_come_from_the_environment_and_one_that_is_typed_wins(fake: type[Fake]) -> None:
    put(a_record("alice"))
    there = {"KEYTURN_STORE": "fake://"}

    assert "alice" in typed("list", environment=there).stdout
    assert "alice" in typed("show", "alice", environment=there).stdout
    assert typed("remove", "alice", "--yes", environment=there).exit_code == 0
    assert typed("list", "fake://", environment={"KEYTURN_STORE": "ftp://"}).exit_code == 0
    assert typed("show", "fake://", environment=there).exit_code == 2


@pytest.mark.parametrize("url", ["fake://user:hush@host/0", "fake://host/0?password=hush"])
def test_a_password_on_the_command_line_is_warned_of_and_never_shown(fake: type[Fake], url: str) -> None:
    put(a_record("alice"))

    shown = typed("list", url)
    assert "KEYTURN_STORE" in shown.stderr
    assert "alice" in shown.stdout
    quiet = typed("list", environment={"KEYTURN_STORE": url})
    assert quiet.stderr == ""
    for done in (
        shown,
        quiet,
        typed(url),
        typed("show", url),
        typed("list", url, url),
        typed("show", url, "x"),
    ):
        assert "hush" not in done.output


@pytest.mark.parametrize(
    "problem",
    [
        TokenStoreUnavailable("the token store does not answer"),
        RefreshMisconfigured("the token store refuses the password"),
    ],
)
@pytest.mark.parametrize("words", [["list"], ["show"], ["remove", "-y"], ["remove", "-y", "--forget"]])
def test_a_store_that_fails_is_one_line_and_exit_code_1(
    fake: type[Fake], words: list[str], problem: Exception
) -> None:
    fake.fails = problem

    done = typed(*words, "fake://", *([] if words == ["list"] else ["alice"]))

    assert done.exit_code == 1
    assert done.stderr == f"keyturn tokens: {problem}\n"


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["list"], "names"),
        (["list"], "read"),
        (["show"], "read"),
        *((["remove", "-y"], where) for where in ("read", "lease", "write", "release")),
        *((["remove", "-y", "--forget"], where) for where in ("read", "lease", "remove")),
    ],
)
def test_a_store_that_hangs_is_waited_for_within_a_bound(
    fake: type[Fake], monkeypatch: pytest.MonkeyPatch, words: list[str], where: str
) -> None:
    put(a_record("alice"))
    fake.hangs = {where}
    monkeypatch.setattr(inventory, "ANSWERS_WITHIN", 0.1)
    monkeypatch.setattr(inventory, "WAITS_FOR_LEASE", 0.1)

    done = typed(*words, "fake://", *([] if words == ["list"] else ["alice"]))

    assert (done.exit_code, done.stderr) == (1, "keyturn tokens: the token store does not answer\n")
    if where == "write":
        assert "release" in fake.did, "the lease is given up"


def test_a_store_that_hangs_when_it_is_closed_holds_nobody_up(
    fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(a_record("alice"))
    fake.hangs = {"aclose"}
    monkeypatch.setattr(inventory, "_CLOSES_WITHIN", 0.1)

    done = typed("list", "fake://")

    assert (done.exit_code, done.stderr) == (0, "")


def test_help_says_what_each_command_does_and_what_forget_means() -> None:
    assert "KEYTURN_STORE" in run("-h").stdout
    for command, words in (
        ("list", "outcome unknown"),
        ("show", "but its tokens"),
        ("remove", "begins with the"),
    ):
        done = run(command, "--help")
        assert done.returncode == 0
        assert words in done.stdout
        assert "STORE-URL" in done.stdout


# Over real stores


@pytest.fixture(params=["file", "sqlite", "postgres", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the URL of an empty token store of each kind."""
    unique = f"t{uuid.uuid4().hex}"
    if request.param == "file":
        yield (tmp_path / "tokens").as_uri()
    elif request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'tokens.db'}"
    elif request.param == "redis":
        server: str = request.getfixturevalue("redis_url")
        yield f"{server}?prefix={unique}"
        with redis.Redis.from_url(server) as client:
            for key in client.scan_iter(f"*{unique}*"):
                client.delete(key)
    else:
        server = request.getfixturevalue("postgres_url")
        yield f"{server}?keyturn_table={unique}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP TABLE IF EXISTS {unique}")


def keep(url: str, *records: Record) -> None:
    """Write records into a store, and close it."""

    async def main() -> None:
        store = new_store(url)
        for record in records:
            assert await store.write(record.name, record, over=None)
        await store.aclose()

    on_loop(main)


def test_every_kind_of_store_is_listed_shown_ended_and_forgotten(url: str) -> None:
    now, other = time.time(), "alice /\u00e9"
    fields = {"began_at": now - 86400, "saved_at": now - 300, "expires_at": now + 600}
    keep(url, a_record("alice", **fields), a_record(other, **fields))
    there = {"KEYTURN_STORE": url}

    listed = run("list", "--json", **there)
    assert (listed.returncode, listed.stderr) == (0, "")
    said = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [one["name"] for one in said] == ["alice", other]
    assert all(500 < one["expires_in"] <= 600 for one in said)
    assert "refreshed" in typed("show", url, "alice").stdout

    assert run("remove", "alice", "-y", **there).stdout == "alice is signed out, for every process.\n"
    assert json.loads(typed("show", url, "alice", "--json").stdout)["ended"] == "signed_out"
    assert "over already" in typed("remove", "alice", "-y", environment=there).stdout

    assert typed("remove", url, "alice", "-y", "--forget").stdout == "alice is forgotten.\n"
    missing = typed("show", "alice", environment=there)
    assert (missing.exit_code, missing.stderr) == (
        2,
        f"keyturn tokens: the store has no name alice; did you mean {other}?\n",
    )
    assert len(typed("list", "--json", url).stdout.splitlines()) == 1


def test_a_refresh_under_way_loses_to_a_removal_in_every_kind_of_store(url: str) -> None:
    record = a_record("alice")
    keep(url, record)

    assert typed("remove", "alice", "--yes", url).exit_code == 2, "the URL comes first"
    assert typed("remove", url, "alice", "--yes").exit_code == 0

    saved = dataclasses.replace(record, generation=record.generation + 1)
    assert not on_loop(lambda: _written_over(url, saved, record))


async def _written_over(url: str, record: Record, over: Record) -> bool:
    store = new_store(url)
    try:
        return await store.write(record.name, record, over=over.version)
    finally:
        await store.aclose()


def test_a_lease_that_a_process_holds_is_waited_for_and_then_passed_over(url: str) -> None:
    keep(url, a_record("alice"))

    async def main() -> None:
        store = new_store(url)
        lease = await store.try_lease("alice", 60.0)
        assert lease is not None
        done = await on_thread(lambda: run("remove", "alice", "--yes", KEYTURN_STORE=url), "the command")
        assert (done.returncode, done.stderr) == (0, "")
        await lease.release()
        await store.aclose()

    on_loop(main)


@pytest.mark.parametrize("scheme", ["file", "sqlite"])
@pytest.mark.parametrize("words", [["list"], ["show"], ["remove", "-y"], ["remove", "-y", "--forget"]])
def test_looking_at_what_is_not_there_makes_nothing(tmp_path: Path, scheme: str, words: list[str]) -> None:
    url = f"{scheme}:///{tmp_path / 'nothing here'}".replace(" ", "%20")
    if scheme == "file":
        url = (tmp_path / "nothing here").as_uri()

    done = typed(*words, url, *([] if words == ["list"] else ["alice"]))

    assert done.exit_code == 2
    assert done.stderr == ("keyturn tokens: there is no such file or directory: nothing was kept there yet\n")
    assert list(tmp_path.iterdir()) == []


def test_a_removal_signs_out_processes_that_run_and_those_that_start_later(
    strict_server: StrictServer, url: str
) -> None:
    seed = strict_server.sign_in()
    with (
        credentials_for(strict_server, seed, store=url, name="alice") as running,
        credentials_for(strict_server, seed, store=url, name="alice") as later,
    ):
        held = running.get_tokens()

        assert run("remove", "alice", "--yes", KEYTURN_STORE=url).returncode == 0

        for credentials in (running, later):
            with pytest.raises(keyturn.SessionEnded) as ended:
                credentials.renew(held) if credentials is running else credentials.get_tokens()
            assert ended.value.reason == "signed_out"
    assert strict_server.stats.refreshes == 0


def test_what_credentials_keep_is_listed_encrypted_or_not(strict_server: StrictServer, url: str) -> None:
    key = Fernet.generate_key()
    tokens = [strict_server.sign_in() for _ in range(2)]
    with (
        credentials_for(strict_server, tokens[0], store=url, name="plain") as plain,
        credentials_for(
            strict_server, tokens[1], store=url, name="sealed", encryption_keys=[key]
        ) as encrypted,
    ):
        plain.renew(plain.get_tokens())
        encrypted.get_tokens()

        done = typed("list", "--json", url)
        said = {one["name"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert [said[name]["encrypted"] for name in ("plain", "sealed")] == [False, True]
    assert [said[name]["generation"] for name in ("plain", "sealed")] == [1, 0]
    assert [said[name]["state"] for name in ("plain", "sealed")] == ["signed_in"] * 2
    for pair in tokens:
        assert pair.refresh is not None
        assert pair.refresh not in done.stdout


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Listen as a server that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        yield listener


def test_ctrl_c_ends_it_at_once_and_quietly(silent: socket.socket) -> None:
    url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
    command = [sys.executable, "-W", "error", "-m", "keyturn", "tokens", "list", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        connection, _ = silent.accept()
        connection.recv(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        connection.close()

    assert (process.returncode, out, err) == (130, "", "Stopped.\n")


@pytest.mark.parametrize("scheme", ["redis", "postgresql"])
def test_a_server_that_says_nothing_is_one_line_after_a_bound(silent: socket.socket, scheme: str) -> None:
    done = run("list", f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/0")

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_file_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.db"
    theirs.write_text("not a database at all, but long enough to look at" * 100)

    done = typed("list", f"sqlite:///{theirs}")

    assert done.exit_code == 1
    assert done.stderr.startswith("keyturn tokens: ")
    assert done.stderr.count("\n") == 1
    assert theirs.read_text().startswith("not a database at all")


def test_a_reader_who_has_seen_enough_ends_it_quietly(tmp_path: Path) -> None:
    url = (tmp_path / "tokens").as_uri()
    keep(url, *(a_record(f"alice-{number}" + "x" * 200) for number in range(50)))
    for option in ("", "--json"):
        piped = f"{sys.executable} -m keyturn tokens list {option} '{url}' | head -1"
        done = subprocess.run(
            ["/bin/sh", "-c", piped], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stderr == ""
        assert done.stdout.count("\n") == 1


def test_a_missing_extra_is_one_line_that_says_what_to_install() -> None:
    hidden = (
        "import importlib.util as util, sys; real = util.find_spec; sys.argv = ['keyturn', *sys.argv[1:]]\n"
        "util.find_spec = lambda name, *more: None if name == 'redis' else real(name, *more)\n"
        "from keyturn.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", hidden, "tokens", "list", "redis://:hush@localhost/0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("pip install 'keyturn[redis]'")
    assert "Traceback" not in done.stderr
    assert "hush" not in done.stderr

"""The SQLite store: the contract, and what a file shared by processes needs beyond it."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyturn.errors import ConfigurationError, StoreUnavailable
from keyturn.server.refresh_tokens import new_sid
from keyturn.server.session import Session
from keyturn.server.session_stores import SessionStore, open_store
from keyturn.server.session_stores.sqlite import SQLiteStore

from .clock import Clock
from .store_contract import StoreContract, at_once

PROCESSES = 4
ROUNDS = 200


class TestSQLiteStore(StoreContract):
    @pytest.fixture
    def store(self, clock: Clock, tmp_path: Path) -> Iterator[SessionStore]:
        store = SQLiteStore(tmp_path / "sessions.db", clock=clock, timeout=30)
        yield store
        store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path, timeout=30)
    yield store
    store.close()


def started(store: SessionStore, subject: str = "alice") -> Session:
    now = store.now()
    session = Session(sid=new_sid(), subject=subject, started_at=now, expires_at=now + 3600)
    store.create(session)
    return session


def test_of_4_processes_that_advance_at_once_exactly_one_wins(store: SQLiteStore, path: Path) -> None:
    session = started(store)
    racers = [
        subprocess.Popen(
            [sys.executable, Path(__file__).with_name("racer.py"), path, session.sid, str(ROUNDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [int(counter) for racer in racers for counter in racer.communicate(timeout=60)[0].split()]
    assert [racer.returncode for racer in racers] == [0] * PROCESSES
    assert sorted(won) == list(range(ROUNDS))
    row = store.get(session.sid)
    assert row is not None
    assert row.counter == ROUNDS


def test_it_opens_by_its_url_relative_and_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///here.db", f"sqlite:///{tmp_path}/there%20it%20is.db"):
        open_store(url).close()
    assert {"here.db", "there it is.db"} <= {file.name for file in tmp_path.iterdir()}


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://sessions.db",
        "sqlite:///x.db?mode=ro",
        "sqlite:x",
    ],
)
def test_a_url_without_a_file_is_refused_and_says_what_to_write(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"sqlite:///sessions\.db"):
        open_store(url)


def test_a_relative_path_stays_where_it_was_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///sessions.db")
    session = started(store)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert at_once([lambda: store.get(session.sid)] * 4) == [session] * 4
    store.close()


def test_a_second_store_on_the_file_sees_what_the_first_wrote(store: SQLiteStore, path: Path) -> None:
    session = started(store)
    second = SQLiteStore(path)
    assert second.get(session.sid) == session
    store.end(session.sid, "signed_out")
    assert not second.advance(session.sid, read=0, to=0)
    second.close()


def test_the_file_is_its_owners_alone(store: SQLiteStore, path: Path) -> None:
    started(store)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


def test_it_writes_ahead(store: SQLiteStore, path: Path) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_an_end_and_a_sign_in_are_flushed_and_an_advance_is_not(store: SQLiteStore) -> None:
    session = started(store)
    (connection,) = store._process.all
    ran: list[str] = []

    def note(statement: str) -> None:
        if not statement.startswith("PRAGMA"):
            ran.append(f"{statement.split()[0]} {flushing(connection)}")

    def flushing(connection: sqlite3.Connection) -> str:
        connection.set_trace_callback(None)
        (level,) = connection.execute("PRAGMA synchronous").fetchone()
        connection.set_trace_callback(note)
        return {1: "NORMAL", 2: "FULL"}[level]

    connection.set_trace_callback(note)
    store.advance(session.sid, read=0, to=1)
    store.advance(session.sid, read=1, to=1)
    store.end(session.sid, "signed_out")
    store.end_all("alice", "signed_out")
    store.create(Session(sid=new_sid(), subject="bob", started_at=0, expires_at=1))
    store.advance(session.sid, read=1, to=2)
    connection.set_trace_callback(None)
    assert ran == [
        "UPDATE NORMAL", "UPDATE NORMAL", "UPDATE FULL", "UPDATE FULL", "INSERT FULL", "UPDATE NORMAL",
    ]  # fmt: skip


def test_an_end_outlives_the_process_that_was_killed_right_after_it(path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from keyturn.server import Issuer\n"
        "issuer = Issuer(secret='s' * 32, store='sqlite:///' + sys.argv[1])\n"
        "pair = issuer.sign_in('alice')\n"
        "issuer.sign_out(pair.sid)\n"
        "print(pair.sid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
    )
    store = SQLiteStore(path)
    row = store.get(killed.stdout.strip())
    assert row is not None
    assert row.ended_why == "signed_out"
    store.close()


def test_a_file_that_stays_locked_is_a_store_that_is_down_not_another_error(path: Path) -> None:
    store = SQLiteStore(path, timeout=0.05)
    session = started(store)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        store.advance(session.sid, read=0, to=1)
    with pytest.raises(StoreUnavailable):
        store.end(session.sid, "signed_out")
    assert store.get(session.sid) == session
    holder.execute("ROLLBACK")
    holder.close()
    assert store.advance(session.sid, read=0, to=1)
    store.close()


def test_writers_that_queue_behind_a_locked_file_do_not_wait_one_after_the_other(path: Path) -> None:
    """Each waits as long as it may, and not as long as all before it together."""
    store = SQLiteStore(path, timeout=0.2)
    session = started(store)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    results = at_once([lambda: store.advance(session.sid, read=0, to=1)] * 30)
    assert all(isinstance(result, StoreUnavailable) for result in results)
    assert time.monotonic() - began < 30 * 0.2
    holder.execute("ROLLBACK")
    holder.close()
    store.close()


def test_a_closed_store_is_down(store: SQLiteStore) -> None:
    store.close()
    with pytest.raises(StoreUnavailable):
        store.get(new_sid())


def test_a_file_that_is_no_database_is_refused_when_it_is_opened(path: Path) -> None:
    path.write_bytes(b"these are not the sessions you are looking for" * 50)
    with pytest.raises(ConfigurationError):
        SQLiteStore(path)


def test_a_file_that_cannot_be_made_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        SQLiteStore(tmp_path / "no such folder" / "sessions.db")


def test_a_file_of_a_newer_keyturn_is_refused_and_left_as_it_is(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(ConfigurationError, match="newer"):
        SQLiteStore(path)


def test_20_threads_that_open_a_new_file_at_once_all_get_it(path: Path) -> None:
    stores = at_once([lambda: SQLiteStore(path, timeout=30)] * 20)
    for store in stores:
        assert isinstance(store, SQLiteStore)
        store.close()


def test_threads_that_come_and_go_leave_no_connections_behind(store: SQLiteStore) -> None:
    session = started(store)
    for _ in range(5):
        at_once([lambda: store.get(session.sid)] * 8)
    assert len(store._process.all) <= 8
    assert len(store._process.idle) == len(store._process.all)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_opens_its_own_connections_and_leaves_its_parents_alone(store: SQLiteStore) -> None:
    session = started(store)
    inherited = set(store._process.all)
    child = os.fork()
    if child == 0:
        try:
            won = store.advance(session.sid, read=0, to=1)
            own = not store._process.all & inherited
            store.close()
            usable = next(iter(inherited)).execute("SELECT 1").fetchone() == (1,)  # not closed with the store
            os._exit(0 if won and own and usable else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert not store.advance(session.sid, read=0, to=1)
    assert store.advance(session.sid, read=1, to=2)
    assert store._process.all == inherited


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_while_a_thread_writes_does_not_hang(store: SQLiteStore) -> None:
    session = started(store)
    with store._process.writing:
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if store.advance(session.sid, read=0, to=1) else 1)
            finally:
                os._exit(2)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0

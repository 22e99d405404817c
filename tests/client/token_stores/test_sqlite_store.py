"""SQLite as a token store: the contract, and what a file of SQLite's adds to it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from keyturn.client.record import Record, Version
from keyturn.client.token_stores import new_store, sqlite_file
from keyturn.client.token_stores.sqlite import SQLiteStore
from keyturn.errors import ConfigurationError, KeyturnError, RefreshMisconfigured, TokenStoreUnavailable
from tests.client.token_stores.contract import NAME, TokenStoreContract, needs_fork
from tests.client.token_stores.kit import SECRET, a_record, next_of, on_loop
from tests.client.token_stores.other_process import OtherProcess
from tests.waiting import start, until

ROOT = Path(__file__).parents[3]
VERSION = ("epoch-1", 0)
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")


class TestSQLiteStore(TokenStoreContract):
    """The contract, on a file of each test's own."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        """Return the URL of a file that does not exist yet."""
        return f"sqlite:///{tmp_path}/tokens.db"

    def damage(self, url: str, name: str, text: str) -> None:
        """Put `text` where the record of a name is."""
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute("UPDATE tokens SET record = ? WHERE name = ?", (text, name))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a test's file is to be."""
    return tmp_path / "tokens.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    """Return a store on it that does not wait long."""
    store = SQLiteStore(path, timeout=0.1)
    yield store
    on_loop(store.aclose)


def write(store: SQLiteStore, record: Record, over: Version | None = None) -> bool:
    """Write a record of its own name."""
    return on_loop(lambda: store.write(record.name, record, over=over))


def read(store: SQLiteStore, name: str = NAME) -> Record | None:
    """Return a record."""
    return on_loop(lambda: store.read(name)).record


def refusal(work: Callable[[], object]) -> KeyturnError:
    """Return what a call raises, which shows no secret and no path."""
    with pytest.raises(KeyturnError) as caught:
        work()
    assert SECRET not in str(caught.value)
    assert "tokens.db" not in str(caught.value)
    return caught.value


def in_child(work: Callable[[], None]) -> int:
    """Fork, do something in the child, and return its exit status: 0 if it went well."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with every warning an error."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


# URLs


def test_three_slashes_are_a_relative_path_and_four_an_absolute_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stores = [new_store(url) for url in ("sqlite:///a%20file.db", f"sqlite:///{tmp_path}/a file.db")]
    monkeypatch.chdir(ROOT)  # a relative path is that of the moment when it was given

    async def main() -> None:
        assert await stores[0].write(NAME, a_record(NAME), over=None)
        assert (await stores[1].read(NAME)).record == a_record(NAME)
        for store in stores:
            await store.aclose()

    on_loop(main)
    assert (tmp_path / "a file.db").is_file()


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:////",
        "sqlite://tokens.db",
        "sqlite://:s3cret@host/tokens.db",
        "sqlite:///:memory:",
        "sqlite:///tokens.db?mode=memory",
        "sqlite:///tokens.db?",
        "sqlite:///tokens.db#x",
        "sqlite:///a/directory/",
        "sqlite:///a%00b",
        "sqlite://[x",
    ],
)
def test_a_url_that_names_no_file_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"sqlite:///tokens\.db") as caught:
        new_store(url)
    assert "s3cret" not in str(caught.value)


# The file


@posix
def test_everything_that_it_makes_is_its_users_alone(store: SQLiteStore, path: Path) -> None:
    before = os.umask(0)
    try:
        write(store, a_record(NAME))
        on_loop(lambda: store.try_lease(NAME, 600.0))
        modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()}
    finally:
        os.umask(before)

    assert modes == {
        "tokens.db": 0o600,
        "tokens.db-wal": 0o600,
        "tokens.db-shm": 0o600,
        "tokens.db.leases": 0o700,
    }


@posix
def test_a_file_that_others_may_read_is_made_private_and_one_that_they_may_write_is_refused(
    path: Path,
) -> None:
    path.touch()
    path.chmod(0o644)
    store = SQLiteStore(path)
    assert write(store, a_record(NAME))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    on_loop(store.aclose)
    path.chmod(0o622)

    assert isinstance(refusal(lambda: read(store)), RefreshMisconfigured)
    path.chmod(0o600)
    assert read(store) == a_record(NAME)
    on_loop(store.aclose)


def test_a_commit_is_on_the_disk_when_it_returns(store: SQLiteStore) -> None:
    write(store, a_record(NAME))
    read(store)
    for lane in (store._reads, store._writes):
        assert lane._connection is not None
        assert lane._connection.execute("PRAGMA journal_mode").fetchone() == (b"wal",)
        assert lane._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_processes_that_lay_out_a_new_file_at_once_all_get_it(path: Path) -> None:
    with ExitStack() as stack:
        processes = [stack.enter_context(OtherProcess(f"sqlite:///{path}")) for _ in range(4)]
        assert [one.ask("hello") for one in processes] == ["here"] * 4
        for i, one in enumerate(processes):
            one.tell({"do": "write", "name": f"n{i}", "record": a_record(f"n{i}").to_json(), "over": None})
        assert [one.hear()["result"] for one in processes] == [True] * 4
    store = SQLiteStore(path)
    assert on_loop(store.names) == ["n0", "n1", "n2", "n3"]
    on_loop(store.aclose)


def test_stores_of_one_process_that_lay_out_a_new_file_at_once_all_get_it(path: Path) -> None:
    stores = [SQLiteStore(path, timeout=30) for _ in range(20)]

    async def main() -> None:
        writes = (store.write(f"n{i}", a_record(f"n{i}"), over=None) for i, store in enumerate(stores))
        assert await asyncio.gather(*writes) == [True] * 20
        assert [len(await store.names()) for store in stores] == [20] * 20
        for store in stores:
            await store.aclose()

    on_loop(main)


def test_who_finds_an_empty_file_that_is_laid_out_at_that_moment_takes_it_as_it_is(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out = sqlite_file._lay_out

    def too_late(connection: sqlite_file.Connection) -> None:
        monkeypatch.undo()
        other = SQLiteStore(path)
        assert write(other, a_record("first"))
        on_loop(other.aclose)
        lay_out(connection)

    monkeypatch.setattr(sqlite_file, "_lay_out", too_late)

    assert write(store, a_record("second"))
    assert on_loop(store.names) == ["first", "second"]


@pytest.mark.parametrize(
    "content", [b"these are not the tokens you are looking for" * 50, b"SQLite format 3\0" + b"\xff" * 8000]
)
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    store = SQLiteStore(path)
    for work in (lambda: read(store), lambda: write(store, a_record(NAME))):
        assert isinstance(refusal(work), RefreshMisconfigured)

    assert path.read_bytes() == content
    on_loop(store.aclose)


@pytest.mark.parametrize(
    ("made_by", "said"),
    [
        ("CREATE TABLE tokens (name, record)", "another program's"),
        ("PRAGMA user_version = 1", "another program's"),
        ("PRAGMA application_id = 7", "another program's"),
        ("PRAGMA application_id = 1802788724; PRAGMA user_version = 2", "a newer keyturn"),
    ],
)
def test_a_database_of_another_program_or_of_a_newer_keyturn_is_refused_and_left_as_it_is(
    path: Path, made_by: str, said: str
) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(made_by)
    path.chmod(0o600)
    content = path.read_bytes()
    store = SQLiteStore(path)
    for work in (lambda: read(store), lambda: write(store, a_record(NAME))):
        error = refusal(work)
        assert isinstance(error, RefreshMisconfigured)
        assert said in str(error)

    assert path.read_bytes() == content
    on_loop(store.aclose)


def test_a_page_that_is_damaged_is_refused(path: Path) -> None:
    store = SQLiteStore(path)
    for i in range(30):
        write(store, a_record(f"n{i}", sealed="x" * 2000))
    on_loop(store.aclose)  # all of it is in the main file now
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))

    assert isinstance(refusal(lambda: read(store, "n7")), RefreshMisconfigured)
    on_loop(store.aclose)


def test_a_directory_that_is_missing_or_in_the_files_place_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "tokens.db", tmp_path):
        error = refusal(lambda: read(SQLiteStore(path)))  # noqa: B023 - called at once
        assert isinstance(error, RefreshMisconfigured)


def test_a_file_that_was_replaced_or_deleted_is_opened_anew(store: SQLiteStore, path: Path) -> None:
    write(store, a_record(NAME))
    assert read(store) is not None
    path.unlink()
    assert read(store) is None
    assert write(store, a_record("another"))
    fresh = SQLiteStore(path)

    assert on_loop(fresh.names) == ["another"]
    on_loop(fresh.aclose)


# What may pass, and what will not


def test_a_file_that_another_process_keeps_locked_stops_writers_for_a_moment_and_no_reader(
    store: SQLiteStore, path: Path
) -> None:
    write(store, a_record(NAME))
    program = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('BEGIN IMMEDIATE')\n"
        "print('locked', flush=True)\n"
        "sys.stdin.readline()\n"
        "connection.execute('ROLLBACK')\n"
        "connection.close()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        waited = refusal(lambda: write(store, a_record(NAME, generation=1), VERSION))
        assert isinstance(waited, TokenStoreUnavailable)
        assert "SQLITE_BUSY" in str(waited)
        assert read(store) == a_record(NAME)
        patient = SQLiteStore(path, timeout=30)
        writing = start(lambda: write(patient, a_record(NAME, generation=1), VERSION))
        until(lambda: patient._writes._connection is not None)
        assert read(patient) == a_record(NAME)
        assert not writing.done()
        holder.communicate("go on\n")

    assert writing.result(30) is True
    assert read(store) == a_record(NAME, generation=1)
    on_loop(patient.aclose)


def test_a_full_database_may_have_room_again_and_nothing_is_lost(store: SQLiteStore) -> None:
    write(store, a_record(NAME))
    connection = store._writes._connection
    assert connection is not None
    connection.execute("PRAGMA max_page_count = 3")
    big = a_record(NAME, generation=1, sealed="x" * 100_000)
    full = refusal(lambda: write(store, big, VERSION))

    assert isinstance(full, TokenStoreUnavailable)
    assert "SQLITE_FULL" in str(full)
    assert read(store) == a_record(NAME)
    assert write(store, big, VERSION)  # by a new connection, without that limit
    assert read(store) == big


@posix
def test_a_disk_that_takes_no_more_is_a_store_that_is_down_and_the_record_stays(path: Path) -> None:
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from keyturn.client.token_stores.sqlite import SQLiteStore\n"
        "from keyturn.errors import TokenStoreUnavailable\n"
        "from tests.client.token_stores.kit import a_record, on_loop\n"
        "store = SQLiteStore(Path(sys.argv[1]))\n"
        "write = lambda record, over: on_loop(lambda: store.write('a', record, over=over))\n"
        "assert write(a_record('a'), None)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))\n"
        "big = a_record('a', generation=1, sealed='x' * 100_000)\n"
        "for _ in range(3):\n"
        "    try:\n"
        "        write(big, ('epoch-1', 0))\n"
        "    except TokenStoreUnavailable as error:\n"
        "        assert 'x' * 10 not in str(error)\n"
        "    else:\n"
        "        raise AssertionError\n"
        "    assert on_loop(lambda: store.read('a')).record == a_record('a')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "assert write(big, ('epoch-1', 0))\n"
    )
    done = run(program, path)

    assert (done.returncode, done.stderr) == (0, "")
    store = SQLiteStore(path)
    assert read(store, "a") == a_record("a", generation=1, sealed="x" * 100_000)
    on_loop(store.aclose)


@posix
def test_descriptors_that_have_run_out_may_come_back(path: Path) -> None:
    program = (
        "import os, resource, sys\n"
        "from pathlib import Path\n"
        "from keyturn.client.token_stores.sqlite import SQLiteStore\n"
        "from keyturn.errors import TokenStoreUnavailable\n"
        "from tests.client.token_stores.kit import a_record, on_loop\n"
        "store = SQLiteStore(Path(sys.argv[1]))\n"
        "write = lambda: on_loop(lambda: store.write('a', a_record('a'), over=None))\n"
        "on_loop(store.names)\n"
        "on_loop(store.aclose)\n"
        "_, most = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "lowest = os.dup(0)\n"
        "os.close(lowest)\n"
        "for spare in range(3):\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + spare, most))\n"
        "    try:\n"
        "        write()\n"
        "    except TokenStoreUnavailable:\n"
        "        pass\n"
        "    else:\n"
        "        raise AssertionError\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, most))\n"
        "assert write()\n"
    )
    done = run(program, path)

    assert (done.returncode, done.stderr) == (0, "")


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_this_user_may_not_write_is_refused_and_never_awaited() -> None:
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        path = directory / "tokens.db"
        store = SQLiteStore(path)
        write(store, a_record(NAME))
        on_loop(store.aclose)

        def refused() -> None:
            if os.geteuid() == 0:
                os.setuid(65534)
            other = SQLiteStore(path)
            assert isinstance(refusal(lambda: write(other, a_record(NAME), VERSION)), RefreshMisconfigured)

        directory.chmod(0o755)
        for mode in (0o400, 0o444):
            path.chmod(mode)
            assert in_child(refused) == 0
        path.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
        directory.chmod(0o555)  # the log beside the file cannot be made
        assert in_child(refused) == 0
        directory.chmod(0o755)


# Together


def queued(store: SQLiteStore, work: Callable[[], list[asyncio.Future[bool]]]) -> list[object]:
    """Have writes wait for the lane together; return how each of them went."""

    async def main() -> list[object]:
        await store.names()
        store._writes._using.acquire()  # as a transaction that is under way
        first = asyncio.ensure_future(store.remove("nobody"))
        await asyncio.sleep(0)
        while store._writes._waiting:  # noqa: ASYNC110 - until its thread is on its way
            await asyncio.sleep(0)
        waiting = work()
        await asyncio.sleep(0)
        assert len(store._writes._waiting) == len(waiting)
        store._writes._using.release()
        await first
        return await asyncio.gather(*waiting, return_exceptions=True)

    return on_loop(main)


def commits(store: SQLiteStore) -> list[str]:
    """Return a list that tells from now on of each commit of a write."""
    connection = store._writes._connection
    assert connection is not None
    seen: list[str] = []
    connection.set_trace_callback(lambda said: seen.append(said) if said == "COMMIT" else None)
    return seen


def test_what_waits_together_is_flushed_together_and_each_write_has_its_own_outcome(
    store: SQLiteStore,
) -> None:
    write(store, a_record("taken"))
    seen = commits(store)

    def work() -> list[asyncio.Future[bool]]:
        new = [store.write(f"n{i}", a_record(f"n{i}"), over=None) for i in range(100)]
        more = [
            store.write("taken", a_record("taken", generation=7), over=None),
            store.write("taken", a_record("taken", generation=1), over=VERSION),
            store.write("taken", a_record("taken", generation=1, sealed="late"), over=VERSION),
            store.remove("n5"),
            store.remove("n5"),
        ]
        return [asyncio.ensure_future(one) for one in (*new, *more)]

    results = queued(store, work)

    assert results == [True] * 100 + [False, True, False, True, False]
    assert len(seen) == 2  # the first, and all the others
    assert read(store, "taken") == a_record("taken", generation=1)


def test_a_damaged_record_spoils_no_write_but_its_own(store: SQLiteStore, path: Path) -> None:
    for name in ("damaged", "moved", "torn"):
        write(store, a_record(name))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE tokens SET record = '{' WHERE name = 'damaged'")
        connection.execute("UPDATE tokens SET record = ? WHERE name = 'moved'", (a_record("x").to_json(),))
        connection.execute("UPDATE tokens SET record = CAST(x'ff00ff' AS TEXT) WHERE name = 'torn'")

    def work() -> list[asyncio.Future[bool]]:
        names = ("damaged", "a", "moved", "b", "torn", "c")
        return [asyncio.ensure_future(store.write(name, a_record(name), over=None)) for name in names]

    kinds = [type(one) for one in queued(store, work)]

    assert kinds == [RefreshMisconfigured, bool] * 3
    assert on_loop(store.names) == ["a", "b", "c", "damaged", "moved", "torn"]
    for name in ("damaged", "moved", "torn"):
        assert isinstance(refusal(lambda: read(store, name)), RefreshMisconfigured)  # noqa: B023
        assert on_loop(lambda: store.remove(name)) is True  # noqa: B023 - called at once


def test_a_transaction_that_fails_fails_for_all_in_it_and_writes_nothing(store: SQLiteStore) -> None:
    write(store, a_record("taken"))
    connection = store._writes._connection
    assert connection is not None
    connection.execute("PRAGMA max_page_count = 3")

    def work() -> list[asyncio.Future[bool]]:
        small = [store.write(f"n{i}", a_record(f"n{i}"), over=None) for i in range(3)]
        big = store.write("taken", a_record("taken", sealed="x" * 100_000), over=VERSION)
        return [asyncio.ensure_future(one) for one in (*small, big)]

    results = queued(store, work)

    assert [type(one) for one in results] == [TokenStoreUnavailable] * 4
    assert len({id(one) for one in results}) == 4
    assert on_loop(store.names) == ["taken"]
    assert read(store, "taken") == a_record("taken")


def test_a_write_whose_caller_was_cancelled_while_it_waited_is_not_made(store: SQLiteStore) -> None:
    def work() -> list[asyncio.Future[bool]]:
        waiting = (store.write(name, a_record(name), over=None) for name in "ab")
        both: list[asyncio.Future[bool]] = [asyncio.ensure_future(one) for one in waiting]
        asyncio.get_running_loop().call_soon(both[0].cancel)
        return both

    results = queued(store, work)

    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1] is True
    assert on_loop(store.names) == ["b"]


def test_a_disk_that_hangs_keeps_nobody_waiting_for_ever(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyturn.client.token_stores.sqlite_lane._LONGEST", 0.1)
    assert read(store) is None
    with store._reads._using:  # as SQLite, which waits for the disk
        assert isinstance(refusal(lambda: read(store)), TokenStoreUnavailable)

    monkeypatch.undo()
    assert read(store) is None


# The process ends, or forks


def test_a_program_that_never_closes_it_ends_without_a_word(path: Path) -> None:
    program = (
        "import sys\n"
        "from keyturn.client.token_stores import new_store\n"
        "from tests.client.token_stores.kit import a_record, on_loop\n"
        "store = new_store('sqlite:///' + sys.argv[1])\n"
        "on_loop(lambda: store.write('a', a_record('a'), over=None))\n"
        "assert on_loop(lambda: store.read('a')).record\n"
        "assert on_loop(lambda: store.try_lease('a', 600.0))\n"
    )
    done = run(program, path)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_who_is_killed_in_the_middle_of_a_write_leaves_the_old_record_or_the_new_one_whole(
    path: Path,
) -> None:
    store = SQLiteStore(path, timeout=30)
    for count in range(1, 6):
        with OtherProcess(f"sqlite:///{path}") as writer:
            assert writer.ask("hello") == "here"
            writer.tell({"do": "race", "name": NAME, "until": 10**6})
            until(lambda: (read(store) or a_record(NAME, generation=-1)).generation >= 5 * count)  # noqa: B023
            writer.kill()
            record = read(store)
            assert record is not None
            assert record.sealed == f"{writer.pid}:{record.generation}"
            assert record == a_record(NAME, generation=record.generation, sealed=record.sealed)
            assert write(store, next_of(record), record.version)
            assert on_loop(lambda: store.remove(NAME))
    on_loop(store.aclose)


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_a_forked_child_writes_outlasts_its_parents_closing(store: SQLiteStore, path: Path) -> None:
    """With a connection open across the fork, SQLite would delete the log that the child writes to."""
    write(store, a_record(NAME))
    read(store)
    go_on, closed = os.pipe()
    here, there = os.pipe()

    def work() -> None:
        own = SQLiteStore(path)
        assert write(own, a_record(NAME, generation=1), VERSION)
        os.write(there, b".")
        os.read(go_on, 1)
        assert write(own, a_record(NAME, generation=2), ("epoch-1", 1))

    forked = start(lambda: in_child(work))
    os.read(here, 1)
    on_loop(store.aclose)
    os.write(closed, b".")

    assert forked.result(50) == 0
    assert read(store) == a_record(NAME, generation=2)
    for descriptor in (go_on, closed, here, there):
        os.close(descriptor)


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_write_waits_for_its_end_and_harms_neither(
    store: SQLiteStore, path: Path
) -> None:
    write(store, a_record(NAME))
    entered, forking = os.pipe()
    begun = []

    class Slow:
        """A lease that is asked for in the middle of the transaction."""

        @property
        def held(self) -> bool:
            """Wait until the other thread is about to fork."""
            begun.append(True)
            os.read(entered, 1)
            return True

        async def release(self) -> None:
            """Do nothing."""

    def child() -> None:
        own = SQLiteStore(path)
        assert read(own) == a_record(NAME, generation=1)
        assert write(own, a_record(NAME, generation=2), ("epoch-1", 1))

    record = a_record(NAME, generation=1)
    writing = start(lambda: on_loop(lambda: store.write(NAME, record, over=VERSION, under=Slow())))
    until(lambda: bool(begun))
    forked = start(lambda: in_child(child))
    os.write(forking, b".")

    assert writing.result(50) is True
    assert forked.result(50) == 0
    assert read(store) == a_record(NAME, generation=2)
    assert write(store, a_record(NAME, generation=3), ("epoch-1", 2))
    os.close(entered)
    os.close(forking)


@needs_fork
def test_a_child_that_was_forked_past_python_refuses_to_write_what_could_be_lost(path: Path) -> None:
    program = (
        "import _imp, ctypes, os, sys\n"
        "from pathlib import Path\n"
        "from keyturn.client.token_stores.sqlite import SQLiteStore\n"
        "from keyturn.errors import RefreshMisconfigured\n"
        "from tests.client.token_stores.kit import a_record, on_loop\n"
        "store = SQLiteStore(Path(sys.argv[1]))\n"
        "on_loop(lambda: store.write('a', a_record('a'), over=None))\n"
        "_imp.acquire_lock()\n"  # which PyOS_AfterFork_Child gives up
        "child = ctypes.PyDLL(None).fork()\n"
        "if child == 0:\n"
        "    ctypes.pythonapi.PyOS_AfterFork_Child()\n"
        "    for one in (store, SQLiteStore(Path(sys.argv[1]))):\n"
        "        try:\n"
        "            on_loop(lambda: one.read('a'))\n"
        "        except RefreshMisconfigured as error:\n"
        "            assert 'was forked' in str(error)\n"
        "        else:\n"
        "            os._exit(1)\n"
        "    os._exit(0)\n"
        "_imp.release_lock()\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
        "assert on_loop(lambda: store.write('a', a_record('a', generation=1), over=('epoch-1', 0)))\n"
    )
    done = run(program, path)

    assert done.returncode == 0, done.stderr

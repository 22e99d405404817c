"""Tokens in a directory: the contract, and what only a file store must care for."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import pytest

from keyturn.client.token_stores import file_lease, new_store, private_files
from keyturn.client.token_stores.file import FileStore
from keyturn.client.token_stores.file_lease import FileLease, LockedFile
from keyturn.client.token_stores.private_files import file_name
from keyturn.errors import ConfigurationError, RefreshMisconfigured, TokenStoreUnavailable
from tests.client.token_stores.contract import HOSTILE, NAME, TokenStoreContract, needs_fork, needs_proc
from tests.client.token_stores.kit import DESCRIPTORS, SECRET, a_record, leased, next_of, on_loop
from tests.client.token_stores.other_process import OtherProcess
from tests.waiting import WITHIN, start

NOBODY = 65534
posix = pytest.mark.skipif(sys.platform == "win32", reason="modes, owners and links are POSIX's")


class TestFileStore(TokenStoreContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        """Return the URL of a directory that is not there yet."""
        return (tmp_path / "new" / "a directory").as_uri()

    def damage(self, url: str, name: str, text: str) -> None:
        """Put `text` where the record of a name is."""
        directory = FileStore.from_url(url)._directory
        (directory / f"{file_name(name)}.json").write_text(text, "utf-8")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory that is not there yet."""
    return tmp_path / "tokens"


@pytest.fixture
def store(directory: Path) -> Iterator[FileStore]:
    """Return a store in it."""
    store = FileStore(directory)
    yield store
    on_loop(store.aclose)


def written(store: FileStore, name: str = NAME) -> Path:
    """Write a first record; return its file."""
    assert on_loop(lambda: store.write(name, a_record(name), over=None)) is True
    return store._directory / f"{file_name(name)}.json"


def rewrite(store: FileStore) -> bool:
    """Write the record after the first."""
    return on_loop(lambda: store.write(NAME, next_of(a_record(NAME)), over=a_record(NAME).version))


def lease(store: FileStore) -> FileLease | None:
    """Try for the lease."""
    return on_loop(lambda: store.try_lease(NAME, 600.0))


def mode(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.lstat().st_mode)


# URLs


@posix
@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///var/lib/app/tokens", "/var/lib/app/tokens"),
        ("file:///var/lib/app/tokens/", "/var/lib/app/tokens"),
        ("file:///a%20b/%E2%98%82/%3F%23%25", "/a b/☂/?#%"),
        ("file:///a b/☂", "/a b/☂"),
    ],
)
def test_a_url_names_a_directory(url: str, path: str) -> None:
    assert FileStore.from_url(url)._directory == Path(path)


@pytest.mark.parametrize(
    "url",
    [
        *("file://", "file:///", "file://tokens", "file://tokens/x", "file://localhost/tokens", "file://./x"),
        *("file:///tokens?mode=0600", "file:///tokens#x", "file:///a%00b", "file://[/x", "file://~/x"),
        *("file:///~/x", "file://~alice/x", "file://user:hunter2@host/x"),
    ],
)
def test_a_url_that_names_none_is_refused_with_the_form_that_does(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"file:///var/lib/app/tokens|as_uri") as caught:
        new_store(url)
    assert "hunter2" not in str(caught.value)


def test_the_files_of_names_are_apart_even_where_case_does_not_count() -> None:
    files = [file_name(name) for name in HOSTILE]

    assert len({file.casefold() for file in files}) == len(HOSTILE)
    assert all(file.isascii() and file.replace("-", "").isalnum() and len(file) < 80 for file in files)
    assert file_name(NAME).startswith("dashboard-alice-")


# Permissions


@posix
@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o377])
def test_what_is_written_is_this_users_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    store = FileStore(tmp_path / "a" / "b")
    before = os.umask(umask)
    try:
        path = written(store)
        assert rewrite(store)
        assert lease(store)
    finally:
        os.umask(before)
    on_loop(store.aclose)

    assert [mode(one) for one in (path.parent, path.parent.parent)] == [0o700] * 2
    assert {one.name.partition(".")[2]: mode(one) for one in path.parent.iterdir()} == {
        "json": 0o600,
        "lock": 0o600,
        "lease": 0o600,
    }


@posix
@pytest.mark.parametrize("bits", [0o720, 0o702, 0o777, 0o1777])
def test_a_directory_that_others_may_write_to_is_refused(
    store: FileStore, directory: Path, bits: int
) -> None:
    written(store)
    directory.chmod(bits)

    for use in (lambda: store.read(NAME), lambda: store.try_lease(NAME, 1.0), lambda: store.remove(NAME)):
        with pytest.raises(RefreshMisconfigured, match="other users may write"):
            on_loop(use)
    with pytest.raises(RefreshMisconfigured, match="other users may write"):
        rewrite(store)
    directory.chmod(0o755)
    assert rewrite(store)


@posix
@pytest.mark.parametrize("ending", ["json", "lease", "lock"])
def test_a_file_that_others_may_write_to_is_refused(store: FileStore, ending: str) -> None:
    path = written(store).with_suffix(f".{ending}")
    path.touch()
    path.chmod(0o622)

    with pytest.raises(RefreshMisconfigured, match="other users may write"):
        lease(store) if ending == "lease" else rewrite(store)


@posix
def test_a_record_that_others_can_read_is_made_private_and_said_to_have_been_open(
    store: FileStore, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(store)
    path.chmod(0o644)

    with caplog.at_level(logging.WARNING, "keyturn.client"):
        assert on_loop(lambda: store.read(NAME)).record == a_record(NAME)
        assert on_loop(lambda: store.read(NAME)).record == a_record(NAME)
    assert mode(path) == 0o600
    assert len(caplog.records) == 1
    assert SECRET not in caplog.text


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """Return a directory of the user nobody's, in one that he can enter."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can hand a directory to another user")
    above = Path(tempfile.mkdtemp())
    above.chmod(0o755)
    directory = above / "tokens"
    directory.mkdir(mode=0o700)
    os.chown(directory, NOBODY, NOBODY)
    yield directory
    shutil.rmtree(above)


def test_what_root_writes_belongs_to_whom_the_directory_belongs_to(nobodys: Path) -> None:
    store = FileStore(nobodys)
    written(store)
    assert lease(store)
    on_loop(store.aclose)

    assert {one.stat().st_uid for one in nobodys.iterdir()} == {NOBODY}
    with OtherProcess(nobodys.as_uri()) as process:
        process.ask("become", user=NOBODY)
        assert process.ask("lease", name=NAME, seconds=600.0) is True
        record = next_of(a_record(NAME)).to_json()
        assert process.ask("write", name=NAME, record=record, over=["epoch-1", 0]) is True


def test_another_users_directory_is_refused(nobodys: Path) -> None:
    nobodys.chmod(0o755)
    with OtherProcess(nobodys.as_uri()) as process:
        process.ask("become", user=NOBODY - 1)
        assert process.ask("read", name=NAME) == "RefreshMisconfigured"


@posix
def test_a_directory_that_may_not_be_written_to_is_found_out_before_anything_is_harmed(
    directory: Path, request: pytest.FixtureRequest
) -> None:
    if os.geteuid() == 0:  # whom no permission stops
        nobodys: Path = request.getfixturevalue("nobodys")
    else:
        nobodys = directory
    path = written(FileStore(nobodys))
    record = next_of(a_record(NAME)).to_json()
    with OtherProcess(nobodys.as_uri()) as process:
        if os.geteuid() == 0:
            process.ask("become", user=NOBODY)
        assert process.ask("lease", name=NAME, seconds=600.0) is True
        nobodys.chmod(0o500)
        for under in (False, True):
            answer = process.ask("write", name=NAME, record=record, over=["epoch-1", 0], under=under)
            assert answer == "RefreshMisconfigured"
        assert process.ask("lease", name="another", seconds=600.0) == "RefreshMisconfigured"
        assert process.ask("remove", name=NAME) == "RefreshMisconfigured"
        assert process.ask("read", name=NAME) == a_record(NAME).to_json()
        nobodys.chmod(0o700)
        assert process.ask("write", name=NAME, record=record, over=["epoch-1", 0]) is True
    assert sorted(one.suffix for one in path.parent.iterdir()) == [".json", ".lease", ".lock"]


@posix
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_flushes_no_directory_is_good_enough(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    flush = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    written(store)
    assert rewrite(store)


@posix
def test_a_disk_that_fails_may_be_mended(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(store)

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(TokenStoreUnavailable):
            rewrite(store)
    assert on_loop(lambda: store.read(NAME)).record == a_record(NAME)
    assert not path.with_suffix(".json.new").exists()
    assert rewrite(store)


# What lies in the way


@posix
@pytest.mark.parametrize("ending", ["json", "json.new", "lease", "lock"])
def test_no_symbolic_link_is_followed(store: FileStore, tmp_path: Path, ending: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text(a_record(NAME).to_json())
    path = written(store).with_suffix(f".{ending}")
    path.unlink(missing_ok=True)
    path.symlink_to(precious)

    if ending == "json.new":
        assert rewrite(store)
    else:
        with pytest.raises(RefreshMisconfigured, match="symbolic link"):
            lease(store) if ending == "lease" else rewrite(store)
    assert precious.read_text() == a_record(NAME).to_json()


@posix
@pytest.mark.parametrize("ending", ["json", "lease", "lock"])
def test_what_is_no_file_holds_nobody_up(store: FileStore, ending: str) -> None:
    path = written(store).with_suffix(f".{ending}")
    for make in (os.mkfifo, os.mkdir):
        path.unlink(missing_ok=True)
        make(path)
        with pytest.raises(RefreshMisconfigured):
            lease(store) if ending == "lease" else rewrite(store)


def test_a_directory_that_is_a_file_is_refused(store: FileStore, directory: Path) -> None:
    directory.write_text("")

    for use in (lambda: store.read(NAME), lambda: store.try_lease(NAME, 1.0)):
        with pytest.raises(RefreshMisconfigured, match="directory"):
            on_loop(use)
    with pytest.raises(RefreshMisconfigured):
        on_loop(lambda: FileStore(directory / "below").try_lease(NAME, 1.0))


def test_what_a_dead_writer_left_half_written_is_gone_with_the_next_write(store: FileStore) -> None:
    path = written(store)
    left = path.with_suffix(".json.new")
    left.write_text('{"format":1,"sealed":"half')

    assert on_loop(store.names) == [NAME]
    assert rewrite(store)
    assert not left.exists()
    left.write_text("again")
    assert on_loop(lambda: store.remove(NAME))
    assert not left.exists()


def test_a_record_in_another_names_file_is_not_taken_for_his(store: FileStore) -> None:
    path, other = written(store), written(store, "another")
    other.replace(path)

    with pytest.raises(RefreshMisconfigured, match="moved"):
        on_loop(lambda: store.read(NAME))
    with pytest.raises(RefreshMisconfigured, match="moved"):
        on_loop(store.names)


def test_other_files_in_the_directory_are_nobodys_record(store: FileStore, directory: Path) -> None:
    written(store)
    (directory / "package.json").write_text("{}")

    assert on_loop(store.names) == [NAME]


# Full disks


def test_a_file_that_cannot_grow_is_found_out_before_anything_is_harmed(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    url = tmp_path.as_uri()
    tmp_path.chmod(0o700)
    long = dataclasses.replace(next_of(a_record(NAME)), sealed="x" * 8_000).to_json()
    with OtherProcess(url) as process:
        assert process.ask("write", name=NAME, record=a_record(NAME).to_json(), over=None) is True
        process.ask("limit_files", size=4_000)
        answer = process.ask("write", name=NAME, record=long, over=["epoch-1", 0])
        assert answer == "TokenStoreUnavailable"
        assert process.ask("read", name=NAME) == a_record(NAME).to_json()
        small = next_of(a_record(NAME)).to_json()
        assert process.ask("write", name=NAME, record=small, over=["epoch-1", 0]) is True
    assert not list(tmp_path.glob("*.new"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 64 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_full_is_found_out_before_anything_is_harmed(small_disk: Path) -> None:
    store = FileStore(small_disk)
    written(store)
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 1024)

    for name in (NAME, "another"):
        over = ("epoch-1", 0) if name == NAME else None
        record = dataclasses.replace(a_record(name, generation=1), sealed="x" * 8_000)
        with pytest.raises(TokenStoreUnavailable, match="No space"):
            on_loop(lambda: store.write(name, record, over=over))  # noqa: B023 - called at once
    assert on_loop(lambda: store.read(NAME)).record == a_record(NAME)
    assert on_loop(store.names) == [NAME]
    assert not list(small_disk.glob("*.new"))
    filler.unlink()
    assert rewrite(store)


def test_a_disk_that_is_read_only_is_found_out_before_anything_is_harmed(small_disk: Path) -> None:
    store = FileStore(small_disk)
    written(store)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    with pytest.raises(RefreshMisconfigured, match="read-only"):
        rewrite(store)
    with pytest.raises(RefreshMisconfigured, match="read-only"):
        lease(store)
    assert on_loop(lambda: store.read(NAME)).record == a_record(NAME)


def test_a_disk_that_hangs_holds_up_nobody(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    written(store)
    goes_on, has_gone_on = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> bool:
        goes_on.wait(WITHIN)
        has_gone_on.set()
        return True

    with monkeypatch.context() as patch:
        patch.setattr(private_files, "_LONGEST", 0.05)
        patch.setattr(os, "fsync", hang)
        patch.setattr(filelock, "lock_descriptor", hang)
        with pytest.raises(TokenStoreUnavailable, match="stuck"):
            lease(store)
        with pytest.raises(TokenStoreUnavailable, match="stuck"):
            rewrite(store)
    assert on_loop(lambda: store.read(NAME)).record == a_record(NAME)
    goes_on.set()
    assert has_gone_on.wait(WITHIN)
    on_loop(lambda: leased(store, NAME, 1.0))  # what came too late for its caller was given back


# Locks


def test_a_writer_that_was_stopped_makes_the_others_give_up_and_stops_no_reader(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_lease, "_WAITS_FOR_WRITER", 0.05)
    lock = LockedFile.try_to(written(store).with_suffix(".lock"))
    assert lock is not None

    with pytest.raises(TokenStoreUnavailable, match="another process"):
        rewrite(store)
    assert on_loop(lambda: store.read(NAME)).record == a_record(NAME)
    assert on_loop(store.names) == [NAME]
    assert lease(store)
    lock.close()
    assert rewrite(store)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL])
def test_a_file_system_without_locks_is_said_to_be_one(
    store: FileStore, directory: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    written(store)

    def fail(descriptor: int, *, blocking: bool = True) -> bool:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock, "lock_descriptor", fail)
    with pytest.raises(RefreshMisconfigured):
        lease(store)
    with pytest.raises(RefreshMisconfigured):
        rewrite(store)
    assert {one.suffix for one in directory.iterdir()} == {".json", ".lock", ".lease"}


def test_a_lock_on_a_file_that_was_replaced_meanwhile_does_not_count(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(store).with_suffix(".lease")
    lock, replaced = filelock.lock_descriptor, 0

    def replace_first(descriptor: int, *, blocking: bool = True) -> bool:
        nonlocal replaced
        replaced += 1
        if replaced == 1:
            path.unlink()
        elif replaced == 2:
            path.unlink()
            path.touch(mode=0o600)
        return lock(descriptor, blocking=blocking)

    monkeypatch.setattr(filelock, "lock_descriptor", replace_first)
    first = lease(store)

    assert first is not None
    assert first.is_in_place()
    assert lease(store) is None


def test_a_lock_file_that_is_replaced_all_the_time_is_given_up_on(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(store).with_suffix(".lease")
    lock = filelock.lock_descriptor

    def replace(descriptor: int, *, blocking: bool = True) -> bool:
        path.unlink()
        return lock(descriptor, blocking=blocking)

    monkeypatch.setattr(filelock, "lock_descriptor", replace)
    with pytest.raises(TokenStoreUnavailable, match="replaces"):
        lease(store)


def test_a_lease_whose_file_was_deleted_allows_no_write(store: FileStore) -> None:
    path = written(store)
    first = lease(store)
    assert first is not None
    path.with_suffix(".lease").unlink()

    later = next_of(a_record(NAME))
    assert on_loop(lambda: store.write(NAME, later, over=("epoch-1", 0), under=first)) is False
    second = lease(store)
    assert second is not None
    assert on_loop(lambda: store.write(NAME, later, over=("epoch-1", 0), under=second)) is True


def test_locking_and_releasing_unlinks_nothing_and_inherits_nothing(store: FileStore) -> None:
    path = written(store).with_suffix(".lease")
    first = lease(store)
    assert first is not None
    number = path.stat().st_ino
    assert not os.get_inheritable(first._file.descriptor)
    on_loop(first.release)
    assert path.stat().st_ino == number


@posix
def test_what_is_released_is_free_even_while_a_copy_of_its_descriptor_is_open(store: FileStore) -> None:
    first = lease(store)
    assert first is not None
    copy = os.dup(first._file.descriptor)  # as in a child that was forked past Python
    try:
        assert lease(store) is None
        on_loop(first.release)
        assert lease(store)
    finally:
        os.close(copy)


def test_a_lease_is_released_even_where_no_thread_can_be_started(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = lease(store)
    assert first is not None

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        on_loop(first.release)
        with pytest.raises(Exception, match="no thread"):
            lease(store)
    assert lease(store)


@needs_fork
@needs_proc
def test_no_child_inherits_a_lock_whenever_it_is_forked(store: FileStore) -> None:
    over = threading.Event()

    async def take_turns() -> None:
        while not over.is_set():
            await (await leased(store, NAME, 600.0)).release()

    turns = [start(lambda: on_loop(take_turns)) for _ in range(2)]
    statuses = [os.waitpid(_forked(_open_locks), 0)[1] for _ in range(100)]
    over.set()
    for turn in turns:
        turn.result(WITHIN)

    assert set(statuses) == {0}


def _forked(look: Callable[[], int]) -> int:
    """Fork a child that exits with what `look` returns; return its number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        child = os.fork()
    if child == 0:
        os._exit(look())
    return child


def _open_locks() -> int:
    """Return how many lock files this process has open."""
    count = 0
    for number in os.listdir(DESCRIPTORS):  # noqa: PTH208 - the listing's own descriptor is gone after it
        with contextlib.suppress(FileNotFoundError):
            count += (DESCRIPTORS / number).readlink().suffix in {".lease", ".lock"}
    return count

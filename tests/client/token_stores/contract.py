"""What every token store promises: classes of tests that each store's tests inherit.

A test sees the processes that share a place as store objects on one URL, and,
where it matters, as real processes (`other_process`).
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import queue
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from keyturn.client import loop
from keyturn.client.record import Failure, Marker, Record, Version
from keyturn.client.token_stores import RELEASED, TokenStore, new_store
from keyturn.errors import RefreshMisconfigured
from tests.client.token_stores.kit import (
    DESCRIPTORS,
    SECRET,
    a_record,
    leased,
    next_of,
    on_loop,
    open_descriptors,
)
from tests.client.token_stores.other_process import OtherProcess
from tests.waiting import WITHIN, until

Opener = Callable[[], TokenStore]
Starter = Callable[[], OtherProcess]

NAME = "dashboard:alice"
HOSTILE = [
    NAME,
    "../../etc/passwd",
    "/etc/passwd",
    "zoë ☂",
    "zoe\u0308 ☂",  # not composed, and another name
    "n" * 255,
    "☂" * 255,
    "a/b",
    "a\\b",
    "A",
    "a",
    "{x}",
    "*",
    "%",
    "%61",
    "_",
    "?",
    " ",
    " a ",
    "a b",
    "a\tb",
    ".",
    "..",
    ".hidden",
    "a.json",
    "con",
    "nul.",
    "'; drop table tokens; --",
    '"',
    "$(id)",
]
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
needs_proc = pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="this system does not list descriptors")


class TokenStoreContract:
    """The promises of a token store. A subclass says where, and how a record there is damaged."""

    ends_with_its_holder = True
    """Whether a lease ends as soon as its holder is dead, however long it was to last."""

    brief = 1.0
    """Seconds that a lease lasts in these tests where it only ends by the clock."""

    garbage: tuple[str, ...] = ("", "{", "null", '"x"', "[]", '{"format":1}', '{"format":2}', "secret ☂")
    """What is put in the place of a record to damage it."""

    @pytest.fixture
    def url(self) -> str:
        """Return the URL of a place of this test's own, where nothing is yet; clean up behind it."""
        raise NotImplementedError

    @pytest.fixture
    def environment(self) -> Mapping[str, str]:
        """Return what other processes are to find in their environment."""
        return {}

    def new(self, url: str) -> TokenStore:
        """Return another store object on a place."""
        return new_store(url)

    def damage(self, url: str, name: str, text: str) -> None:
        """Put `text` where the record of a name is."""
        raise NotImplementedError

    @property
    def seconds(self) -> float:
        """Return what to ask for as the longest life of a lease whose holder will die."""
        return 600.0 if self.ends_with_its_holder else self.brief

    @pytest.fixture
    def opened(self, url: str) -> Iterator[Opener]:
        """Return what opens another store object on the place."""
        stores: list[TokenStore] = []

        def open_another() -> TokenStore:
            stores.append(self.new(url))
            return stores[-1]

        yield open_another
        for store in stores:
            on_loop(store.aclose)

    @pytest.fixture
    def store(self, opened: Opener) -> TokenStore:
        """Return a store object on the place."""
        return opened()

    @pytest.fixture
    def other(self, opened: Opener) -> TokenStore:
        """Return another store object on the same place, as another process has one."""
        return opened()

    @pytest.fixture
    def started(self, url: str, environment: Mapping[str, str]) -> Iterator[Starter]:
        """Return what starts another process that opens the place."""
        with ExitStack() as stack:
            yield lambda: stack.enter_context(OtherProcess(url, environment))

    # Records

    def test_a_place_that_does_not_exist_yet_is_empty(self, store: TokenStore) -> None:
        async def main() -> None:
            assert (await store.read(NAME)).record is None
            assert await store.names() == []
            assert await store.remove(NAME) is False

        on_loop(main)

    def test_what_is_written_comes_back_as_it_was(self, store: TokenStore, other: TokenStore) -> None:
        plain = a_record(NAME)
        full = dataclasses.replace(
            plain,
            generation=2**40,
            began_at=1_700_000_000.123456,
            sealed="☂ \x00 \n \"'" + "y" * 20_000,
            expires_at=1_700_000_900.25,
            lifetime=900.0,
            seed="f" * 32,
            marker=Marker(epoch="epoch-1", generation=2**40, fingerprint="e" * 32, at=1_700_000_001.5),
            failure=Failure(
                kind="unavailable",
                at=1_700_000_002.5,
                error="RefreshUnavailable",
                message="the end point ☂",
                status=503,
                not_before=1_700_000_032.5,
            ),
        )
        over = a_record(NAME, "epoch-2", sealed=None)

        async def main() -> None:
            before: Version | None = None
            for record in (plain, full, over):
                assert await store.write(NAME, record, over=before) is True
                assert (await other.read(NAME)).record == record
                assert (await store.read(NAME)).record == record
                before = record.version

        on_loop(main)

    def test_no_two_names_are_one_and_no_name_is_too_strange(
        self, store: TokenStore, other: TokenStore
    ) -> None:
        async def main() -> None:
            for name in HOSTILE:
                assert (await other.read(name)).record is None, name
                assert await store.write(name, a_record(name, sealed=f"of {name}"), over=None) is True
            for name in HOSTILE:
                record = (await other.read(name)).record
                assert record is not None
                assert (record.name, record.sealed) == (name, f"of {name}")
            assert await other.names() == sorted(HOSTILE)
            leases = [await store.try_lease(name, 600.0) for name in HOSTILE]
            for name, lease in zip(HOSTILE, leases, strict=True):
                assert lease is not None, name
                assert await other.try_lease(name, 600.0) is None, name
                await lease.release()
            for name in HOSTILE:
                assert await store.remove(name) is True, name

        on_loop(main)

    def test_a_write_needs_the_version_that_is_there(self, store: TokenStore, other: TokenStore) -> None:
        first, second = a_record(NAME), a_record(NAME, generation=1)
        wrong: list[Version | None] = [None, ("epoch-2", 0), ("epoch-1", 1), ("", 0), ("EPOCH-1", 0)]

        async def main() -> None:
            for version in wrong[1:]:
                assert await store.write(NAME, second, over=version) is False
            assert (await other.read(NAME)).record is None
            assert await store.names() == []
            assert await store.write(NAME, first, over=None) is True
            for version in wrong:
                assert await other.write(NAME, second, over=version) is False
                assert (await store.read(NAME)).record == first
            assert await other.write(NAME, second, over=first.version) is True
            assert await store.write(NAME, next_of(first), over=first.version) is False
            assert (await store.read(NAME)).record == second

        on_loop(main)

    def test_the_same_version_may_be_written_again(self, store: TokenStore, other: TokenStore) -> None:
        record = a_record(NAME)
        marker = Marker(epoch=record.epoch, generation=0, fingerprint="f" * 32, at=1.0)
        marked = dataclasses.replace(record, marker=marker)

        async def main() -> None:
            assert await store.write(NAME, record, over=None)
            assert await store.write(NAME, marked, over=record.version)
            assert (await other.read(NAME)).record == marked
            assert await other.write(NAME, record, over=marked.version)
            assert (await store.read(NAME)).record == record

        on_loop(main)

    def test_of_a_hundred_racing_writers_one_wins_each_version(self, opened: Opener) -> None:
        stores = [opened() for _ in range(4)]

        async def main() -> None:
            over: Version | None = None
            for generation in range(3):
                records = [a_record(NAME, generation=generation, sealed=f"writer {i}") for i in range(100)]
                results = await asyncio.gather(
                    *(stores[i % 4].write(NAME, record, over=over) for i, record in enumerate(records))
                )
                assert results.count(True) == 1
                winner = records[results.index(True)]
                assert [(await store.read(NAME)).record for store in stores] == [winner] * 4
                over = winner.version

        on_loop(main)

    def test_of_racing_processes_one_wins_each_version(
        self, started: Starter, store: TokenStore, last: int = 60
    ) -> None:
        processes = [started() for _ in range(4)]
        assert [one.ask("hello") for one in processes] == ["here"] * 4
        for one in processes:
            one.tell({"do": "race", "name": NAME, "until": last})
        won = Counter(generation for one in processes for generation in one.hear()["result"])

        assert won == Counter(range(last + 1))
        record = on_loop(lambda: store.read(NAME)).record
        assert record is not None
        assert record.version == ("epoch-1", last)

    def test_names_are_sorted_and_a_tombstone_is_one_of_them(
        self, store: TokenStore, other: TokenStore
    ) -> None:
        async def main() -> None:
            for name in ("c", "a", "b"):
                assert await store.write(name, a_record(name), over=None)
            ended = a_record("b", "epoch-2", sealed=None)
            assert await store.write("b", ended, over=("epoch-1", 0))
            assert await other.names() == ["a", "b", "c"]
            assert (await other.read("b")).record == ended

        on_loop(main)

    def test_what_is_removed_is_as_if_it_had_never_been(self, store: TokenStore, other: TokenStore) -> None:
        async def main() -> None:
            for name in ("a", "b"):
                assert await store.write(name, a_record(name), over=None)
            assert await other.remove("a") is True
            assert await store.remove("a") is False
            assert (await store.read("a")).record is None
            assert await store.names() == ["b"]
            assert await store.write("a", a_record("a", generation=7), over=("epoch-1", 0)) is False
            assert await store.write("a", a_record("a", generation=7), over=None) is True

        on_loop(main)

    def test_a_reading_tells_the_time(self, store: TokenStore) -> None:
        async def main() -> None:
            readings = [await store.read(NAME)]
            await store.write(NAME, a_record(NAME), over=None)
            readings.append(await store.read(NAME))
            for reading in readings:
                assert abs(reading.now - time.time()) < 30
            assert readings[0].now <= readings[1].now

        on_loop(main)

    def test_a_damaged_record_is_said_to_be_damaged_and_shows_nothing(
        self, store: TokenStore, url: str
    ) -> None:
        on_loop(lambda: store.write(NAME, a_record(NAME), over=None))
        for text in self.garbage:
            self.damage(url, NAME, text)
            for use in (
                lambda: store.read(NAME),
                lambda: store.write(NAME, a_record(NAME, generation=1), over=("epoch-1", 0)),
            ):
                with pytest.raises(RefreshMisconfigured) as caught:
                    on_loop(use)
                assert url not in str(caught.value)
                assert not text or text not in str(caught.value)
                assert caught.value.__cause__ is None
                assert caught.value.__suppress_context__ or caught.value.__context__ is None
            assert on_loop(store.names) == [NAME]  # for whoever is to remove it
        assert on_loop(lambda: store.remove(NAME)) is True
        assert on_loop(lambda: store.read(NAME)).record is None

    def test_a_record_in_another_names_place_is_not_taken_for_his(self, store: TokenStore, url: str) -> None:
        on_loop(lambda: store.write(NAME, a_record(NAME), over=None))
        self.damage(url, NAME, a_record("bob").to_json())

        with pytest.raises(RefreshMisconfigured, match="another name's"):
            on_loop(lambda: store.read(NAME))
        assert on_loop(lambda: store.remove(NAME)) is True

    def test_nothing_that_is_shown_holds_a_secret(self, store: TokenStore, url: str) -> None:
        async def main() -> list[object]:
            await store.write(NAME, a_record(NAME), over=None)
            lease = await store.try_lease(NAME, 600.0)
            return [store, lease, await store.read(NAME)]

        for one in on_loop(main):
            for shown in (repr(one), str(one)):
                assert SECRET not in shown
                assert url not in shown

    # The lease

    def test_a_lease_is_one_objects_and_one_tasks(self, opened: Opener) -> None:
        stores = [opened() for _ in range(3)]

        async def main() -> None:
            tries = await asyncio.gather(*(stores[i % 3].try_lease(NAME, 600.0) for i in range(60)))
            (lease,) = [one for one in tries if one is not None]
            assert lease.held
            assert await stores[0].try_lease("another", 600.0) is not None
            for _ in range(3):
                assert [await one.try_lease(NAME, 600.0) for one in stores] == [None] * 3
            await lease.release()
            assert not lease.held
            following = await stores[1].try_lease(NAME, 600.0)
            assert following is not None
            assert following.held

        on_loop(main)

    def test_releasing_twice_takes_nothing_from_the_next_holder(
        self, store: TokenStore, other: TokenStore
    ) -> None:
        async def main() -> None:
            for first, second in ((store, other), (store, store)):
                lease = await leased(first, NAME, 600.0)
                await asyncio.gather(lease.release(), lease.release())
                following = await leased(second, NAME, 600.0)
                await asyncio.gather(lease.release(), lease.release())
                assert following.held
                assert await first.try_lease(NAME, 600.0) is None
                await following.release()

        on_loop(main)

    def test_a_lease_is_one_processs(self, started: Starter, store: TokenStore) -> None:
        holder, other = started(), started()

        assert holder.ask("lease", name=NAME, seconds=600.0) is True
        assert other.ask("lease", name=NAME, seconds=600.0) is False
        assert on_loop(lambda: store.try_lease(NAME, 600.0)) is None
        holder.ask("release", name=NAME)
        assert holder.ask("held", name=NAME) is False
        assert other.ask("lease", name=NAME, seconds=600.0) is True
        assert on_loop(lambda: store.try_lease(NAME, 600.0)) is None

    def test_no_two_processes_ever_hold_it_together(self, started: Starter, tmp_path: Path) -> None:
        processes = [started() for _ in range(4)]
        assert [one.ask("hello") for one in processes] == ["here"] * 4
        turn = {"name": NAME, "times": 25, "seconds": 600.0, "witness": str(tmp_path / "witness")}
        for one in processes:
            one.tell({"do": "take_turns", **turn})

        assert [one.hear()["result"] for one in processes] == [0] * 4

    def test_who_is_killed_leaves_the_lease_to_the_next(self, started: Starter, store: TokenStore) -> None:
        holder = started()
        assert holder.ask("lease", name=NAME, seconds=self.seconds) is True
        assert on_loop(lambda: store.try_lease(NAME, 600.0)) is None
        holder.kill()

        assert on_loop(lambda: leased(store, NAME, 600.0)).held

    def test_who_is_stopped_with_the_lease_stops_no_reader_and_no_writer(
        self, started: Starter, store: TokenStore
    ) -> None:
        holder = started()
        assert holder.ask("lease", name=NAME, seconds=self.seconds) is True
        holder.stop()
        try:
            assert on_loop(lambda: store.write(NAME, a_record(NAME), over=None)) is True
            assert on_loop(lambda: store.read(NAME)).record is not None
        finally:
            holder.go_on()
        late = a_record(NAME, sealed="late").to_json()
        assert holder.ask("write", name=NAME, record=late, over=None) is False

    def test_who_is_killed_while_it_writes_leaves_a_whole_record(
        self, started: Starter, store: TokenStore
    ) -> None:
        def there() -> Record:
            record = on_loop(lambda: store.read(NAME)).record
            assert record is not None
            return record

        assert on_loop(lambda: store.write(NAME, a_record(NAME), over=None)) is True
        for _ in range(3):
            before = there().generation
            writer = started()
            writer.tell({"do": "race", "name": NAME, "until": 10**9})
            until(lambda: there().generation > before + 5)  # noqa: B023 - called at once
            writer.kill()

        def can_be_written() -> bool:
            last = there()
            return on_loop(lambda: store.write(NAME, next_of(last), over=last.version))

        until(can_be_written)  # a server may still be busy with what it was sent
        assert there().sealed == SECRET

    @needs_fork
    def test_a_forked_child_does_not_keep_the_lease_of_a_parent_that_is_killed(
        self, started: Starter, store: TokenStore
    ) -> None:
        parent = started()
        assert parent.ask("lease", name=NAME, seconds=self.seconds) is True
        child = parent.ask("fork", then=[{"do": "lease", "name": NAME, "seconds": 600.0}], stay=True)
        try:
            assert (child["held"], child["results"]) == ([False], [False])
            parent.kill()
            assert on_loop(lambda: leased(store, NAME, 600.0)).held
        finally:
            os.kill(child["pid"], signal.SIGKILL)

    @needs_fork
    def test_a_forked_child_that_exits_takes_nothing_from_its_parent(
        self, started: Starter, store: TokenStore
    ) -> None:
        parent = started()
        record = a_record(NAME)
        assert parent.ask("write", name=NAME, record=record.to_json(), over=None) is True
        assert parent.ask("lease", name=NAME, seconds=600.0) is True
        then = [
            {"do": "read", "name": NAME},
            {"do": "write", "name": NAME, "record": next_of(record).to_json(), "over": ["epoch-1", 0]},
            {"do": "lease", "name": "the child's", "seconds": 600.0},
        ]
        child = parent.ask("fork", then=then)

        assert child["results"] == [record.to_json(), True, True]
        assert child["status"] == 0
        assert parent.ask("held", name=NAME) is True
        assert on_loop(lambda: store.try_lease(NAME, 600.0)) is None
        marked = next_of(next_of(record)).to_json()
        assert parent.ask("write", name=NAME, record=marked, over=["epoch-1", 1], under=True) is True
        assert on_loop(lambda: leased(store, "the child's", 600.0)).held

    def test_a_program_that_the_holder_started_does_not_keep_the_lease(
        self, started: Starter, store: TokenStore
    ) -> None:
        holder = started()
        assert holder.ask("lease", name=NAME, seconds=self.seconds) is True
        child = holder.ask("spawn")
        try:
            holder.kill()
            assert on_loop(lambda: leased(store, NAME, 600.0)).held
        finally:
            os.kill(child, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)

    def test_a_write_under_a_lease_that_is_no_longer_held_is_refused(
        self, store: TokenStore, other: TokenStore
    ) -> None:
        record = a_record(NAME)

        async def main() -> None:
            lease = await leased(store, NAME, 600.0)
            assert await store.write(NAME, record, over=None, under=lease) is True
            assert await other.write(NAME, next_of(record), over=record.version) is True  # the others may
            await lease.release()
            over = next_of(record).version
            assert await store.write(NAME, next_of(next_of(record)), over=over, under=lease) is False
            following = await leased(other, NAME, 600.0)
            assert await store.write(NAME, next_of(next_of(record)), over=over, under=lease) is False
            assert (await store.read(NAME)).record == next_of(record)
            assert following.held

        on_loop(main)

    def test_a_try_that_is_cancelled_leaves_no_lease_behind(
        self, store: TokenStore, other: TokenStore
    ) -> None:
        async def main() -> None:
            await store.read(NAME)
            for i in range(60):
                trying = asyncio.create_task(store.try_lease(NAME, 600.0))
                for _ in range(i % 20):
                    await asyncio.sleep(0)
                if i >= 20:
                    await asyncio.sleep((i - 20) / 10_000)
                trying.cancel()
                try:
                    lease = await trying
                except asyncio.CancelledError:
                    lease = None
                if lease is not None:
                    await lease.release()
                await (await leased(other, NAME, 600.0)).release()

        on_loop(main)

    def test_a_write_that_is_cancelled_leaves_the_store_in_order(
        self, store: TokenStore, other: TokenStore
    ) -> None:
        async def main() -> None:
            assert await store.write(NAME, a_record(NAME), over=None)
            for i in range(60):
                was = (await other.read(NAME)).record
                assert was is not None
                writing = asyncio.create_task(store.write(NAME, next_of(was), over=was.version))
                for _ in range(i % 20):
                    await asyncio.sleep(0)
                if i >= 20:
                    await asyncio.sleep((i - 20) / 10_000)
                writing.cancel()
                await asyncio.wait([writing])
                now = (await store.read(NAME)).record
                assert now in (was, next_of(was))
            while True:  # until no cancelled write that is still under way has come between
                was = (await store.read(NAME)).record
                assert was is not None
                if await store.write(NAME, next_of(was), over=was.version):
                    break

        on_loop(main)

    # Closing

    def test_what_is_closed_is_opened_anew_by_the_next_use(
        self, store: TokenStore, other: TokenStore
    ) -> None:
        async def main() -> None:
            await store.aclose()  # never used
            assert await store.write(NAME, a_record(NAME), over=None)
            lease = await leased(store, NAME, 600.0)
            await store.aclose()
            await store.aclose()
            assert not lease.held
            await (await leased(other, NAME, 600.0)).release()
            assert (await store.read(NAME)).record == a_record(NAME)
            over = a_record(NAME).version
            assert await store.write(NAME, a_record(NAME, generation=1), over=over, under=lease) is False
            await lease.release()
            assert (await leased(store, NAME, 600.0)).held

        on_loop(main)

    @needs_proc
    def test_nothing_leaks(self, store: TokenStore, other: TokenStore) -> None:
        async def main() -> None:
            for i in range(5):
                record = a_record(NAME, generation=i)
                await store.write(NAME, record, over=None if i == 0 else ("epoch-1", i - 1))
                await other.write(NAME, record, over=("epoch-2", 0))
                tries = await asyncio.gather(*(one.try_lease(NAME, 600.0) for one in (store, other) * 5))
                for lease in tries:
                    if lease is not None:
                        await lease.release()
                await other.read(NAME)
                await store.names()
                trying = asyncio.create_task(store.try_lease(NAME, 600.0))
                await asyncio.sleep(0)
                trying.cancel()
                await asyncio.wait([trying])
            await leased(store, NAME, 600.0)
            await store.remove(NAME)
            await store.aclose()
            await other.aclose()

        on_loop(main)
        before = open_descriptors()
        for _ in range(5):
            on_loop(main)
        until(lambda: open_descriptors() <= before)


class NotifyingStoreContract(TokenStoreContract):
    """The promises of a token store that tells of changes."""

    def test_who_watches_is_told_of_every_write_and_release(
        self, opened: Opener, started: Starter, store: TokenStore
    ) -> None:
        heard: queue.Queue[Version | None] = queue.Queue()
        on_own_loop: list[bool] = []
        other = opened()
        process = started()

        def changed(version: Version | None) -> None:
            on_own_loop.append(loop.is_current())
            heard.put(version)

        async def watch() -> None:
            store.watch(NAME, changed)

        def hear(expected: Version | None) -> None:
            while heard.get(timeout=WITHIN) != expected:
                pass

        on_loop(watch)
        record = self._until_heard(other, heard)
        for writer in (other, store):
            record, over = next_of(record), record.version
            now = record
            assert on_loop(lambda: writer.write(NAME, now, over=over)) is True  # noqa: B023 - called at once
            hear(record.version)
        record, over = next_of(record), record.version
        assert process.ask("write", name=NAME, record=record.to_json(), over=over) is True
        hear(record.version)
        assert process.ask("lease", name=NAME, seconds=600.0) is True
        process.ask("release", name=NAME)
        hear(RELEASED)
        on_loop(on_loop(lambda: leased(other, NAME, 600.0)).release)
        hear(RELEASED)
        assert on_loop(lambda: opened().remove(NAME)) is True
        heard.get(timeout=WITHIN)
        assert all(on_own_loop)

    def test_who_no_longer_watches_is_told_nothing(self, store: TokenStore, other: TokenStore) -> None:
        heard: queue.Queue[Version | None] = queue.Queue()
        still: queue.Queue[Version | None] = queue.Queue()

        async def watch() -> None:
            store.watch(NAME, heard.put)
            store.watch(NAME, still.put)
            store.watch("another", heard.put)

        async def unwatch() -> None:
            store.unwatch(NAME, heard.put)

        on_loop(watch)
        record = self._until_heard(other, heard)
        on_loop(unwatch)
        while not heard.empty():
            heard.get()
        for generation in range(record.generation + 1, record.generation + 4):
            newer, over = a_record(NAME, generation=generation), ("epoch-1", generation - 1)
            assert on_loop(lambda: other.write(NAME, newer, over=over))  # noqa: B023 - called at once
            while still.get(timeout=WITHIN) != newer.version:
                pass
        assert heard.empty()

    def _until_heard(self, writer: TokenStore, heard: queue.Queue[Version | None]) -> Record:
        """Write until the watcher hears of it, since watching begins in the background; return the last."""
        record, over = a_record(NAME), None

        def was_heard() -> bool:
            nonlocal record, over
            assert on_loop(lambda: writer.write(NAME, record, over=over)) is True
            try:
                while heard.get(timeout=0.05) is None:
                    pass
            except queue.Empty:
                over, record = record.version, next_of(record)
                return False
            return True

        until(was_heard)
        return record

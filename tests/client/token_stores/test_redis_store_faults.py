"""Redis that forgets, restarts, freezes, refuses, or answers into a broken line."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from keyturn.client.record import Version
from keyturn.client.token_stores import TokenStore, new_store, redis_lease
from keyturn.errors import RefreshMisconfigured, TokenStoreUnavailable
from tests.client.token_stores.kit import a_record, leased, next_of, on_loop
from tests.client.token_stores.other_process import OtherProcess
from tests.client.token_stores.redis_server import HOST, RedisServer, free_port, hear
from tests.waiting import until

NAME = "dashboard:alice"
KEY = f"keyturn:{{{NAME}}}"
RECORD = a_record(NAME)
PASSWORD = "pass/w@rd ☂"
LONGEST = 15.0  # seconds that a call may take on a busy machine; its own limits add up to five


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    """Return a server that tests leave as it was, but for its data."""
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    """Return the server, empty."""
    shared.command("FLUSHALL")
    return shared


@pytest.fixture
def store(server: RedisServer) -> Iterator[TokenStore]:
    """Return a store on the server."""
    opened = new_store(server.url)
    yield opened
    on_loop(opened.aclose)


class Proxy:
    """A line to a server that can lose answers, go silent, or be cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.loses_answers = False
        self.silent = False
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Yield a URL that leads over the line."""
        listener = await asyncio.start_server(self._joined, HOST, 0)
        try:
            yield f"redis://{HOST}:{listener.sockets[0].getsockname()[1]}/0"
        finally:
            listener.close()
            self.cut()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(HOST, self._port)
        self._writers += [writer, back]
        for start, end, answers in ((reader, back, False), (there, writer, True)):
            task = asyncio.create_task(self._carry(start, end, answers=answers))
            self._tasks.add(task)

    async def _carry(self, start: asyncio.StreamReader, end: asyncio.StreamWriter, *, answers: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await start.read(65536):
                if answers and self.loses_answers:
                    self.cut()
                elif not self.silent:
                    end.write(data)
                    await end.drain()
        end.close()


# What Redis forgets


def test_after_a_flush_nothing_is_there_and_nobody_holds_anything(
    server: RedisServer, store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_lease, "elapsed", lambda: 0.0)  # so that it is not the clock that ends a lease

    async def main() -> None:
        assert await store.write(NAME, RECORD, over=None)
        lease = await leased(store, NAME, 600.0)
        brief = await leased(store, "another", 0.3)
        server.command("FLUSHALL")
        assert (await store.read(NAME)).record is None
        assert await store.write(NAME, next_of(RECORD), over=RECORD.version) is False
        assert await store.write(NAME, RECORD, over=None, under=lease) is False
        while brief.held:  # noqa: ASYNC110 - a renewal that is refused ends it, nobody tells
            await asyncio.sleep(0.005)
        assert await store.write(NAME, RECORD, over=None) is True

    on_loop(main)


def test_a_server_that_forgot_the_scripts_is_told_again(server: RedisServer, store: TokenStore) -> None:
    async def main() -> None:
        for record, over in ((RECORD, None), (next_of(RECORD), RECORD.version)):
            server.command("SCRIPT", "FLUSH")
            assert await store.write(NAME, record, over=over) is True
            server.command("SCRIPT", "FLUSH")
            lease = await leased(store, NAME, 600.0)
            server.command("SCRIPT", "FLUSH")
            await lease.release()
        assert server.command("EXISTS", f"{KEY}:lease") == 0

    on_loop(main)


def test_after_a_restart_the_next_call_is_served_and_watchers_are_told() -> None:
    server = RedisServer("--appendonly", "yes", "--appendfsync", "always")
    heard: asyncio.Queue[Version | None] = asyncio.Queue()
    store = new_store(server.url)

    async def before() -> None:
        store.watch(NAME, heard.put_nowait)
        await hear(heard, None)
        assert await store.write(NAME, RECORD, over=None)
        await asyncio.gather(
            *(store.read(NAME) for _ in range(50))
        )  # as many idle connections as there can be

    async def after() -> None:
        assert (await store.read(NAME)).record == RECORD
        await hear(heard, None)
        assert await store.write(NAME, next_of(RECORD), over=RECORD.version)
        await hear(heard, next_of(RECORD).version)
        await store.aclose()

    try:
        on_loop(before)
        server.restart()
        on_loop(after)
    finally:
        server.close()


def test_a_subscriber_that_is_killed_comes_back_and_tells_everyone(
    server: RedisServer, store: TokenStore
) -> None:
    heard: asyncio.Queue[Version | None] = asyncio.Queue()
    other: asyncio.Queue[Version | None] = asyncio.Queue()

    async def main() -> None:
        store.watch(NAME, heard.put_nowait)
        store.watch("another", other.put_nowait)
        for _ in range(3):
            assert await heard.get() is None
            assert await other.get() is None
            server.command("CLIENT", "KILL", "TYPE", "pubsub")
        await hear(heard, None)
        assert await store.write(NAME, RECORD, over=None)
        await hear(heard, RECORD.version)

    on_loop(main)


def test_a_subscription_without_a_sound_is_noticed_and_renewed(server: RedisServer) -> None:
    heard: asyncio.Queue[Version | None] = asyncio.Queue()
    line = Proxy(server.port)

    async def main() -> None:
        async with line.open() as url:
            store = new_store(url)
            store.watch(NAME, heard.put_nowait)
            await hear(heard, None)
            line.silent = True
            while "sub=1" in str(server.command("CLIENT", "LIST")):  # noqa: ASYNC110 - the server has no event
                await asyncio.sleep(0.05)
            line.silent = False
            await hear(heard, None)
            await store.aclose()

    on_loop(main)


def test_what_others_publish_on_the_channel_is_passed_over(server: RedisServer, store: TokenStore) -> None:
    heard: asyncio.Queue[Version | None] = asyncio.Queue()

    async def main() -> None:
        def changed(version: Version | None) -> None:
            heard.put_nowait(version)
            raise ValueError("a watcher that fails")

        store.watch(NAME, changed)
        await hear(heard, None)
        for noise in ("", "{", "[]", "null", '{"name":1}', '{"epoch":"e","generation":1}', b"\xff\xfe"):
            server.command("PUBLISH", "keyturn:changed:0", noise)  # type: ignore[arg-type]
        assert await store.write(NAME, RECORD, over=None)
        assert await heard.get() == RECORD.version

    on_loop(main)


# The lease and its time


def test_a_lease_is_renewed_for_as_long_as_it_is_held(server: RedisServer, store: TokenStore) -> None:
    async def main() -> None:
        lease = await leased(store, NAME, 0.6)
        ends = time.monotonic() + 2.0
        while time.monotonic() < ends:
            assert lease.held
            assert await store.try_lease(NAME, 0.6) is None
            await asyncio.sleep(0.01)
        await lease.release()
        assert server.command("EXISTS", f"{KEY}:lease") == 0

    on_loop(main)


def test_a_server_that_is_away_for_less_than_a_life_costs_no_lease(
    server: RedisServer, store: TokenStore
) -> None:
    async def main() -> None:
        lease = await leased(store, NAME, 9.0)
        renewed = server.command("PTTL", f"{KEY}:lease")
        server.command("CLIENT", "PAUSE", 3200, "ALL")  # over the first renewal, and past its time-out
        assert (await store.try_lease("another", 1.0)) is not None
        assert lease.held
        assert await store.write(NAME, RECORD, over=None, under=lease) is True
        assert isinstance(renewed, int)
        await lease.release()

    on_loop(main)


def test_a_holder_that_hears_nothing_for_a_life_holds_no_more(server: RedisServer, store: TokenStore) -> None:
    async def main() -> None:
        lease = await leased(store, NAME, 0.5)
        server.freeze()
        try:
            while lease.held:  # noqa: ASYNC110 - the clock ends it, nobody tells
                await asyncio.sleep(0.005)
        finally:
            server.thaw()
        assert await store.write(NAME, RECORD, over=None, under=lease) is False
        assert not lease.held
        await leased(store, NAME, 600.0)

    on_loop(main)


def test_who_was_stopped_past_its_time_knows_it_at_once(server: RedisServer, store: TokenStore) -> None:
    on_loop(lambda: store.write(NAME, RECORD, over=None))
    with OtherProcess(server.url) as holder:
        assert holder.ask("lease", name=NAME, seconds=0.5) is True
        holder.stop()
        lease = on_loop(lambda: leased(store, NAME, 600.0))
        holder.go_on()
        assert holder.ask("held", name=NAME) is False
        late = next_of(RECORD).to_json()
        assert holder.ask("write", name=NAME, record=late, over=RECORD.version, under=True) is False
        holder.ask("release", name=NAME)
        assert lease.held
        assert on_loop(lambda: store.read(NAME)).record == RECORD


def test_even_who_believes_to_hold_a_lease_writes_nothing_under_anothers(
    server: RedisServer, store: TokenStore
) -> None:
    async def main() -> None:
        lease = await leased(store, NAME, 600.0)
        server.command("SET", f"{KEY}:lease", "another's")
        assert lease.held
        assert await store.write(NAME, RECORD, over=None, under=lease) is False
        await lease.release()
        assert server.command("GET", f"{KEY}:lease") == b"another's"

    on_loop(main)


# Answers that are lost


def test_a_write_whose_answer_is_lost_is_one_write_and_is_known_to_be(server: RedisServer) -> None:
    line = Proxy(server.port)

    async def main() -> None:
        async with line.open() as url:
            store = new_store(url)
            assert await store.write(NAME, RECORD, over=None)
            line.loses_answers = True
            writing = asyncio.create_task(store.write(NAME, next_of(RECORD), over=RECORD.version))
            while '"generation":1,' not in str(server.command("GET", f"{KEY}:record")):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
            line.loses_answers = False
            assert await writing is True
            await store.aclose()

    on_loop(main)


def test_a_write_whose_answers_are_all_lost_is_known_when_it_is_tried_again(server: RedisServer) -> None:
    line = Proxy(server.port)
    newer = next_of(RECORD)
    marked = dataclasses.replace(newer, lifetime=900.0)

    async def main() -> None:
        async with line.open() as url:
            store = new_store(url)
            assert await store.write(NAME, RECORD, over=None)
            line.loses_answers = True
            with pytest.raises(TokenStoreUnavailable):
                await store.write(NAME, newer, over=RECORD.version)
            line.loses_answers = False
            assert await store.write(NAME, marked, over=RECORD.version) is False  # not what was tried
            line.loses_answers = True
            with pytest.raises(TokenStoreUnavailable):
                await store.write(NAME, newer, over=RECORD.version)
            line.loses_answers = False
            assert await store.write(NAME, newer, over=RECORD.version) is True
            assert await store.write(NAME, newer, over=RECORD.version) is False
            await store.aclose()

    on_loop(main)


def test_a_lease_whose_answer_is_lost_is_not_left_behind(server: RedisServer) -> None:
    line = Proxy(server.port)

    async def main() -> None:
        async with line.open() as url:
            store = new_store(url)
            await (await leased(store, NAME, 600.0)).release()  # so that the server knows the scripts
            line.loses_answers = True
            with pytest.raises(TokenStoreUnavailable):
                await store.try_lease(NAME, 600.0)
            line.loses_answers = False
            assert (await leased(store, NAME, 600.0)).held
            line.cut()
            assert (await store.read(NAME)).record is None
            await store.aclose()

    on_loop(main)


# Servers that do not answer, and servers that refuse


def test_who_never_answers_is_waited_for_a_few_seconds_only() -> None:
    async def main() -> None:
        for scheme in ("redis", "redis+cluster", "redis+sentinel", "rediss"):
            store = new_store(f"{scheme}://{HOST}:{port}" + ("/tokens" if "sentinel" in scheme else ""))
            begun = time.monotonic()
            with pytest.raises(TokenStoreUnavailable):
                await store.read(NAME)
            assert time.monotonic() - begun < LONGEST
            await store.aclose()

    with socket.create_server((HOST, 0)) as silent:  # takes connections and says nothing
        port = silent.getsockname()[1]
        on_loop(main)


def test_nobody_there_is_said_at_once_and_without_an_address() -> None:
    port = free_port()
    store = new_store(f"redis://alice:{PASSWORD.replace('/', '%2F').replace(' ', '%20')}@{HOST}:{port}/0")

    async def main() -> None:
        calls = (
            lambda: store.read(NAME),
            lambda: store.write(NAME, RECORD, over=None),
            lambda: store.try_lease(NAME, 1.0),
            lambda: store.remove(NAME),
            store.names,
        )
        for call in calls:
            with pytest.raises(TokenStoreUnavailable, match="ConnectionRefusedError") as caught:
                await call()
            assert str(port) not in str(caught.value)
            assert caught.value.__suppress_context__
        await store.aclose()

    on_loop(main)


def test_a_password_is_percent_decoded_and_a_wrong_one_is_misconfigured() -> None:
    server = RedisServer(password=PASSWORD)
    right = f"redis://:pass%2Fw%40rd%20%E2%98%82@{HOST}:{server.port}/3"

    async def main() -> None:
        store = new_store(right)
        assert await store.write(NAME, RECORD, over=None)
        assert (await store.read(NAME)).record == RECORD
        await store.aclose()
        for wrong in (right.replace("pass", "word"), right.replace(":pass", "nobody:pass"), server.url):
            store = new_store(wrong)
            with pytest.raises(RefreshMisconfigured, match="AuthenticationError") as caught:
                await store.read(NAME)
            assert "pass" not in str(caught.value)
            assert "word" not in str(caught.value)
            await store.aclose()

    try:
        on_loop(main)
    finally:
        server.close()


@pytest.mark.parametrize(
    "missing", ["~keyturn:*", "&keyturn:changed:*", "+evalsha"], ids=["keys", "channel", "scripts"]
)
def test_a_user_with_too_few_rights_is_misconfigured_before_anything_is_written(
    server: RedisServer, missing: str
) -> None:
    rights = ["~keyturn:*", "&keyturn:changed:*", "+@all"]
    given = [one for one in rights if one != missing] + (
        [missing.replace("+", "-")] if "+" in missing else []
    )
    server.command("ACL", "SETUSER", "alice", "reset", "on", ">secret", "resetchannels", *given)
    store = new_store(server.url.replace("//", "//alice:secret@"))

    async def main() -> None:
        with pytest.raises(RefreshMisconfigured, match="NOPERM"):
            await store.write(NAME, RECORD, over=None)
        await store.aclose()

    on_loop(main)
    assert server.command("DBSIZE") == 0


def test_a_server_without_room_is_unavailable_and_still_reads() -> None:
    server = RedisServer()
    store = new_store(server.url)

    async def main() -> None:
        assert await store.write(NAME, RECORD, over=None)
        server.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(TokenStoreUnavailable, match="OOM"):
            await store.write(NAME, next_of(RECORD), over=RECORD.version)
        with pytest.raises(TokenStoreUnavailable, match="OOM"):
            await store.try_lease(NAME, 60.0)
        assert (await store.read(NAME)).record == RECORD
        await store.aclose()

    try:
        on_loop(main)
    finally:
        server.close()


def test_a_replica_is_not_read() -> None:
    primary = RedisServer()
    replica = RedisServer("--replicaof", f"{HOST} {primary.port}")

    async def main() -> None:
        store = new_store(replica.url)
        with pytest.raises(TokenStoreUnavailable, match="READONLY"):
            await store.read(NAME)
        with pytest.raises(TokenStoreUnavailable, match="READONLY"):
            await store.write(NAME, RECORD, over=None)
        replica.command("REPLICAOF", "NO", "ONE")
        assert (await store.read(NAME)).record is None
        await store.aclose()

    try:
        on_loop(main)
    finally:
        replica.close()
        primary.close()


def test_a_key_of_another_kind_is_misconfigured(server: RedisServer, store: TokenStore) -> None:
    server.command("RPUSH", f"{KEY}:record", "a list")

    async def main() -> None:
        for call in (lambda: store.read(NAME), lambda: store.write(NAME, RECORD, over=None)):
            with pytest.raises(RefreshMisconfigured, match="WRONGTYPE"):
                await call()

    on_loop(main)


# Many at once, and the end of the process


def test_a_thousand_at_once_share_a_few_connections(server: RedisServer, store: TokenStore) -> None:
    async def main() -> int:
        records = [a_record(f"name-{i}") for i in range(1000)]
        written = await asyncio.gather(*(store.write(one.name, one, over=None) for one in records))
        assert all(written)
        leases = await asyncio.gather(*(store.try_lease(one.name, 60.0) for one in records))
        assert all(leases)
        assert len(await store.names()) == 1000
        await asyncio.gather(*(lease.release() for lease in leases if lease is not None))
        return str(server.command("CLIENT", "LIST")).count("cmd=evalsha")

    assert on_loop(main) <= 16


ENDS = """
import sys
from keyturn.client.token_stores import new_store
from tests.client.token_stores.kit import a_record, on_loop
store = new_store(sys.argv[1])
async def main():
    await store.read("a name")
    store.watch("a name", print)
    await store.try_lease("a name", 600.0)
on_loop(main)
print("here", flush=True)
"""


@pytest.mark.parametrize("flags", [[], ["-X", "dev", "-W", "error"]], ids=["plain", "development mode"])
def test_a_program_that_ends_without_closing_says_nothing(server: RedisServer, flags: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *flags, "-c", ENDS, server.url],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(["src", "."])},
    )

    assert (done.returncode, done.stderr) == (0, "")
    until(lambda: "cmd=evalsha" not in str(server.command("CLIENT", "LIST")))

"""PostgresStore: the contract on a real server, and what is PostgreSQL's own about it."""

from __future__ import annotations

import asyncio
import os
import queue
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from keyturn.client.record import Version
from keyturn.client.token_stores import new_store, postgres, postgres_session
from keyturn.client.token_stores.postgres import PostgresStore
from keyturn.client.token_stores.postgres_session import Opener, Session
from keyturn.client.token_stores.postgres_url import Place
from keyturn.errors import ConfigurationError, RefreshMisconfigured, TokenStoreUnavailable
from tests.client.token_stores.contract import NAME, NotifyingStoreContract, needs_fork
from tests.client.token_stores.kit import a_record, leased, next_of, on_loop
from tests.client.token_stores.postgres_place import Schema
from tests.client.token_stores.postgres_proxy import PoolingProxy, Wire
from tests.waiting import WITHIN, until

ROOT = Path(__file__).parents[3]


@pytest.fixture
def schema(postgres_url: str) -> Iterator[Schema]:
    """Return a schema of this test's own."""
    with Schema(postgres_url) as one:
        yield one


class TestContract(NotifyingStoreContract):
    @pytest.fixture
    def url(self, schema: Schema) -> str:
        """Return the URL of a table of this test's own."""
        self.schema = schema
        return schema.url()

    def damage(self, url: str, name: str, text: str) -> None:
        """Put `text` in the place of a name's record."""
        self.schema.execute("UPDATE {table} SET record = %s WHERE name = %s", text, name)


def test_a_row_whose_columns_are_not_its_records_is_damaged(schema: Schema) -> None:
    store = new_store(schema.url())
    record = a_record(NAME)

    async def main() -> None:
        assert await store.write(NAME, record, over=None)
        schema.execute("UPDATE {table} SET generation = 7")
        with pytest.raises(RefreshMisconfigured, match="damaged"):
            await store.read(NAME)
        with pytest.raises(RefreshMisconfigured, match="damaged"):
            await store.write(NAME, next_of(record), over=(record.epoch, 7))
        await store.aclose()

    on_loop(main)


# The lease is the lock of a session


_LOCKED = "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = %s"


async def _reached(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds."""
    while not condition():  # noqa: ASYNC110 - what others do is waited for
        await asyncio.sleep(0)


def _backend(store: PostgresStore) -> int:
    session = store._lease_link.session
    assert session is not None
    return session.pid


def test_a_lease_ends_with_its_connection_and_a_save_does_not_need_it(schema: Schema) -> None:
    store, other = PostgresStore.from_url(schema.url()), PostgresStore.from_url(schema.url())
    record = a_record(NAME)

    async def main() -> None:
        lease, second = await leased(store, NAME, 1), await leased(store, "another", 1)
        assert await store.write(NAME, record, over=None, under=lease)
        schema.execute("SELECT pg_terminate_backend(%s, 10000)", _backend(store))
        assert not lease.held
        assert not second.held
        assert await store.write(NAME, record, over=record.version, under=lease) is False
        following = await leased(other, NAME, 1)
        assert await store.try_lease(NAME, 1) is None
        await lease.release()
        assert following.held
        assert await other.write(NAME, record, over=record.version, under=following) is True
        assert await store.write(NAME, next_of(record), over=record.version) is True
        again = await leased(store, "another", 1)
        await second.release()
        assert again.held
        assert await other.try_lease("another", 1) is None
        await asyncio.gather(store.aclose(), other.aclose())

    on_loop(main)


def test_the_server_has_the_lock_of_a_lease_that_is_held_and_of_no_other(schema: Schema) -> None:
    store = PostgresStore.from_url(schema.url())

    def locks() -> int:
        return len(schema.execute(_LOCKED, _backend(store)))

    async def main() -> None:
        for _ in range(5):
            tries = await asyncio.gather(*(store.try_lease(NAME, 1) for _ in range(5)))
            (lease,) = [one for one in tries if one is not None]
            assert locks() == 1
            await lease.release()
            assert locks() == 0
        await store.aclose()

    on_loop(main)


@pytest.mark.parametrize("failing", [("_RELEASE",), ("_RELEASE", "_UNLOCK")])
def test_a_release_that_the_server_refuses_still_frees_the_lease(
    schema: Schema, monkeypatch: pytest.MonkeyPatch, failing: tuple[str, ...]
) -> None:
    store, other = PostgresStore.from_url(schema.url()), PostgresStore.from_url(schema.url())
    for statement in failing:
        monkeypatch.setattr(postgres, statement, "SELECT 1 / 0")

    async def main() -> None:
        lease, second = await leased(store, NAME, 1), await leased(store, "another", 1)
        await lease.release()
        await (await leased(other, NAME, 1)).release()
        assert second.held is (failing == ("_RELEASE",))
        await asyncio.gather(store.aclose(), other.aclose())

    on_loop(main)


def test_two_spellings_of_one_table_have_the_same_leases_and_two_tables_have_not(schema: Schema) -> None:
    named = PostgresStore.from_url(schema.url())
    found = PostgresStore.from_url(schema.url(table="tokens") + f"&options=-csearch_path%3D{schema.name}")
    elsewhere = PostgresStore.from_url(schema.url(table=f"{schema.name}.others"))

    async def main() -> None:
        lease = await leased(named, NAME, 1)
        assert lease.held
        assert await found.try_lease(NAME, 1) is None
        assert await elsewhere.try_lease(NAME, 1) is not None
        await asyncio.gather(named.aclose(), found.aclose(), elsewhere.aclose())

    on_loop(main)


def test_a_try_that_is_cancelled_with_the_answer_on_its_way_gives_the_lock_back(schema: Schema) -> None:
    other = PostgresStore.from_url(schema.url())
    with Wire(*schema.address) as wire:
        store = PostgresStore.from_url(schema.url(port=wire.port))

        async def main() -> None:
            for ends in (wire.unmute, wire.cut):
                await (await leased(store, NAME, 1)).release()
                wire.withhold_answers()
                trying = asyncio.create_task(store.try_lease(NAME, 1))
                await _reached(lambda: bool(schema.execute(_LOCKED, _backend(store))))
                trying.cancel()
                await asyncio.wait([trying])
                assert trying.cancelled()
                ends()
                wire.unmute()
                await (await leased(other, NAME, 1)).release()
            await asyncio.gather(store.aclose(), other.aclose())

        on_loop(main)


# Proxies


def test_a_proxy_that_pools_transactions_is_refused_whatever_is_asked(schema: Schema) -> None:
    with PoolingProxy(schema.server_url, "transaction") as proxy:
        store = PostgresStore.from_url(schema.url(server=proxy.url))

        async def main() -> None:
            for ask in (store.names, lambda: store.read(NAME), lambda: store.try_lease(NAME, 1)):
                with pytest.raises(RefreshMisconfigured, match="connect to the server directly"):
                    await ask()
            await store.aclose()

        on_loop(main)


def test_a_proxy_that_begins_to_pool_transactions_later_is_refused_at_the_next_lease(schema: Schema) -> None:
    store = PostgresStore.from_url(schema.url())

    async def main() -> None:
        lease = await leased(store, NAME, 1)
        session = store._lease_link.session
        assert session is not None
        session.pid += 1  # as if another server process answered from now on
        with pytest.raises(RefreshMisconfigured, match="pools transactions"):
            await store.write(NAME, a_record(NAME), over=None, under=lease)
        assert (await store.read(NAME)).record is None
        with pytest.raises(RefreshMisconfigured, match="pools transactions"):
            await store.try_lease("another", 1)
        assert not lease.held
        await store.aclose()

    on_loop(main)


def test_a_proxy_that_pools_sessions_will_do(schema: Schema) -> None:
    with PoolingProxy(schema.server_url, "session") as proxy:
        store, other = (PostgresStore.from_url(schema.url(server=url)) for url in (proxy.url, None))

        async def main() -> None:
            lease = await leased(store, NAME, 1)
            assert await other.try_lease(NAME, 1) is None
            assert await store.write(NAME, a_record(NAME), over=None, under=lease)
            assert (await store.read(NAME)).record == a_record(NAME)
            await store.aclose()
            assert (await leased(other, NAME, 1)).held
            await other.aclose()

        on_loop(main)


# What is lost on the way


def test_a_write_whose_answer_is_lost_is_found_to_be_written(schema: Schema) -> None:
    with Wire(*schema.address) as wire:
        store = PostgresStore.from_url(schema.url(port=wire.port))

        async def main() -> None:
            await store.names()
            wire.withhold_answers()
            writing = asyncio.create_task(store.write(NAME, a_record(NAME), over=None))
            await _reached(lambda: bool(schema.execute("SELECT name FROM {table}")))
            wire.cut()
            wire.unmute()
            assert await writing is True
            await store.aclose()

        on_loop(main)


def test_a_write_that_is_cancelled_is_let_go_at_once_and_ends_by_itself(schema: Schema) -> None:
    with Wire(*schema.address) as wire:
        store = PostgresStore.from_url(schema.url(port=wire.port))

        async def main() -> None:
            await store.names()
            wire.withhold_answers()
            writing = asyncio.create_task(store.write(NAME, a_record(NAME), over=None))
            await _reached(lambda: bool(schema.execute("SELECT name FROM {table}")))
            writing.cancel()
            await asyncio.wait([writing])
            assert writing.cancelled()
            wire.unmute()
            assert (await store.read(NAME)).record == a_record(NAME)
            assert wire.accepted == 1  # neither a request to cancel nor another connection
            await store.aclose()

        on_loop(main)


@pytest.mark.parametrize("overtaken", [False, True])
def test_a_write_that_is_lost_is_not_said_to_be_written(schema: Schema, overtaken: bool) -> None:
    first, theirs = a_record(NAME), a_record(NAME, generation=1, sealed="theirs")
    other = PostgresStore.from_url(schema.url())
    with Wire(*schema.address) as wire:
        store = PostgresStore.from_url(schema.url(port=wire.port))

        async def main() -> None:
            assert await store.write(NAME, first, over=None)
            accepted = wire.accepted
            wire.mute()
            writing = asyncio.create_task(store.write(NAME, next_of(first), over=first.version))
            await _reached(lambda: any(link.waiting for link in store._links))
            if overtaken:
                assert await other.write(NAME, theirs, over=first.version)
            wire.cut()
            wire.unmute()
            if overtaken:
                assert await writing is False
            else:
                with pytest.raises(TokenStoreUnavailable):
                    await writing
            assert wire.accepted > accepted
            assert (await store.read(NAME)).record == (theirs if overtaken else first)
            await asyncio.gather(store.aclose(), other.aclose())

        on_loop(main)


def test_a_server_that_falls_silent_is_given_up_and_a_thousand_callers_wait_once(
    schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Wire(*schema.address) as wire:
        store = PostgresStore.from_url(schema.url(port=wire.port) + "&connect_timeout=2")

        async def main() -> None:
            lease = await leased(store, NAME, 1)
            await store.read(NAME)
            accepted = wire.accepted
            monkeypatch.setattr(postgres_session, "_LONGEST_STATEMENT", 0.2)
            wire.withhold_answers()
            answers = await asyncio.gather(
                *(store.read(NAME) for _ in range(1000)),
                store.write(NAME, a_record(NAME), over=None, under=lease),
                return_exceptions=True,
            )
            assert {type(answer) for answer in answers} == {TokenStoreUnavailable}
            assert wire.accepted - accepted <= 2 * (postgres._LINKS + 1)
            assert not lease.held
            wire.cut()
            wire.unmute()
            monkeypatch.undo()
            assert (await store.read(NAME)).record in (None, a_record(NAME))
            await store.aclose()

        on_loop(main)


def test_a_port_that_accepts_and_says_nothing_is_a_store_that_does_not_answer(schema: Schema) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = PostgresStore.from_url(schema.url(port=silent.getsockname()[1]))

        async def main() -> None:
            asked = [store.read(NAME), store.try_lease(NAME, 1), store.names(), store.remove(NAME)]
            for answer in await asyncio.gather(*asked, return_exceptions=True):
                assert isinstance(answer, TokenStoreUnavailable)
                assert str(silent.getsockname()[1]) not in str(answer)
            await store.aclose()

        on_loop(main)


# Watching


def test_who_watches_is_told_when_the_connection_was_lost_and_hears_again(schema: Schema) -> None:
    store, other = PostgresStore.from_url(schema.url()), PostgresStore.from_url(schema.url())
    heard: queue.Queue[Version | None] = queue.Queue()
    with Wire(*schema.address) as wire:
        store = PostgresStore.from_url(schema.url(port=wire.port))

        async def watch() -> None:
            store.watch(NAME, heard.put)

        on_loop(watch)
        record, over = a_record(NAME), None
        for _ in range(5):
            assert heard.get(timeout=WITHIN) is None
            now, before = record, over
            assert on_loop(lambda: other.write(NAME, now, over=before))  # noqa: B023 - called at once
            assert heard.get(timeout=WITHIN) == record.version
            record, over = next_of(record), record.version
            wire.cut()
    on_loop(store.aclose)
    on_loop(other.aclose)


def test_a_watcher_that_fails_and_noise_on_the_channel_keep_nobody_else_from_hearing(
    schema: Schema, caplog: pytest.LogCaptureFixture
) -> None:
    store = PostgresStore.from_url(schema.url())
    heard: queue.Queue[Version | None] = queue.Queue()

    def fail(version: Version | None) -> None:
        raise ValueError

    async def watch() -> None:
        store.watch(NAME, fail)
        store.watch(NAME, heard.put)

    on_loop(watch)
    assert heard.get(timeout=WITHIN) is None
    session = store._listener._link.session
    assert session is not None
    for noise in ("", "{", "[]", '"x"', "null", '{"name":1}', '{"name":"dashboard:alice","epoch":1}'):
        schema.execute("SELECT pg_notify(%s, %s)", session.channel, noise)
    assert on_loop(lambda: store.write(NAME, a_record(NAME), over=None))
    assert heard.get(timeout=WITHIN) == a_record(NAME).version
    assert "a watcher of the token store failed" in caplog.text
    on_loop(store.aclose)


# Sessions


@pytest.mark.parametrize("round_", range(10))
def test_many_who_make_the_table_at_once_make_it(schema: Schema, round_: int) -> None:
    stores = [PostgresStore.from_url(schema.url()) for _ in range(8)]

    async def main() -> None:
        assert await asyncio.gather(*(store.names() for store in stores)) == [[]] * 8
        await asyncio.gather(*(store.aclose() for store in stores))

    on_loop(main)


def test_a_session_is_set_up_for_a_lease_and_for_durable_writes(schema: Schema) -> None:
    options = "-csynchronous_commit%3Doff%20-cidle_session_timeout%3D100s"
    opener = Opener(Place.from_url(schema.url() + f"&options={options}"))
    wanted = ("synchronous_commit", "idle_session_timeout", "statement_timeout", "application_name")

    async def main() -> list[object]:
        session = await opener.open()
        settings = ", ".join(f"current_setting('{name}')" for name in wanted)
        (row,) = await session.ask(f"SELECT {settings}")
        session.close()
        return list(row)

    assert on_loop(main) == ["on", "0", "4s", "keyturn"]


def test_a_commit_that_waits_for_more_than_the_disk_goes_on_doing_so(schema: Schema) -> None:
    opener = Opener(Place.from_url(schema.url() + "&options=-csynchronous_commit%3Dremote_apply"))

    async def main() -> object:
        session = await opener.open()
        ((setting,),) = await session.ask("SELECT current_setting('synchronous_commit')")
        session.close()
        return setting

    assert on_loop(main) == "remote_apply"


@needs_fork
def test_a_connection_that_was_opened_across_a_fork_is_opened_again(schema: Schema) -> None:
    with Wire(*schema.address) as wire:
        store = PostgresStore.from_url(schema.url(port=wire.port))
        names: list[list[str]] = []
        wire.mute()
        asking = threading.Thread(target=lambda: names.append(on_loop(store.names)))
        asking.start()
        until(lambda: wire.accepted == 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
            child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        wire.unmute()
        asking.join(WITHIN)
        assert names == [[]]
        assert wire.accepted == 2
        on_loop(store.aclose)


FORKS = "ignore::DeprecationWarning"  # of forking beside threads
PROGRAM = """
import os, sys
from keyturn.client.token_stores import new_store
from tests.client.token_stores.kit import a_record, leased, on_loop

held = []

async def take():
    held.append(await leased(store, "name", 1))
    await store.read("name")

async def main():
    store.watch("name", print)
    if sys.argv[1] == "idle":
        await take()

async def child():
    own.watch("name", print)
    assert (await own.try_lease("name", 1) is None) is bool(held)
    await own.names()

store = new_store(os.environ["URL"])
on_loop(main)
while sys.argv[1] == "forking":  # as soon as a connection is begun, and once all are there
    pid = os.fork()
    if pid == 0:
        store.abandon()
        own = new_store(os.environ["URL"])
        on_loop(child)
        break
    assert os.waitpid(pid, 0)[1] == 0
    if held:
        assert held[0].held
        assert on_loop(lambda: store.write("name", a_record("name"), over=None, under=held[0]))
        break
    on_loop(take)
"""


@pytest.mark.parametrize("how", ["idle", "connecting", pytest.param("forking", marks=needs_fork)])
def test_a_program_that_just_ends_says_nothing(schema: Schema, how: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = schema.url(port=silent.getsockname()[1]) if how == "connecting" else schema.url()
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-W", FORKS, "-c", PROGRAM, how],
            cwd=ROOT,
            env={**os.environ, "URL": url, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=WITHIN,
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_session_that_is_cut_is_one_that_is_lost(schema: Schema) -> None:
    opener = Opener(Place.from_url(schema.url()))

    async def main() -> None:
        session: Session = await opener.open()
        assert session.is_alive()
        session.cut()
        with pytest.raises(psycopg.OperationalError):
            await session.ask("SELECT 1")
        assert not session.is_alive()
        session.close()
        session.cut()

    on_loop(main)


# URLs


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3cret@h/d?keyturn_table=",
        "postgresql://u:s3cret@h/d?keyturn_table=a.b.c",
        "postgresql://u:s3cret@h/d?keyturn_table=Tokens",
        "postgresql://u:s3cret@h/d?keyturn_table=x%3Bdrop",
        "postgresql://u:s3cret@h/d?keyturn_tabel=x",
        "postgresql://u:s3cret@h/d?keyturn_table=x&keyturn_table=y",
        "postgresql://u:s3cret@h/d?nonsense=1",
        "postgresql://u:s3cret@h:port/d",
        "postgresql://u:s3cret@[h/d",
        "postgresql://u:s3cret%zz@h/d",
    ],
)
def test_a_url_that_cannot_work_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        new_store(url)

    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_schema_that_does_not_exist_is_said_to_be_missing(schema: Schema) -> None:
    store = new_store(schema.url().replace("keyturn_table=", "keyturn_table=no"))

    with pytest.raises(RefreshMisconfigured, match="the schema of keyturn_table does not exist"):
        on_loop(store.names)
    on_loop(store.aclose)


def test_a_url_is_libpqs_and_the_name_of_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGCONNECT_TIMEOUT", raising=False)
    place = Place.from_url("postgres://u:p%40ss@h/d?sslmode=verify-full&keyturn_table=app.tokens")
    two = Place.from_url("postgresql://u@one:1,two:2/d?connect_timeout=9")
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "7")

    assert place.table == "app.tokens"
    assert place.quoted == '"app"."tokens"'
    assert "p@ss" in place.conninfo
    assert "sslmode=verify-full" in place.conninfo
    assert "connect_timeout=3" in place.conninfo
    assert "target_session_attrs" not in place.conninfo
    assert "target_session_attrs=read-write" in two.conninfo
    assert "connect_timeout=9" in two.conninfo
    assert "connect_timeout" not in Place.from_url("postgresql://h/d").conninfo
    assert Place.from_url("postgresql://h/d").table == "keyturn_tokens"
    assert "p@ss" not in repr(place)

"""PostgresStore and a server of the test's own: restarts, roles, databases, standbys and TLS."""

from __future__ import annotations

import asyncio
import queue
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import trustme

from keyturn.client.record import Version
from keyturn.client.token_stores.postgres import PostgresStore
from keyturn.errors import RefreshError, RefreshMisconfigured, TokenStoreUnavailable
from tests.client.token_stores.contract import NAME
from tests.client.token_stores.kit import a_record, leased, next_of, on_loop
from tests.client.token_stores.postgres_server import PostgresServer
from tests.waiting import WITHIN

PASSWORD = "s3cret-" + "p" * 12


@pytest.fixture(scope="module")
def running() -> Iterator[PostgresServer]:
    """Return a server for the tests of this module, with a role that may do little."""
    with PostgresServer() as one:
        one.execute(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'")
        yield one


@pytest.fixture
def server(running: PostgresServer) -> Iterator[PostgresServer]:
    """Return the server, running, with a database of this test's own."""
    running.database = f"d{secrets.token_hex(6)}"
    running.execute(f"CREATE DATABASE {running.database}")
    yield running
    running.restart()
    running.execute(f"DROP DATABASE {running.database} WITH (FORCE)")


def _store(server: PostgresServer, options: str = "", **who: str) -> PostgresStore:
    return PostgresStore.from_url(server.url(database=server.database, **who) + options)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
def test_a_server_that_restarts_ends_leases_and_is_used_again(
    server: PostgresServer, how: signal.Signals
) -> None:
    store = _store(server)
    heard: queue.Queue[Version | None] = queue.Queue()
    record = a_record(NAME)

    async def before() -> None:
        store.watch(NAME, heard.put)
        lease = await leased(store, NAME, 1)
        assert await store.write(NAME, record, over=None, under=lease)
        server.stop(how)
        sessions = [link.session for link in (store._lease_link, *store._links)]
        while any(one is not None and one.is_alive() for one in sessions):  # noqa: ASYNC110 - they are slow
            await asyncio.sleep(0.01)
        assert not lease.held
        assert await store.write(NAME, record, over=record.version, under=lease) is False
        asked = [store.read(NAME), store.try_lease("another", 1), store.names(), store.remove(NAME)]
        asked.append(store.write(NAME, next_of(record), over=record.version))
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(answer, TokenStoreUnavailable)
        await lease.release()

    async def after() -> None:
        assert (await store.read(NAME)).record == record
        while not heard.empty():
            heard.get()
        assert await store.write(NAME, next_of(record), over=record.version)
        assert (await leased(store, NAME, 1)).held

    on_loop(before)
    while not heard.empty():
        heard.get()
    server.start()
    while heard.get(timeout=WITHIN) is not None:
        pass
    on_loop(after)
    assert heard.get(timeout=WITHIN) == next_of(record).version
    on_loop(store.aclose)


def test_a_restart_that_nobody_noticed_costs_no_write(server: PostgresServer) -> None:
    store = _store(server)
    record = a_record(NAME)

    async def main() -> None:
        assert await store.write(NAME, record, over=None)
        await (await leased(store, NAME, 1)).release()
        for i in range(3):
            server.restart()
            over = (record.epoch, i)
            assert await store.write(NAME, a_record(NAME, generation=i + 1), over=over) is True
            lease = await leased(store, NAME, 1)
            assert await store.remove("another") is False
            await lease.release()
        await store.aclose()

    on_loop(main)


def _refusal(store: PostgresStore) -> RefreshError:
    """Return what every use of a store raises, having seen that it shows nothing."""

    async def main() -> RefreshError:
        raised: list[RefreshError] = []
        record = a_record(NAME)
        for ask in (lambda: store.read(NAME), lambda: store.write(NAME, record, over=None), store.names):
            with pytest.raises(RefreshError) as caught:
                await ask()
            raised.append(caught.value)
        await store.aclose()
        for error in raised:
            assert type(error) is type(raised[0])
            assert error.__cause__ is None
            assert error.__suppress_context__ or error.__context__ is None
            for secret in (PASSWORD, "wr0ng", "127.0.0.1", "postgresql://"):
                assert secret not in str(error)
        return raised[0]

    return on_loop(main)


def test_a_wrong_password_or_database_is_never_going_to_work(server: PostgresServer) -> None:
    for store, says in (
        (_store(server, user="app", password="wr0ng"), "password"),
        (_store(server, user="app"), "password"),
        (_store(server, user="nobody", password="wr0ng"), "password"),
        (PostgresStore.from_url(server.url(database="nowhere")), "database"),
        (_store(server, "?sslmode=require"), "TLS"),
        (_store(server, "?options=-cnonsense%3D1"), "option"),
    ):
        error = _refusal(store)
        assert type(error) is RefreshMisconfigured
        assert says in str(error)


def test_a_role_that_may_not_make_the_table_is_told_how_it_is_made(server: PostgresServer) -> None:
    error = _refusal(_store(server, user="app", password=PASSWORD))
    assert type(error) is RefreshMisconfigured
    ddl = str(error).partition("run: ")[2]

    server.execute(ddl, database=server.database)
    error = _refusal(_store(server, user="app", password=PASSWORD))
    assert type(error) is RefreshMisconfigured
    assert "SELECT, INSERT, UPDATE and DELETE" in str(error)

    grant = "GRANT SELECT, INSERT, UPDATE, DELETE ON keyturn_tokens TO app"
    server.execute(grant, database=server.database)
    store = _store(server, user="app", password=PASSWORD)

    async def main() -> None:
        lease = await leased(store, NAME, 1)
        assert await store.write(NAME, a_record(NAME), over=None, under=lease)
        assert await store.write(NAME, next_of(a_record(NAME)), over=("epoch-1", 0))
        assert await store.names() == [NAME]
        assert await store.remove(NAME)
        await store.aclose()

    on_loop(main)


def test_a_table_that_is_not_keyturns_or_may_not_be_written_is_said_to_be(server: PostgresServer) -> None:
    server.execute("CREATE TABLE others (id integer)", database=server.database)
    error = _refusal(_store(server, "?keyturn_table=others"))
    assert (type(error), "column" in str(error)) == (RefreshMisconfigured, True)

    error = _refusal(_store(server, "?keyturn_table=nowhere.tokens"))
    assert (type(error), "schema" in str(error)) == (RefreshMisconfigured, True)

    on_loop(_store(server).names)
    store = _store(server, "?options=-cdefault_transaction_read_only%3Don")

    async def main() -> None:
        with pytest.raises(RefreshMisconfigured, match="read-only"):
            await store.write(NAME, a_record(NAME), over=None)
        assert (await store.read(NAME)).record is None
        await store.aclose()

    on_loop(main)


def test_a_table_that_was_dropped_is_made_again_by_the_next_connection(server: PostgresServer) -> None:
    store = _store(server)

    async def main() -> None:
        assert await store.names() == []
        server.execute("DROP TABLE keyturn_tokens", database=server.database)
        with pytest.raises(RefreshMisconfigured, match="gone"):
            await store.read(NAME)
        await store.aclose()
        assert (await store.read(NAME)).record is None
        await store.aclose()

    on_loop(main)


def test_a_row_that_another_transaction_holds_is_not_waited_for(server: PostgresServer) -> None:
    store = _store(server)
    record = a_record(NAME)
    on_loop(lambda: store.write(NAME, record, over=None))
    with psycopg.connect(server.url(database=server.database)) as holder:
        holder.execute("SELECT name FROM keyturn_tokens FOR UPDATE")

        async def main() -> None:
            with pytest.raises(TokenStoreUnavailable, match="55P03"):
                await store.write(NAME, next_of(record), over=record.version)
            assert (await store.read(NAME)).record == record

        on_loop(main)
    assert on_loop(lambda: store.write(NAME, next_of(record), over=record.version)) is True
    on_loop(store.aclose)


def test_a_server_without_a_place_for_one_more_connection_is_unavailable(server: PostgresServer) -> None:
    server.execute("ALTER ROLE app CONNECTION LIMIT 0")
    try:
        assert type(_refusal(_store(server, user="app", password=PASSWORD))) is TokenStoreUnavailable
    finally:
        server.execute("ALTER ROLE app CONNECTION LIMIT -1")


def test_tls_is_as_the_url_says(server: PostgresServer, tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    server.install("server.crt", issued.cert_chain_pems[0].bytes())
    server.install("server.key", issued.private_key_pem.bytes())
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    stranger.cert_pem.write_to_path(tmp_path / "stranger.pem")
    server.restart("ssl=on")
    trusting = f"?sslmode=verify-full&sslrootcert={tmp_path}/"

    async def main() -> None:
        store = _store(server, trusting + "authority.pem")
        lease = await leased(store, NAME, 1)
        assert await store.write(NAME, a_record(NAME), over=None, under=lease)
        session = store._lease_link.session
        assert session is not None
        assert session.connection.pgconn.ssl_in_use
        assert lease.held
        server.restart("ssl=on")
        assert not lease.held
        assert (await store.read(NAME)).record == a_record(NAME)
        await store.aclose()

    on_loop(main)
    error = _refusal(_store(server, trusting + "stranger.pem"))
    assert (type(error), "TLS" in str(error)) == (RefreshMisconfigured, True)


def test_a_standby_is_not_taken_for_the_primary(server: PostgresServer) -> None:
    store = _store(server)
    assert on_loop(lambda: store.write(NAME, a_record(NAME), over=None))
    server.install("standby.signal", b"")
    server.restart()
    try:
        error = _refusal(store)
        assert (type(error), "standby" in str(error)) == (TokenStoreUnavailable, True)
    finally:
        server.stop()
        server.remove("standby.signal")
        server.start()

"""Tokens on the primary that a sentinel names: the contract, and what a fail-over does."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from keyturn.client.record import Record, Version
from keyturn.client.token_stores import RELEASED, TokenStore, new_store
from keyturn.errors import TokenStoreUnavailable
from tests.client.token_stores.contract import NotifyingStoreContract
from tests.client.token_stores.kit import a_record, leased, next_of, on_loop
from tests.client.token_stores.redis_server import HOST, RedisSentinel, free_port, hear, patiently

NAME = "dashboard:alice"


@pytest.fixture(scope="module")
def sentinel() -> Iterator[RedisSentinel]:
    """Return a primary, a replica and a sentinel that nobody breaks."""
    servers = RedisSentinel()
    yield servers
    servers.close()


class TestRedisSentinelStore(NotifyingStoreContract):
    """The contract by way of a sentinel, under a prefix of each test's own."""

    ends_with_its_holder = False

    @pytest.fixture
    def url(self, sentinel: RedisSentinel) -> str:
        """Return the URL with a prefix of this test's own."""
        self.sentinel = sentinel
        return f"{sentinel.url}?prefix=keyturn-tests:{secrets.token_hex(8)}"

    def damage(self, url: str, name: str, text: str) -> None:
        """Put `text` where the record of a name is."""
        key = f"{url.partition('?prefix=')[2]}:{{{quote(name, safe=':@/')}}}:record"
        self.sentinel.primary.command("SET", key, text)


@pytest.fixture
def own() -> Iterator[RedisSentinel]:
    """Return servers to break."""
    servers = RedisSentinel()
    yield servers
    servers.close()


@pytest.fixture
def store(own: RedisSentinel) -> Iterator[TokenStore]:
    """Return a store on the servers that are to be broken."""
    opened = new_store(own.url)
    yield opened
    on_loop(opened.aclose)


async def written(store: TokenStore, record: Record, over: Record | None) -> None:
    """Write a record, however long the store does not answer."""
    while True:
        try:
            assert await store.write(record.name, record, over=None if over is None else over.version)
        except TokenStoreUnavailable:
            await asyncio.sleep(0.01)
        else:
            return


@pytest.mark.parametrize("killed", [False, True], ids=["asked for", "killed"])
def test_after_a_failover_the_new_primary_is_read_and_written(
    own: RedisSentinel, store: TokenStore, killed: bool
) -> None:
    heard: asyncio.Queue[Version | None] = asyncio.Queue()
    first = a_record(NAME)
    second, third = next_of(first), next_of(next_of(first))

    async def before() -> None:
        store.watch(NAME, heard.put_nowait)
        await hear(heard, None)
        await written(store, first, None)
        await hear(heard, first.version)
        patiently(lambda: own.replica.command("EXISTS", f"keyturn:{{{NAME}}}:record") == 1)

    async def after() -> None:
        await written(store, second, first)
        assert (await store.read(NAME)).record == second
        await hear(heard, None)  # subscribed again
        await (await leased(store, NAME, 60.0)).release()
        await hear(heard, RELEASED)
        await written(store, third, second)
        await hear(heard, third.version)

    on_loop(before)
    if killed:
        own.kill_primary()
    else:
        own.fail_over()
    on_loop(after)
    assert third.to_json() in str(own.primary.command("GET", f"keyturn:{{{NAME}}}:record"), "utf-8")  # type: ignore[call-overload]


def test_of_several_sentinels_one_that_answers_is_enough(own: RedisSentinel) -> None:
    hosts = f"{HOST}:{free_port()},{HOST}:{own.sentinel.port}"
    store = new_store(f"redis+sentinel://{hosts}/{own.service}")

    async def main() -> None:
        assert await store.write(NAME, a_record(NAME), over=None)
        await store.aclose()

    on_loop(main)


def test_without_a_sentinel_or_a_primary_nothing_is_promised(own: RedisSentinel) -> None:
    async def main() -> None:
        for url in (
            own.url.replace(own.service, "another"),
            f"redis+sentinel://{HOST}:{free_port()}/{own.service}",
        ):
            store = new_store(url)
            with pytest.raises(TokenStoreUnavailable, match="MasterNotFoundError"):
                await store.read(NAME)
            await store.aclose()

    on_loop(main)

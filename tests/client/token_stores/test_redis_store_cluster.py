"""Tokens in a cluster of three primaries: the contract, and what a cluster does to its clients."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from keyturn.client.record import Version
from keyturn.client.token_stores import TokenStore, new_store
from keyturn.errors import RefreshMisconfigured, TokenStoreUnavailable
from tests.client.token_stores.contract import NotifyingStoreContract
from tests.client.token_stores.kit import a_record, leased, next_of, on_loop
from tests.client.token_stores.redis_server import HOST, RedisCluster, hear, patiently


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    """Return a cluster that nobody breaks."""
    nodes = RedisCluster()
    yield nodes
    nodes.close()


class TestRedisClusterStore(NotifyingStoreContract):
    """The contract on a cluster, under a prefix of each test's own."""

    ends_with_its_holder = False

    @pytest.fixture
    def url(self, cluster: RedisCluster) -> str:
        """Return the URL with a prefix of this test's own."""
        self.cluster = cluster
        return f"{cluster.url}?prefix=keyturn-tests:{secrets.token_hex(8)}"

    def damage(self, url: str, name: str, text: str) -> None:
        """Put `text` where the record of a name is."""
        key = f"{url.partition('?prefix=')[2]}:{{{quote(name, safe=':@/')}}}:record"
        self.cluster.node_of(key).command("SET", key, text)


def a_name_on(cluster: RedisCluster, place: int) -> str:
    """Return a name whose keys lie on one node."""
    names = (f"name-{i}" for i in range(1000))
    return next(one for one in names if cluster.node_of(f"keyturn:{{{one}}}:record") is cluster.nodes[place])


@pytest.fixture
def own() -> Iterator[RedisCluster]:
    """Return a cluster to break."""
    nodes = RedisCluster()
    yield nodes
    nodes.close()


@pytest.fixture
def store(own: RedisCluster) -> Iterator[TokenStore]:
    """Return a store on the cluster that is to be broken."""
    opened = new_store(own.url)
    yield opened
    on_loop(opened.aclose)


def test_while_a_primary_is_down_only_its_names_are(own: RedisCluster, store: TokenStore) -> None:
    names = [a_name_on(own, place) for place in range(3)]

    async def main() -> None:
        for name in names:
            assert await store.write(name, a_record(name), over=None)
        own.nodes[0].stop()
        for _ in range(3):
            for name in names[1:]:
                assert (await store.read(name)).record == a_record(name)
                await (await leased(store, name, 60.0)).release()
            with pytest.raises(TokenStoreUnavailable):
                await store.read(names[0])

    on_loop(main)


def test_a_store_opened_while_the_first_host_is_down_finds_the_cluster(
    own: RedisCluster, store: TokenStore
) -> None:
    own.nodes[0].stop()
    name = a_name_on(own, 2)

    async def main() -> None:
        assert await store.write(name, a_record(name), over=None)

    on_loop(main)


def test_a_cluster_that_was_all_down_is_found_again(own: RedisCluster, store: TokenStore) -> None:
    name = a_name_on(own, 1)

    async def down() -> None:
        assert await store.write(name, a_record(name), over=None)
        for node in own.nodes:
            node.stop()
        for _ in range(4):
            with pytest.raises(TokenStoreUnavailable):
                await store.read(name)

    async def up() -> bool:
        try:
            return (await store.read(name)).record is None
        except TokenStoreUnavailable:
            return False

    on_loop(down)
    for node in own.nodes:
        node.start()
    patiently(lambda: on_loop(up))


def test_a_slot_that_moves_is_followed_and_the_lease_with_it(own: RedisCluster, store: TokenStore) -> None:
    name = a_name_on(own, 0)
    record = a_record(name)
    source, target = own.nodes[0], own.nodes[2]
    slot = str(source.command("CLUSTER", "KEYSLOT", name))
    ids = [str(node.command("CLUSTER", "MYID"), "ascii") for node in (source, target)]  # type: ignore[call-overload]

    async def main() -> None:
        assert await store.write(name, record, over=None)
        lease = await leased(store, name, 600.0)
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        assert (await store.read(name)).record == record  # still here
        keys = [f"keyturn:{{{name}}}:{what}" for what in ("record", "lease")]
        source.command("MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys)
        assert await store.write(name, next_of(record), over=record.version, under=lease)  # asks there
        for node in own.nodes:
            node.command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
        again = next_of(next_of(record))
        assert await store.write(name, again, over=next_of(record).version, under=lease)  # moved
        assert (await store.read(name)).record == again
        assert await store.try_lease(name, 600.0) is None
        assert await store.names() == [name]

    on_loop(main)


def test_a_watcher_moves_to_another_node_when_its_own_dies(own: RedisCluster, store: TokenStore) -> None:
    names = [a_name_on(own, place) for place in range(3)]
    heard: asyncio.Queue[Version | None] = asyncio.Queue()

    async def main() -> None:
        for name in names:
            store.watch(name, heard.put_nowait)
        assert [await heard.get() for _ in names] == [None] * 3
        listening = next(i for i in range(3) if "sub=1" in str(own.nodes[i].command("CLIENT", "LIST")))
        own.nodes[listening].stop()
        assert [await heard.get() for _ in names] == [None] * 3
        name = names[(listening + 1) % 3]
        record = a_record(name)
        assert await store.write(name, record, over=None)
        await hear(heard, record.version)

    on_loop(main)


def test_a_clusters_node_asked_as_a_single_server_says_what_to_write(cluster: RedisCluster) -> None:
    store = new_store(cluster.nodes[0].url)
    name = a_name_on(cluster, 1)

    with pytest.raises(RefreshMisconfigured, match=r"redis\+cluster://"):
        on_loop(lambda: store.read(name))
    on_loop(store.aclose)


def test_a_single_server_asked_as_a_cluster_is_misconfigured(redis_url: str) -> None:
    address = redis_url.rpartition("/")[0].replace("redis://", "redis+cluster://")
    store = new_store(address)

    with pytest.raises(RefreshMisconfigured):
        on_loop(lambda: store.read("anything"))
    on_loop(store.aclose)

"""Redis: one server, a cluster, or the primary that sentinels name.

    keyturn:{dashboard:alice}:record    the record, as JSON; it has no expiry
    keyturn:{dashboard:alice}:lease     the lease: its owner's token, with a time limit
    keyturn:changed:0                   the channel on which changes are told, one a database

`keyturn` is the prefix (`?prefix=` in the URL, see `redis_url`). Names are
percent-encoded, so the braces are ours: all that belongs to a name lies in
one slot of a cluster. A user needs the keys `keyturn:*` and the channels
`keyturn:changed:*`. Each step is one Lua script and takes the time from the
server. Redis 5 is the oldest that works.

What an operator sets: `maxmemory-policy noeviction`, or a full server throws
records away and their sessions with them; and append-only persistence
(`appendonly yes`; with `appendfsync everysec` a crash costs a second).

Replication is asynchronous. A fail-over can lose the last writes, those too
that the old primary takes until it learns of its successor. Then a record is
behind by what was refreshed in that moment: a server with a replay window
heals one refresh, one without sees a spent token. A marker, a lease and a
sign-out can be lost in the same way.
`min-replicas-to-write 1` narrows this and does not end it. Where it must not
happen, PostgreSQL is the store to choose.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from typing import Any, Self
from urllib.parse import quote, unquote

from keyturn.client.record import Record, Version
from keyturn.client.token_stores import RELEASED, Changed, Lease, Reading
from keyturn.client.token_stores.redis_connections import Connections, Script
from keyturn.client.token_stores.redis_lease import RedisLease
from keyturn.client.token_stores.redis_listener import Listener
from keyturn.client.token_stores.redis_url import Address, parse
from keyturn.client.token_stores.watchers import news
from keyturn.errors import RefreshMisconfigured, TokenStoreUnavailable

_CLOSING = 2.0  # seconds that releasing the leases may take at the end
_EMPTY = "%"  # the name '', which no other name is encoded as
_READ, _WRITE, _REMOVE = Script("read"), Script("write"), Script("remove")
_inherited: list[object] = []  # kept alive in a child, so that nothing of the parent's is finalized there


class RedisStore:
    """Records, leases and notifications in Redis."""

    notifies = True

    def __init__(self, address: Address) -> None:
        self._address = address
        self._channel = f"{address.prefix}:changed:{address.db}"
        self._connections: Connections | None = None
        self._listener = Listener(lambda: self._open().new_listener(), self._channel)
        self._leases: set[RedisLease] = set()
        self._unsure: dict[str, bytes] = {}  # the digest of a write whose outcome nobody told us

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return a store, without I/O. Raises ConfigurationError for a URL that cannot work."""
        return cls(parse(url))

    async def read(self, name: str) -> Reading:
        """Return the record, from the primary, and the server's time."""
        seconds, microseconds, text = await self._open().run(_READ, [self._key(name, "record")])
        record = None if text is None else Record.from_json(text, name)
        return Reading(record, int(seconds) + int(microseconds) / 1_000_000)

    async def write(
        self, name: str, record: Record, *, over: Version | None, under: Lease | None = None
    ) -> bool:
        """Write the record over a version, in one step; tell whether it was written."""
        owner = ""
        if under is not None:
            if not isinstance(under, RedisLease) or not under.held:
                return False
            owner = under.owner
        epoch, generation = ("", "") if over is None else (over[0], str(over[1]))
        text, told = record.to_json(), "" if over == record.version else news(name, record.version)
        first = [epoch, generation, text, owner, "0", self._channel, told]
        again = [epoch, generation, text, owner, "1", self._channel, told]
        connections = self._open()
        return await connections.apart(self._write(connections, name, first, again))

    async def try_lease(self, name: str, seconds: float) -> Lease | None:
        """Return the lease if nobody holds it. It ends `seconds` after the last time that it was renewed."""
        connections = self._open()
        told = self._channel, news(name, RELEASED)
        lease = RedisLease(connections, self._key(name, "lease"), secrets.token_hex(16), seconds, told)
        taking = connections.begin(lease.take())
        try:
            taken = await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(lambda _: connections.begin(lease.release()))
            raise
        if not taken:
            return None
        self._leases = {one for one in self._leases if one.held} | {lease}
        return lease

    def watch(self, name: str, changed: Changed) -> None:
        """Have `changed` called on every change of the name."""
        self._listener.watch(name, changed)

    def unwatch(self, name: str, changed: Changed) -> None:
        """Undo one `watch`."""
        self._listener.unwatch(name, changed)

    async def names(self) -> list[str]:
        """Return the names that have a record, sorted."""
        before, after = f"{self._address.prefix}:{{", "}:record"
        pattern = re.sub(r"([\\*?\[\]])", r"\\\1", before) + "*" + after
        keys = [key.decode() for key in await self._open().scan(pattern)]
        return sorted(_decoded(key[len(before) : -len(after)]) for key in keys)

    async def remove(self, name: str) -> bool:
        """Forget a name; tell whether it had a record."""
        arguments = [self._channel, news(name, None)]
        return bool(await self._open().run(_REMOVE, [self._key(name, "record")], arguments, again=None))

    async def aclose(self) -> None:
        """Release the leases and close the connections, within a few seconds."""
        connections, self._connections = self._connections, None
        leases, self._leases = self._leases, set()
        await self._listener.close()
        if leases:
            await asyncio.wait([asyncio.ensure_future(lease.release()) for lease in leases], timeout=_CLOSING)
        if connections is not None:
            await connections.close()

    def abandon(self) -> None:
        """In a forked child: close the sockets without a word; the leases stay the parent's."""
        _inherited.append((self, self._connections))
        for lease in self._leases:
            lease.abandon()
        if self._connections is not None:
            self._connections.forget()

    def _open(self) -> Connections:
        if self._connections is None:
            self._connections = Connections(self._address)
        return self._connections

    def _key(self, name: str, what: str) -> str:
        encoded = quote(name, safe=":@/", errors="surrogatepass") or _EMPTY
        return f"{self._address.prefix}:{{{encoded}}}:{what}"

    async def _write(self, connections: Connections, name: str, first: list[str], again: list[str]) -> bool:
        """Write; where nobody told the outcome, ask again in a way that does no harm, now or next time."""
        digest = hashlib.sha256(first[2].encode()).digest()
        keys = [self._key(name, "record"), *([self._key(name, "lease")] if first[3] else [])]
        begun = again if self._unsure.get(name) == digest else first
        try:
            answer: Any = await connections.run(_WRITE, keys, begun, again=again)
        except TokenStoreUnavailable:
            self._unsure[name] = digest
            raise
        self._unsure.pop(name, None)
        if answer < 0:
            raise RefreshMisconfigured(
                "a record in the token store cannot be read: it is damaged, or of another version of keyturn"
            )
        return bool(answer)


def _decoded(encoded: str) -> str:
    return "" if encoded == _EMPTY else unquote(encoded, errors="surrogatepass")

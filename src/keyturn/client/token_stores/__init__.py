"""Token stores: where credentials keep their tokens, opened by URL.

A store keeps one record a name (`keyturn.client.record`) and grants one lease
a name. It knows nothing of tokens: who may refresh, what a record means and
what a failure means is decided in `keyturn.client.keeper`.

    memory://                           this process, and nobody else
    file:///var/lib/app/tokens          a directory: one JSON file a name
    sqlite:///tokens.db                 one SQLite file (four slashes for an absolute path)
    postgresql://user@host/database     PostgreSQL, by psycopg 3
    redis://host:6379/0                 Redis (rediss://, redis+cluster://, redis+sentinel://)
    keyring://service                   the desktop's keyring, for command-line tools

`memory://` has no class here: the snapshot in the credentials is the record,
their lock its lease, and what a fork or the end of the process means follows
from that (see `keyturn.errors.RefreshAfterFork`).

A process has one store object a URL, whoever asks for it
(`keyturn.client.shelf`). All its coroutines run on keyturn's loop.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import PurePath
from typing import Protocol, Self

from keyturn.client.record import Record, Version
from keyturn.errors import ConfigurationError, MissingExtra

Changed = Callable[[Version | None], None]
RELEASED: Version = ("", -1)  # what is told of a lease that is free again


@dataclass(frozen=True, slots=True)
class Reading:
    """A record as it is, None where the name has none, and the store's time in POSIX seconds."""

    record: Record | None
    now: float


class Lease(Protocol):
    """The right to refresh one name. It ends with its holder, or when its time is up."""

    @property
    def held(self) -> bool:
        """Tell whether this process still holds it, as far as it knows; no I/O."""
        ...

    async def release(self) -> None:
        """Give it up, and tell who watches the name. Never raises; releasing twice is allowed."""
        ...


class TokenStore(Protocol):
    """One record and one lease a name, for all processes that open the same URL.

    Every method raises TokenStoreUnavailable where the store does not answer
    (its time-outs are short: a few seconds), and RefreshMisconfigured where
    it never will: a wrong password, a file that cannot be written, a record
    that is damaged. Neither text shows the URL, which may hold a password.
    """

    notifies: bool
    """Whether `watch` works: whether other processes learn of a change at once."""

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return a store, without I/O. Raises ConfigurationError for a URL that cannot work."""
        ...

    async def read(self, name: str) -> Reading:
        """Return the record as it was last written (never from a replica)."""
        ...

    async def write(
        self, name: str, record: Record, *, over: Version | None, under: Lease | None = None
    ) -> bool:
        """Write the record in one atomic step, if what is there now has the version `over` (None: nothing).

        With `under`, only if that lease is still held at this moment. Tell
        whether it was written. It is durable when this returns, as far as the
        store's own settings go; who watches the name is told.
        """
        ...

    async def try_lease(self, name: str, seconds: float) -> Lease | None:
        """Return the lease of a name, None if anybody holds it, another caller in this process included.

        It dies with this process. Where a store cannot see that, the lease
        ends after `seconds`, and is renewed until then as long as this
        process runs.
        """
        ...

    def watch(self, name: str, changed: Changed) -> None:
        """Have `changed(version)` called on keyturn's loop when anybody, in any process, writes the name.

        `changed(RELEASED)` says that its lease is free, `changed(None)` that
        something may have been missed, or that the record is gone. A write
        over its own version need not be told. No I/O here; an unreachable store is retried in
        the background for as long as anybody watches. One watcher may watch
        many names, and many one.
        """
        ...

    def unwatch(self, name: str, changed: Changed) -> None:
        """Undo one `watch`."""
        ...

    async def names(self) -> list[str]:
        """Return the names that have a record, sorted."""
        ...

    async def remove(self, name: str) -> bool:
        """Forget a name, its tombstone included; tell whether there was a record. Who watches is told."""
        ...

    async def aclose(self) -> None:
        """Let go of connections and files. Leases end. Closing twice is allowed; any later use opens anew."""
        ...

    def abandon(self) -> None:
        """In a forked child: close the descriptors that were inherited, and say nothing over them."""
        ...


@dataclass(frozen=True, slots=True)
class _Kind:
    module: str
    name: str
    needs: str | None = None
    extra: str | None = None


_FILE = _Kind("file", "FileStore", "filelock", "file")
_SQLITE = _Kind("sqlite", "SQLiteStore", "filelock", "sqlite")
_POSTGRES = _Kind("postgres", "PostgresStore", "psycopg", "postgres")
_REDIS = _Kind("redis", "RedisStore", "redis", "redis")
_KEYRING = _Kind("keyring", "KeyringStore", "keyring", "keyring")
_KINDS = {
    "file": _FILE,
    "sqlite": _SQLITE,
    "postgresql": _POSTGRES,
    "postgres": _POSTGRES,
    "redis": _REDIS,
    "rediss": _REDIS,
    "redis+cluster": _REDIS,
    "rediss+cluster": _REDIS,
    "redis+sentinel": _REDIS,
    "rediss+sentinel": _REDIS,
    "keyring": _KEYRING,
}


def new_store(url: str) -> TokenStore:
    """Return a store of its own for `url`, without I/O.

    Raises ConfigurationError for a URL that names none, and MissingExtra
    where what it needs is not installed. Neither text shows the URL.
    """
    given: object = url
    scheme = given.partition("://")[0] if isinstance(given, str) and "://" in given else None
    kind = None if scheme is None else _KINDS.get(scheme)
    if kind is None:
        known = ", ".join(f"{name}://" for name in ("memory", *_KINDS))
        said = "a token store is named by a URL" if scheme is None else f"there is no token store {scheme!r}"
        if isinstance(given, PurePath):
            said += ", as in store=directory.resolve().as_uri()"
        elif given is None:
            said += ", not None (is the environment variable set?)"
        elif scheme == "memory":
            said = "memory:// takes nothing after it"
        elif scheme is not None and scheme.lower() in _KINDS:
            said += "; schemes are written in lower case"
        raise ConfigurationError(f"{said}; the known ones are {known}")
    if kind.needs is not None and find_spec(kind.needs) is None:
        raise MissingExtra(f"{scheme}:// needs {kind.needs}: pip install 'keyturn[{kind.extra}]'")
    module = importlib.import_module(f"keyturn.client.token_stores.{kind.module}")
    store: TokenStore = getattr(module, kind.name).from_url(url)
    return store


def place(url: str) -> str:
    """Return what of a store's URL may be shown: no user, no password, no option.

    Only the scheme, where a character that should have been percent-encoded
    leaves open what is the password.
    """
    scheme, _, rest = url.partition("://")
    before, option = re.match(r"([^?#]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    address = before.rpartition("@")[2]
    return f"{scheme}://{'…' if '@' in option else address}"


MEMORY = "memory://"
_LONGEST_NAME = 255


def check_shared(url: str, name: str | None, *, reseed: bool, keys: object) -> None:
    """Raise ConfigurationError for arguments that a store cannot work with; see `Credentials`."""
    given: object = name
    if url == MEMORY:
        if reseed or keys is not None:
            raise ConfigurationError(
                "reseed and encryption_keys are for a shared store, as in store='file:///…'"
            )
        return
    if keys is not None and not keys:
        raise ConfigurationError(
            "encryption_keys is empty: give a key, or None to store tokens in plain text"
        )
    if given is None:
        raise ConfigurationError("a shared store knows tokens by a name: name='dashboard:alice'")
    if not isinstance(given, str) or not 0 < len(given) <= _LONGEST_NAME or not given.isprintable():
        raise ConfigurationError(f"the name is a string of 1 to {_LONGEST_NAME} printable characters")

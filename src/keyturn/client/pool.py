"""CredentialsPool: many principals behind one API, each with credentials and a flight of its own.

A back end that holds the tokens of ten thousand customers asks for one
customer's credentials by name. Whatever is in use is found again through a
weak reference, however long ago it was asked for, so that a name never has two
flights; of what is idle, the pool itself keeps the most recently used.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any
from weakref import WeakValueDictionary

from keyturn.client import events, native
from keyturn.client.carriers import Carrier
from keyturn.client.closing import Closing
from keyturn.client.credentials import Credentials
from keyturn.client.flight import Clock
from keyturn.client.grants import Function, Grant
from keyturn.client.seed import check_loader
from keyturn.client.snapshot import Snapshot
from keyturn.clocks import now
from keyturn.errors import ConfigurationError, CredentialsClosed
from keyturn.tokens import Tokens

PoolSeed = Callable[[str], Tokens | None] | Callable[[str], Awaitable[Tokens | None]]

_SECOND_CHANCES = 2
_CHANGES = {events.SignedIn, events.SignedOut, events.Refreshing, events.Adopted}


class _Pooled(Credentials):
    """Credentials that their pool holds again as soon as they have something to lose."""

    def __init__(self, hold: Callable[[Credentials], None], grant: Grant | Function, **options: Any) -> None:
        self._hold = hold
        super().__init__(grant, **options)

    def announce(self, kind: type[events.Event], snapshot: Snapshot, **facts: object) -> None:
        """Tell what happened, the pool first."""
        if kind in _CHANGES:
            self._hold(self)
        super().announce(kind, snapshot, **facts)


class CredentialsPool(Closing):
    """Credentials by name: `pool["tenant-7"]`.

    A look-up does no I/O and makes the credentials on first use; they load
    their tokens when they are first needed. May be used from any thread.

    Args:
        grant: how a new pair is bought, for all of them.
        origins: where their tokens may go.
        tokens: called with a name when its tokens are first needed:
            `(name) -> Tokens | None`, plain (on a thread of keyturn's) or
            async (on keyturn's loop). Without it, `pool[name].sign_in(tokens)`.
        most_idle: how many credentials are held though nobody uses them. What
            would be lost by leaving stays beyond that: tokens that are only
            in this process, a session that has ended (unless a shared store
            has them), a refresh in the air.
        carrier, store, reseed, encryption_keys, on_event, retry_for, clock: as
            for `Credentials`; in a shared store each has the name that it has here.

    Raises ConfigurationError for arguments that cannot work.
    """

    def __init__(
        self,
        grant: Grant | Function,
        *,
        origins: Iterable[str],
        tokens: PoolSeed | None = None,
        carrier: Carrier | None = None,
        store: str = "memory://",
        reseed: bool = False,
        encryption_keys: Sequence[str | bytes] | None = None,
        on_event: events.Callback | None = None,
        retry_for: timedelta = timedelta(seconds=30),
        clock: Clock = now,
        most_idle: int = 1000,
    ) -> None:
        if tokens is not None:
            check_loader(tokens, "name")
        bound: object = most_idle
        if isinstance(bound, bool) or not isinstance(bound, int) or bound < 0:
            raise ConfigurationError("most_idle is a number of credentials, not below 0")
        origins = origins if isinstance(origins, str) else list(origins)
        self._tokens, self._most_idle = tokens, most_idle
        self._make = functools.partial(
            _Pooled,
            self._hold,
            grant,
            origins=origins,
            carrier=carrier,
            store=store,
            reseed=reseed,
            encryption_keys=encryption_keys,
            on_event=on_event,
            retry_for=retry_for,
            clock=clock,
        )
        self._make(tokens=None, name="the first").close()  # raises now what would be wrong with it
        self._lock = native.lock()
        self._known: WeakValueDictionary[str, Credentials] = WeakValueDictionary()
        self._held: OrderedDict[str, Credentials] = OrderedDict()
        self._closed = False

    def __getitem__(self, name: str) -> Credentials:
        """Return the credentials called `name`: the same ones for as long as anybody uses them.

        Raises CredentialsClosed after `close`, ConfigurationError for what is no name.
        """
        key: object = name
        if not isinstance(key, str) or not key:
            raise ConfigurationError("the name of credentials is a non-empty string")
        with self._lock:
            if self._closed:
                raise CredentialsClosed("this pool of credentials is closed")
            credentials = self._known.get(name)
            if credentials is None:
                seed = None if self._tokens is None else functools.partial(self._tokens, name)
                credentials = self._known[name] = self._make(tokens=seed, name=name)
        self._hold(credentials)
        return credentials

    __iter__ = None  # its names are the application's to know

    def __len__(self) -> int:
        """Return how many credentials are in memory."""
        return len(self._known)

    def __repr__(self) -> str:
        return f"<CredentialsPool of {len(self)}>"

    def close(self, timeout: float | None = None) -> None:
        """Close all of them, as `Credentials.close` does; `timeout` is for each of them."""
        for credentials in self._close():
            credentials.close(timeout)

    async def aclose(self, timeout: float | None = None) -> None:
        """Await what `close` does."""
        for credentials in self._close():
            await credentials.aclose(timeout)

    def _close(self) -> list[Credentials]:
        with self._lock:
            self._closed = True
            self._held.clear()
            return list(self._known.values())

    def _hold(self, credentials: Credentials) -> None:
        """Keep the credentials, and let go of who was idle longest; who must not leave queues up again."""
        name = credentials.name
        with self._lock:
            if self._closed or name is None:
                return
            self._held[name] = credentials
            self._held.move_to_end(name)
            self._shrink()

    def _shrink(self) -> None:
        for _ in range(min(len(self._held) - self._most_idle, 1 + _SECOND_CHANCES)):
            name, credentials = self._held.popitem(last=False)
            if not credentials.is_expendable:
                self._held[name] = credentials

"""Tokens in the desktop's keyring, for command-line tools: one password a name.

The password of the user `name` under the service is the record, as JSON. A
keyring cannot list what it holds, so the names stand in an entry of their own,
under a service beside it. Nor can it compare and set, or lock: that is done
by files in a directory of the user's (`state_directory`), which hold nothing,
so this store is one user's on one machine.

The service as a whole is locked to write, since Windows moves the passwords
of a service about when one is written. A keyring may ask its user before it
answers, so a call may take long. One is made at a time, and one that nobody
waits for any more writes nothing that it has not begun to write.

A back end that keyring does not recommend is refused, above all one that
keeps passwords in plain text: `file://` is the honest name for that, and can
encrypt. So is one that does not give back what it was given.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, Self, TypeVar
from urllib.parse import unquote, urlsplit

import keyring
import keyring.errors
from keyring.backend import KeyringBackend
from keyring.backends.chainer import ChainerBackend

from keyturn import clocks
from keyturn.client.loop import on_thread
from keyturn.client.record import Record, Version
from keyturn.client.token_stores import Changed, Lease, Reading
from keyturn.client.token_stores.file_lease import FileLease, FileLeases, is_held, locked
from keyturn.client.token_stores.private_files import file_name, private_directory
from keyturn.errors import ConfigurationError, RefreshError, RefreshMisconfigured, TokenStoreUnavailable

T = TypeVar("T")

_THREAD = "keyturn-keyring"
_ANSWERS_WITHIN = 60.0  # seconds; its user may have to be asked
_WRITES_WITHIN = 20.0  # seconds that another process may take to write, for the same reason
_RECOMMENDED = 1  # the priority from which on keyring recommends a back end
_LONG = 1_000  # characters; Windows takes 1,280, and does not say so when it refuses more
_NAMES = "names"
_INSTEAD: Final = "use file:///… with encryption_keys instead"


class KeyringStore:
    """Keeps records in the user's keyring. See `TokenStore` for what its methods promise."""

    notifies = False

    def __init__(self, service: str, directory: Path) -> None:
        self._service = service
        self._directory = directory / file_name(service)
        self._leases = FileLeases(self._directory)
        self._turn = asyncio.Lock()
        self._backend: KeyringBackend | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return the store of keyring://service, without I/O.

        Raises ConfigurationError for anything else.
        """
        return cls(_service(url), state_directory() / "keyring")

    async def read(self, name: str) -> Reading:
        """Return the record as it was last written."""
        record = await self._call(lambda _: self._read(name))
        return Reading(record, clocks.now())

    async def write(
        self, name: str, record: Record, *, over: Version | None, under: Lease | None = None
    ) -> bool:
        """Write the record if what is there now has the version `over`."""
        return await self._call(partial(self._write, name, record, over, under))

    async def try_lease(self, name: str, seconds: float) -> FileLease | None:
        """Return the lease of a name, None if anybody holds it. It ends with this process, not with time."""
        return await self._leases.try_lease(name)

    def watch(self, name: str, changed: Changed) -> None:
        """Do nothing: a keyring notifies nobody."""

    def unwatch(self, name: str, changed: Changed) -> None:
        """Do nothing."""

    async def names(self) -> list[str]:
        """Return the names that have a record, sorted."""
        return await self._call(self._names)

    async def remove(self, name: str) -> bool:
        """Forget a name; tell whether there was a record."""
        return await self._call(partial(self._remove, name))

    async def aclose(self) -> None:
        """Release all leases. Nothing else is kept open."""
        await self._leases.release_all()

    def abandon(self) -> None:
        """Close, in a forked child, the lock files that were inherited."""
        self._leases.abandon()

    async def _call(self, step: Callable[[threading.Event], T]) -> T:
        """Return what `step` returns on a thread; it is given an event that tells it to write no more."""
        given_up = threading.Event()
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN):
                await self._turn.acquire()
                calling = asyncio.ensure_future(on_thread(partial(step, given_up), _THREAD))
                calling.add_done_callback(self._next)
                return await asyncio.shield(calling)
        except TimeoutError:
            raise TokenStoreUnavailable("the keyring does not answer; it may be asking its user") from None
        finally:
            given_up.set()

    def _next(self, call: asyncio.Future[T]) -> None:
        self._turn.release()  # not before: a keyring that hangs hangs one thread, and asks its user once
        if not call.cancelled():
            call.exception()

    # On threads

    def _read(self, name: str) -> Record | None:
        text = self._get(self._service, name)
        if text is None:
            return None
        record = Record.from_json(text)
        if record.name != name:
            raise RefreshMisconfigured(
                "a record in the keyring is another name's; some keyrings know no difference of case"
            )
        return record

    def _write(
        self,
        name: str,
        record: Record,
        over: Version | None,
        under: Lease | None,
        given_up: threading.Event,
    ) -> bool:
        with self._locked():
            there = self._read(name)
            if (there and there.version) != over or not is_held(under) or given_up.is_set():
                return False
            if over is None:
                self._set_index(self._index() | {name})
            self._set(self._service, name, record.to_json())
            return True

    def _remove(self, name: str, given_up: threading.Event) -> bool:
        with self._locked():
            there = self._get(self._service, name) is not None
            if there and not given_up.is_set():
                self._try(lambda backend: backend.delete_password(self._service, name))
            self._set_index(self._index() - {name})
            return there

    def _names(self, _: threading.Event) -> list[str]:
        return sorted(name for name in self._index() if self._get(self._service, name) is not None)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        private_directory(self._directory, make=True)
        with locked(self._directory / "service.lock", _WRITES_WITHIN):
            yield

    def _index(self) -> set[str]:
        """Return the names that may have a record; an index that cannot be read begins anew."""
        try:
            names: object = json.loads(self._get(_beside(self._service), _NAMES) or "[]")
        except ValueError:
            return set()
        return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()

    def _set_index(self, names: set[str]) -> None:
        if names != self._index():
            self._set(_beside(self._service), _NAMES, json.dumps(sorted(names), ensure_ascii=False))

    def _get(self, service: str, username: str) -> str | None:
        return self._try(lambda backend: backend.get_password(service, username))

    def _set(self, service: str, username: str, text: str) -> None:
        try:
            self._try(lambda backend: backend.set_password(service, username, text))
            kept = self._get(service, username) == text
        except TokenStoreUnavailable:
            if len(text) <= _LONG:
                raise
            kept = False
        if not kept:
            raise RefreshMisconfigured(
                f"the keyring did not keep {len(text)} characters; Windows's takes about 1,250: {_INSTEAD}"
            )

    def _try(self, step: Callable[[KeyringBackend], T]) -> T:
        """Return what `step` gets from the keyring, whose own errors may quote what it was given."""
        try:
            if self._backend is None:
                self._backend = _usable_backend()
            return step(self._backend)
        except RefreshError:
            raise
        except keyring.errors.KeyringLocked:
            raise TokenStoreUnavailable("the keyring is locked, and nobody has unlocked it") from None
        except Exception as error:  # noqa: BLE001 - back ends raise what the system's own libraries raise
            kind = type(error).__name__
            raise TokenStoreUnavailable(f"the keyring has failed: {kind}") from None


def state_directory() -> Path:
    """Return the directory where a program keeps what is its user's and not worth a backup.

    Raises ConfigurationError where the user has no home.
    """
    try:
        if (given := Path(os.environ.get("XDG_STATE_HOME", ""))).is_absolute():
            state = given
        elif sys.platform == "win32":
            state = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            state = Path.home() / "Library" / "Application Support"
        else:
            state = Path.home() / ".local" / "state"
    except RuntimeError:
        raise ConfigurationError(
            "keyring:// needs a place for its locks, and this user has no home: set XDG_STATE_HOME"
        ) from None
    return state / "keyturn"


def _usable_backend() -> KeyringBackend:
    """Return the back end that keyring has chosen. Raises RefreshMisconfigured where it keeps no secret."""
    try:
        backend = keyring.get_keyring()
        chosen = next(iter(backend.backends), None) if isinstance(backend, ChainerBackend) else backend
        usable = chosen is not None and chosen.priority >= _RECOMMENDED
    except Exception as error:  # noqa: BLE001 - it imports what the environment names
        kind = type(error).__name__
        raise RefreshMisconfigured(f"keyring cannot load its back end ({kind}): {_INSTEAD}") from None
    if not usable:
        raise RefreshMisconfigured(
            f"there is no keyring here that keyring recommends (see `keyring diagnose`): {_INSTEAD}"
        )
    return backend


def _beside(service: str) -> str:
    return f"{service} (names)"


def _service(url: str) -> str:
    form = "keyring://my-tool: a name for the service, percent-encoded, and nothing else"
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigurationError(f"a keyring's URL is {form}") from None
    service = unquote(parts.netloc)
    extra = parts.path.strip("/") or parts.query or parts.fragment
    if extra or not service.isprintable() or not service.strip() or service.endswith(_beside("")):
        raise ConfigurationError(f"a keyring's URL is {form}")
    return service

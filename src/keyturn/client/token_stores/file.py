"""Tokens in a directory: one JSON file a name, for the processes of one machine.

    dashboard-alice-<hash>.json      the record, mode 0600
    dashboard-alice-<hash>.json.new  the next one, while it is written
    dashboard-alice-<hash>.lease     locked by who refreshes (`file_lease`)
    dashboard-alice-<hash>.lock      locked by who writes, for a moment; holds the name

A record is replaced as a whole: the next one is written beside it, flushed to
the disk and renamed over it, so that a reader needs no lock and a full disk
harms nothing. Who writes has a lock of its own, apart from the lease: a
process that was stopped in the middle of a refresh stops no sign-out.

What a dead process left half written is removed by the next writer of the
name. The other files stay for good, empty but for the name: to unlink a file
that is locked is to have two locks.
"""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import Self
from urllib.parse import unquote_to_bytes, urlsplit

from keyturn import clocks
from keyturn.client.record import Record, Version
from keyturn.client.token_stores import Changed, Lease, Reading
from keyturn.client.token_stores.file_lease import FileLease, FileLeases, LockedFile, is_held, locked
from keyturn.client.token_stores.private_files import (
    WINDOWS,
    file_name,
    on_disk,
    open_private,
    patiently,
    private_directory,
    refusal,
    sync_directory,
)
from keyturn.errors import ConfigurationError, RefreshMisconfigured

_THREAD = "keyturn-file-store"
_LONGEST = 1024 * 1024 + 1  # a record is shorter
_OURS = re.compile(r"-[0-9a-f]{32}\.json$")


class FileStore:
    """Keeps records in a directory. See `TokenStore` for what its methods promise."""

    notifies = False

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._leases = FileLeases(directory)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return the store of file:///an/absolute/directory, without I/O.

        Raises ConfigurationError for anything else.
        """
        return cls(_directory(url))

    async def read(self, name: str) -> Reading:
        """Return the record as it was last written."""
        record = await on_disk(partial(self._read, name), _THREAD)
        return Reading(record, clocks.now())

    async def write(
        self, name: str, record: Record, *, over: Version | None, under: Lease | None = None
    ) -> bool:
        """Write the record if what is there now has the version `over`."""
        return await on_disk(partial(self._write, name, record, over, under), _THREAD)

    async def try_lease(self, name: str, seconds: float) -> FileLease | None:
        """Return the lease of a name, None if anybody holds it. It ends with this process, not with time."""
        return await self._leases.try_lease(name)

    def watch(self, name: str, changed: Changed) -> None:
        """Do nothing: a directory notifies nobody."""

    def unwatch(self, name: str, changed: Changed) -> None:
        """Do nothing."""

    async def names(self) -> list[str]:
        """Return the names that have a record, sorted, damaged ones included."""
        return await on_disk(self._names, _THREAD)

    async def remove(self, name: str) -> bool:
        """Forget a name; tell whether there was a record."""
        return await on_disk(partial(self._remove, name), _THREAD)

    async def aclose(self) -> None:
        """Release all leases. Nothing else is kept open."""
        await self._leases.release_all()

    def abandon(self) -> None:
        """Close, in a forked child, the lock files that were inherited."""
        self._leases.abandon()

    # On threads

    def _read(self, name: str) -> Record | None:
        if not private_directory(self._directory, make=False):
            return None
        text = _content(self._path(name, ".json"))
        if text is None:
            return None
        return Record.from_json(text, name)

    def _write(self, name: str, record: Record, over: Version | None, under: Lease | None) -> bool:
        private_directory(self._directory, make=True)
        text = record.to_json().encode()
        with locked(self._path(name, ".lock")) as lock:
            there = self._read(name)
            if (there and there.version) != over or not is_held(under):
                return False
            try:
                _note(lock, name)
                return self._replace(name, text, under)
            except OSError as error:
                raise refusal(error, "write a record") from error

    def _replace(self, name: str, text: bytes, under: Lease | None) -> bool:
        """Write the record's file anew as a whole; tell whether the lease was held until then."""
        path, new = self._path(name, ".json"), self._path(name, ".json.new")
        new.unlink(missing_ok=True)  # a dead writer's, for nobody else writes now
        try:
            _write_new(new, text)
            if not is_held(under):
                return False
            patiently(partial(new.replace, path))
        finally:
            new.unlink(missing_ok=True)
        sync_directory(self._directory)
        return True

    def _remove(self, name: str) -> bool:
        if not private_directory(self._directory, make=False):
            return False
        with locked(self._path(name, ".lock")):
            try:
                self._path(name, ".json.new").unlink(missing_ok=True)
                patiently(self._path(name, ".json").unlink)
                sync_directory(self._directory)
            except FileNotFoundError:
                return False
            except OSError as error:
                raise refusal(error, "remove a record") from error
        return True

    def _names(self) -> list[str]:
        if not private_directory(self._directory, make=False):
            return []
        try:
            with os.scandir(self._directory) as entries:
                files = [entry.name for entry in entries if _OURS.search(entry.name)]
        except OSError as error:
            raise refusal(error, "list its directory") from error
        return sorted(name for name in map(self._name_in, files) if name is not None)

    def _name_in(self, file: str) -> str | None:
        """Return whose record a file is, None where it has just been removed."""
        text = _content(self._directory / file)
        if text is None:
            return None
        try:
            name = Record.from_json(text).name
        except RefreshMisconfigured:
            name = (_content(self._directory / f"{file[:-5]}.lock") or b"").decode(errors="replace")
        if f"{file_name(name)}.json" != file:
            raise RefreshMisconfigured(f"in the token store's directory is a record that was moved: {file}")
        return name

    def _path(self, name: str, ending: str) -> Path:
        return self._directory / f"{file_name(name)}{ending}"


def _content(path: Path) -> bytes | None:
    """Return what is in a file, None where there is none."""
    try:
        descriptor = patiently(partial(open_private, path, os.O_RDONLY))
        with os.fdopen(descriptor, "rb") as file:
            return file.read(_LONGEST)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refusal(error, "read a record") from error


def _write_new(path: Path, text: bytes) -> None:
    """Write a file that was not there, down to the disk."""
    with os.fdopen(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _note(lock: LockedFile, name: str) -> None:
    """Write the name into its lock file, where it can be read even if the record cannot."""
    text = name.encode("utf-8", "surrogatepass")
    if os.fstat(lock.descriptor).st_size != len(text):
        os.ftruncate(lock.descriptor, 0)
        os.lseek(lock.descriptor, 0, os.SEEK_SET)
        os.write(lock.descriptor, text)


def _directory(url: str) -> Path:
    """Return the directory that a URL names."""
    form = "file:///var/lib/app/tokens: three slashes and the whole path of a directory, percent-encoded"
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigurationError(f"this file:// URL cannot be read; write {form}") from None
    if parts.netloc.startswith("~") or parts.path.startswith("/~"):
        raise ConfigurationError(
            "no ~ is expanded in a file:// URL: write the whole path, as in "
            "(pathlib.Path.home() / 'tokens').as_uri()"
        )
    path = os.fsdecode(unquote_to_bytes(parts.path))
    if parts.netloc or parts.query or parts.fragment or not path.strip("/") or "\0" in path:
        raise ConfigurationError(f"a file store's URL is {form}; it has no host, no query and no fragment")
    return Path(re.sub(r"^/(?=[A-Za-z]:)", "", path) if WINDOWS else path)

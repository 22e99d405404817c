"""Leases that are locks of the operating system, on files that are never unlinked.

Such a lock ends with the process that holds it, however it ends: the kernel
closes its descriptors. The lock itself is filelock's, on a descriptor of ours:
no other kind stands in where a file system has none, for what merely looks
like a lock would let two processes spend one token. There the store says that
it cannot work.

A lock belongs to an open file, not to a process, and every try opens the file
anew; so it keeps out the others of this process as well. Three things follow:

- A forked child shares the open files of its parent. It closes them without
  unlocking, which would unlock them in the parent too. No fork can happen
  while a file is opened or closed, so none is overlooked.
- A program that is started inherits none of them.
- Who deletes a lock file lets the next open another one, and lock that. So
  a lock counts only if its file is still the one that the path names.

A lock file is the user's own, mode 0600. Its size does not matter to the lock.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from keyturn.client import native
from keyturn.client.token_stores import Lease
from keyturn.client.token_stores.private_files import (
    file_name,
    is_file_at,
    on_disk,
    open_private,
    private_directory,
    refusal,
)
from keyturn.clocks import monotonic
from keyturn.errors import RefreshError, TokenStoreUnavailable

_TRIES = 20
_WAITS_FOR_WRITER = 2.0  # seconds

_guard = native.lock()
_open: set[LockedFile] = set()


class LockedFile:
    """An open file, and the exclusive lock on it. Blocking; for any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._closing = False
        with _guard:
            self.descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
            _open.add(self)

    @classmethod
    def try_to(cls, path: Path) -> LockedFile | None:
        """Return the locked file at `path`, None if anybody has locked it."""
        try:
            for _ in range(_TRIES):
                file = cls(path)
                try:
                    if not filelock.lock_descriptor(file.descriptor, blocking=False):
                        file.close()
                        return None
                    if file.is_in_place():
                        return file
                except BaseException:
                    file.close()
                    raise
                file.close()
        except OSError as error:
            raise refusal(error, "lock a file") from error
        raise TokenStoreUnavailable("the token store cannot lock a file: somebody replaces it all the time")

    @property
    def is_locked(self) -> bool:
        """Tell whether this process still has it."""
        return not self._closing

    def is_in_place(self) -> bool:
        """Tell whether it is still the file that its path names."""
        return is_file_at(self.descriptor, self._path)

    def close(self) -> None:
        """Unlock and close it. Never raises; closing twice is allowed."""
        with _guard:
            if self._closing:
                return
            self._closing = True
        # Without this a child that a library forked, past Python, would keep it.
        with suppress(OSError):
            filelock.unlock_descriptor(self.descriptor)
        with _guard:
            if self in _open:
                _open.discard(self)
                with suppress(OSError):
                    os.close(self.descriptor)

    def leave_to_parent(self) -> None:
        """Close it in a forked child: the parent's lock stays."""
        self._closing = True
        if self in _open:
            _open.discard(self)
            with suppress(OSError):
                os.close(self.descriptor)


class FileLease:
    """The right to refresh one name, for as long as a file is locked."""

    def __init__(self, file: LockedFile) -> None:
        self._file = file

    @property
    def held(self) -> bool:
        """Tell whether this process still holds it; no I/O."""
        return self._file.is_locked

    def is_in_place(self) -> bool:
        """Tell whether it is held and its file was not taken away; on a thread, for this is I/O."""
        try:
            return self.held and self._file.is_in_place()
        except OSError:
            return False

    async def release(self) -> None:
        """Give it up. Never raises; releasing twice is allowed."""
        if self.held:
            try:
                await on_disk(self._file.close, "keyturn-lease")
            except TokenStoreUnavailable:
                return  # as soon as the disk answers
            except RefreshError:  # no thread is to be had
                self._file.close()

    def drop(self) -> None:
        """Close what a forked child inherited of it."""
        self._file.leave_to_parent()


def is_held(lease: Lease | None) -> bool:
    """Tell whether a write may go on under a lease, if there is one: held, and its file is in its place."""
    return lease is None or (lease.is_in_place() if isinstance(lease, FileLease) else lease.held)


class FileLeases:
    """The leases of the names in one directory that this process holds, a lock file a name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._given: set[FileLease] = set()

    def path(self, name: str) -> Path:
        """Return where the lock file of a name is."""
        return self._directory / f"{file_name(name)}.lease"

    async def try_lease(self, name: str) -> FileLease | None:
        """Return the lease of a name, None if anybody holds it; the directory is made where there is none.

        Raises RefreshMisconfigured and TokenStoreUnavailable.
        """
        attempt = _Attempt(self._directory, self.path(name))
        try:
            file = await on_disk(attempt.run, "keyturn-lease")
        except BaseException:
            attempt.call_off()
            raise
        if file is None:
            return None
        self._given = {lease for lease in self._given if lease.held}
        lease = FileLease(file)
        self._given.add(lease)
        return lease

    async def release_all(self) -> None:
        """Release all of them."""
        given, self._given = self._given, set()
        await asyncio.gather(*(lease.release() for lease in given))

    def abandon(self) -> None:
        """Forget all of them in a forked child, which holds none."""
        for lease in self._given:
            lease.drop()
        self._given = set()


class _Attempt:
    """One try for a lock on a thread, which leaves nothing locked if nobody waits for it any more."""

    def __init__(self, directory: Path, path: Path) -> None:
        self._directory, self._path = directory, path
        self._guard = native.lock()
        self._file: LockedFile | None = None
        self._called_off = False

    def run(self) -> LockedFile | None:
        private_directory(self._directory, make=True)
        file = LockedFile.try_to(self._path)
        with self._guard:
            self._file = file
            unwanted = self._called_off
        if unwanted and file is not None:
            file.close()
        return file

    def call_off(self) -> None:
        with self._guard:
            self._called_off = True
            file = self._file
        if file is not None:
            file.close()


@contextmanager
def locked(path: Path, seconds: float | None = None) -> Iterator[LockedFile]:
    """Hold the lock on the file at `path` for a moment; on a thread, for this blocks.

    Raises TokenStoreUnavailable where others hold it for `seconds`, by default 2.
    """
    ends = monotonic() + (_WAITS_FOR_WRITER if seconds is None else seconds)
    while (file := LockedFile.try_to(path)) is None:
        if monotonic() > ends:
            raise TokenStoreUnavailable(
                "another process has been writing to the token store for seconds, or was stopped while it did"
            )
        time.sleep(random.uniform(0.001, 0.004))  # noqa: S311 - so that they do not all try at once
    try:
        yield file
    finally:
        file.close()


def _before_fork() -> None:
    _guard.acquire()


def _after_fork_in_parent() -> None:
    _guard.release()


def _after_fork_in_child() -> None:
    global _guard
    _guard = native.lock()
    for file in list(_open):
        file.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )

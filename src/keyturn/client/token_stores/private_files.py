"""Files that are one user's own: how they are named, opened, replaced, and what their errors mean.

A directory that other users may write to is refused, as ssh refuses a key
file, for they could put their own tokens there; so is a record that they may
write. A record that they may only read is made private and goes on being
used, with a warning in the log: its tokens may be known already, and ending
the session there and then would help nobody. No symbolic link is followed to
a file, and what root writes belongs to whom the directory belongs to, or the
application could not open it afterwards.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
import re
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from keyturn.client.loop import on_thread
from keyturn.clocks import monotonic
from keyturn.errors import RefreshMisconfigured, TokenStoreUnavailable

T = TypeVar("T")

logger = logging.getLogger("keyturn.client")
WINDOWS: Final = sys.platform == "win32"
_FLAGS: Final = (
    getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a pipe in the place of a file must not hold anybody up
    | getattr(os, "O_BINARY", 0)
)
_NEVER: Final = {
    errno.EACCES: "this user may not",
    errno.EPERM: "this user may not",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "what should be a directory is a file",
    errno.EISDIR: "what should be a file is a directory",
    errno.ELOOP: "it is a symbolic link, and none is followed",
    errno.ENXIO: "it is not a file",
    errno.ENAMETOOLONG: "the path is too long",
    errno.EINVAL: "the file system does not take it",
    errno.ENOSYS: "the file system has no such locks",
    errno.EOPNOTSUPP: "the file system has no such locks",
    errno.ENOTSUP: "the file system has no such locks",
    errno.ENOLCK: "the file system has no such locks",
}
# What file systems say that do not flush directories, or not for who may not list them.
_NO_SUCH_WAY: Final = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF, errno.EACCES}
_LONGEST_SLUG = 40
_LONGEST = 10.0  # seconds, for a disk that does not answer
_PATIENCE = 1.0  # seconds that another process may have a file open on Windows


async def on_disk(work: Callable[[], T], thread: str) -> T:
    """Return what `work` returns, run on a daemon thread of that name; a disk that hangs holds up nobody.

    Raises what it raises, and TokenStoreUnavailable where it takes too long.
    """
    try:
        async with asyncio.timeout(_LONGEST):
            return await on_thread(work, thread)
    except TimeoutError:
        raise TokenStoreUnavailable("the token store does not answer: its disk may be stuck") from None


def file_name(name: str) -> str:
    """Return the file name of a name, without an ending: what can be read of it, and a hash of it all.

    It is in lower case and ASCII, so no two names share a file on a file
    system that ignores case or composes accents, and none leaves its directory.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_LONGEST_SLUG] or "name"
    return f"{slug}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def private_directory(path: Path, *, make: bool) -> bool:
    """Tell whether the directory is there, and make it and its parents, mode 0700, where asked to.

    Raises RefreshMisconfigured where other users may write to it or own it,
    and what `refusal` returns where it cannot be made.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        if not make:
            return False
        try:
            _make(path)
            status = path.stat()
        except OSError as error:
            raise refusal(error, "make its directory") from error
    except OSError as error:
        raise refusal(error, "use its directory") from error
    if not stat.S_ISDIR(status.st_mode):
        raise RefreshMisconfigured("the token store cannot use its directory: it is not one")
    _check(status, "the token store's directory", "chmod go-w it, or name a directory inside of it")
    return True


def open_private(path: Path, flags: int) -> int:
    """Return a descriptor of a regular file that is this user's own; with O_CREAT it is made, mode 0600.

    Raises OSError, and RefreshMisconfigured for what should not be trusted.
    """
    descriptor = os.open(path, flags | _FLAGS, 0o600)
    try:
        status = os.fstat(descriptor)
        _check(status, "a file of the token store", "take their right to write away, and look who used it")
        if not WINDOWS:
            _make_private(descriptor, status, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_file_at(descriptor: int, path: Path) -> bool:
    """Tell whether an open file is still the one that its path names."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def sync_directory(path: Path) -> None:
    """Make what was renamed or removed in a directory outlast a power cut, where the system has a way to."""
    if WINDOWS:
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_SUCH_WAY:
            raise


def patiently(step: Callable[[], T]) -> T:
    """Return `step()`, on Windows tried again while another process has the file open."""
    ends = monotonic() + _PATIENCE
    while True:
        try:
            return step()
        except PermissionError:
            if not WINDOWS or monotonic() > ends:
                raise
        time.sleep(0.005)


def refusal(error: OSError, what: str) -> RefreshMisconfigured | TokenStoreUnavailable:
    """Return what an error of the operating system means for a token store that was to do `what`.

    A full disk may have room again; a directory that may not be written to stays one.
    """
    if error.errno in _NEVER:
        return RefreshMisconfigured(f"the token store cannot {what}: {_NEVER[error.errno]}")
    said = os.strerror(error.errno) if error.errno is not None else type(error).__name__
    return TokenStoreUnavailable(f"the token store cannot {what} now: {said}")


def _make(path: Path) -> None:
    """Make a directory and its parents, all of them this user's own whatever the umask."""
    if not path.parent.is_dir():
        _make(path.parent)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        path.chmod(0o700)
        sync_directory(path.parent)


def _check(status: os.stat_result, what: str, way_out: str) -> None:
    """Raise RefreshMisconfigured for what is no file or directory, or what others may have written to."""
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise RefreshMisconfigured(f"{what} is not a regular one")
    if WINDOWS:
        return
    if status.st_mode & 0o022:
        raise RefreshMisconfigured(f"other users may write to {what}: {way_out}")
    if os.geteuid() not in (0, status.st_uid) and status.st_uid != 0:
        raise RefreshMisconfigured(f"{what} belongs to another user: use one of your own")


def _make_private(descriptor: int, status: os.stat_result, path: Path) -> None:
    """Give a file the mode 0600, and to the owner of its directory what root made there."""
    if stat.S_IMODE(status.st_mode) != 0o600:
        if status.st_mode & 0o044 and status.st_size:
            logger.warning("keyturn: other users could read a file of the token store, %s", path.name)
        with suppress(OSError):
            os.fchmod(descriptor, 0o600)
    if os.geteuid() == 0 == status.st_uid:
        directory = path.parent.stat()
        if directory.st_uid != 0:
            with suppress(OSError):
                os.fchown(descriptor, directory.st_uid, directory.st_gid)

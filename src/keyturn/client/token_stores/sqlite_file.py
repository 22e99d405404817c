"""The SQLite file of a token store: how it is opened and laid out, and what its errors mean.

Mode 0600, write-ahead logging, every commit flushed to the disk. The file
says in its header that it is keyturn's, and in which version: another
program's database is left alone, and so is one of a newer keyturn.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from keyturn.client import native
from keyturn.client.token_stores.private_files import WINDOWS, open_private, refusal
from keyturn.errors import RefreshMisconfigured, TokenStoreUnavailable

_VERSION: Final = 1
_APPLICATION: Final = 0x6B745F74  # "kt_t"
_SCHEMA: Final = "CREATE TABLE tokens (name TEXT NOT NULL PRIMARY KEY, record TEXT NOT NULL)"
_MAY_PASS: Final = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
}
_making = native.lock()


class Connection(sqlite3.Connection):
    """A connection that never waits, and that may be used by one thread after the other."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, timeout=0, isolation_level=None, check_same_thread=False)
        # What is no UTF-8 is then a damaged record, and not an error of SQLite's that quotes it.
        self.text_factory = bytes
        self._path = path
        self._file = path.stat()

    def is_in_place(self) -> bool:
        """Tell whether the open file is still the one that its path names."""
        try:
            return os.path.samestat(self._file, self._path.stat())
        except OSError:
            return False

    def __del__(self) -> None:
        """Close it without a word: a program may end without closing its stores."""
        with suppress(sqlite3.Error):
            self.close()


def opened(path: Path) -> Connection:
    """Return a connection to the file at `path`, which is made, and laid out, where there is none.

    Raises RefreshMisconfigured, TokenStoreUnavailable, and sqlite3.Error,
    which `meaning` translates.
    """
    with _making:
        _make_private(path)
    try:
        connection = Connection(path)
    except OSError as error:
        raise refusal(error, "use its file") from None
    try:
        connection.execute("PRAGMA synchronous = FULL")
        if not _is_laid_out(connection):
            connection.execute("PRAGMA journal_mode = WAL")
            _lay_out(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether another process is in the way, for a moment."""
    return _code(error) == sqlite3.SQLITE_BUSY


def is_read_only(error: sqlite3.Error) -> bool:
    """Tell whether the file was read-only when it was opened, by whichever connection of this process."""
    return _code(error) == sqlite3.SQLITE_READONLY


def meaning(error: sqlite3.Error, path: Path) -> RefreshMisconfigured | TokenStoreUnavailable:
    """Return what an error of SQLite's means: whether it may pass."""
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    code = _code(error)
    may_pass = code in _MAY_PASS
    if code == sqlite3.SQLITE_CANTOPEN:  # which it says of a user's rights and of too many open files alike
        may_pass = os.access(path, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK)
    if may_pass:
        return TokenStoreUnavailable(f"the token store does not answer ({name})")
    return RefreshMisconfigured(f"the token store's file cannot be used ({name})")


def start_anew_in_child() -> None:
    """Forget, in a forked child, who was making a file."""
    global _making
    _making = native.lock()


def _make_private(path: Path) -> None:
    """Make the file, mode 0600.

    One that is there is not opened: to close it would drop the locks that
    other connections of this process have on it.
    """
    try:
        try:
            os.close(open_private(path, os.O_RDWR | os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            mode = path.stat().st_mode
            if not stat.S_ISREG(mode):
                raise RefreshMisconfigured("the token store's file is not a regular file") from None
            if not WINDOWS and mode & 0o022:
                raise RefreshMisconfigured(
                    "other users may write to the token store's file: chmod 600 it, and look who used it"
                ) from None
            if not WINDOWS and mode & 0o044:
                path.chmod(0o600)
    except FileNotFoundError:
        raise RefreshMisconfigured("the directory of the token store's file does not exist") from None
    except OSError as error:
        raise refusal(error, "use its file") from None


def _is_laid_out(connection: Connection, begin: str = "BEGIN") -> bool:
    """Tell whether the file is ours, in a transaction that is left open where it is empty."""
    connection.execute(begin)
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application == _APPLICATION and version > _VERSION:
        raise RefreshMisconfigured("the token store's file was made by a newer keyturn")
    if application != _APPLICATION and (application, version, tables) != (0, 0, 0):
        raise RefreshMisconfigured("the token store's file is another program's: name one of its own")
    if begin == "BEGIN" or application == _APPLICATION:
        connection.execute("COMMIT")
    return bool(application == _APPLICATION)


def _lay_out(connection: Connection) -> None:
    """Make the table, unless somebody else has just done so."""
    if not _is_laid_out(connection, "BEGIN IMMEDIATE"):
        connection.execute(_SCHEMA)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.execute("COMMIT")


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF

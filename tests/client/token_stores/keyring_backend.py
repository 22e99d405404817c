"""A keyring whose passwords are files, so that several processes share it. It locks nothing by itself."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError


class FileKeyring(KeyringBackend):
    """Keeps passwords in the directory that KEYRING_PROPERTY_DIRECTORY names."""

    priority = 5.0
    directory: str

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # sets `directory`

    def get_password(self, service: str, username: str) -> str | None:
        """Return a password."""
        try:
            return self._path(service, username).read_text("utf-8")
        except FileNotFoundError:
            return None

    def set_password(self, service: str, username: str, password: str) -> None:
        """Keep a password."""
        path = self._path(service, username)
        new = path.with_suffix(f".{os.getpid()}")
        new.write_text(password, "utf-8")
        new.replace(path)

    def delete_password(self, service: str, username: str) -> None:
        """Forget a password."""
        try:
            self._path(service, username).unlink()
        except FileNotFoundError:
            raise PasswordDeleteError("no such password") from None

    def _path(self, service: str, username: str) -> Path:
        key = json.dumps([service, username]).encode()
        return Path(self.directory) / f"{hashlib.sha256(key).hexdigest()}.password"

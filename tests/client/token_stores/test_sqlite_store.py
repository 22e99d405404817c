"""SQLite as a token store: the contract, and what a file of SQLite's adds to it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.client.token_stores.contract import TokenStoreContract


class TestSQLiteStore(TokenStoreContract):
    """The contract, on a file of each test's own."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        """Return the URL of a file that does not exist yet."""
        return f"sqlite:///{tmp_path}/tokens.db"

    def damage(self, url: str, name: str, text: str) -> None:
        """Put `text` where the record of a name is."""
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        with connection:
            connection.execute("UPDATE tokens SET record = ? WHERE name = ?", (text, name))
        connection.close()

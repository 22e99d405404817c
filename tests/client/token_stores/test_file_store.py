"""Tokens in a directory: the contract, and what only a file store must care for."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyturn.client.token_stores.private_files import file_name
from tests.client.token_stores.contract import TokenStoreContract


class TestFileStore(TokenStoreContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        """Return the URL of a directory that is not there yet."""
        return (tmp_path / "new" / "a directory").as_uri()

    def damage(self, url: str, name: str, text: str) -> None:
        """Put `text` where the record of a name is."""
        directory = Path.from_uri(url) if hasattr(Path, "from_uri") else Path(url[7:].replace("%20", " "))
        (directory / f"{file_name(name)}.json").write_text(text, "utf-8")

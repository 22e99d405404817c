"""Tokens in the keyring: the contract, and the keyrings that cannot keep a token."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import keyring
import keyring.core
import pytest

from tests.client.token_stores.contract import TokenStoreContract
from tests.client.token_stores.keyring_backend import FileKeyring

SERVICE = "keyturn tests"


class TestKeyringStore(TokenStoreContract):
    garbage = (*TokenStoreContract.garbage, "\n")

    @pytest.fixture
    def environment(self, tmp_path: Path) -> Mapping[str, str]:
        """Return what has keyring choose our back end, and the locks lie in a directory of the test's."""
        passwords = tmp_path / "passwords"
        passwords.mkdir()
        return {
            "PYTHON_KEYRING_BACKEND": f"{FileKeyring.__module__}.FileKeyring",
            "KEYRING_PROPERTY_DIRECTORY": str(passwords),
            "XDG_STATE_HOME": str(tmp_path / "state"),
        }

    @pytest.fixture
    def url(self, environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
        """Return the URL of a service in a keyring of the test's own."""
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(keyring.core, "_keyring_backend", None)
        return f"keyring://{SERVICE.replace(' ', '%20')}"

    def damage(self, url: str, name: str, text: str) -> None:
        """Put `text` where the record of a name is."""
        keyring.set_password(SERVICE, name, text)

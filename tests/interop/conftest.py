"""What every test with a foreign library needs: loopback that no proxy of the machine stands before."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def loopback_is_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the libraries, which look for proxies by themselves, from finding one for loopback."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

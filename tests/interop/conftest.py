"""What every test with a foreign library needs: loopback without a proxy before it, and a patient server."""

from __future__ import annotations

import pytest

from keyturn.testing import StrictServer
from tests.interop.faults import LIVES


@pytest.fixture(autouse=True)
def loopback_is_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the libraries, which look for proxies by themselves, from finding one for loopback."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server(strict_server: StrictServer) -> StrictServer:
    """The strict server, whose tokens live longer than any library's leeway."""
    strict_server.configure(ttl=LIVES)
    return strict_server

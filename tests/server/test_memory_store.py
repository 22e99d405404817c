"""The memory store, the reference: it keeps the contract of all stores."""

from __future__ import annotations

import os
import threading

import pytest

from keyturn.errors import ConfigurationError
from keyturn.server.session_stores import SessionStore, open_store
from keyturn.server.session_stores.memory import MemoryStore

from .clock import Clock
from .store_contract import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self, clock: Clock) -> SessionStore:
        return MemoryStore(clock=clock)


def test_it_opens_by_its_url() -> None:
    assert isinstance(open_store("memory://"), MemoryStore)
    with pytest.raises(ConfigurationError):
        open_store("memory://host/path")


@pytest.mark.parametrize("url", ["redis://localhost", "mysql://u:pa55word@db/x", "sessions.db", "", "://"])
def test_an_unknown_scheme_names_the_known_ones_and_shows_no_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="memory://, sqlite://") as caught:
        open_store(url)
    assert "pa55word" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_while_another_thread_writes_does_not_hang() -> None:
    store = MemoryStore()
    store._lock.acquire()
    try:
        child = os.fork()
        if child == 0:
            done = threading.Thread(target=store.purge, daemon=True)
            done.start()
            done.join(10)
            os._exit(1 if done.is_alive() else 0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    finally:
        store._lock.release()

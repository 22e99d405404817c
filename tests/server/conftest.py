"""A clock, a store on it and issuers on both."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest

from keyturn.server import Issuer
from keyturn.server.session_stores.memory import MemoryStore

from .clock import Clock

SECRET = "a secret of quite sufficient length, that is"

MakeIssuer: TypeAlias = Callable[..., Issuer]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture
def make_issuer(clock: Clock, store: MemoryStore) -> MakeIssuer:
    def make(**arguments: object) -> Issuer:
        settings: dict[str, object] = {"secret": SECRET, "store": store, "now": clock}
        return Issuer(**settings | arguments)  # type: ignore[arg-type]

    return make


@pytest.fixture
def issuer(make_issuer: MakeIssuer) -> Issuer:
    return make_issuer()

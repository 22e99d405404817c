"""Fixtures: a store, a name in it, and workers that share it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import keyring
import pytest

from keyturn.testing import StrictServer
from tests.client.token_stores.conftest import postgres_url, redis_url
from tests.client.token_stores.keyring_backend import FileKeyring
from tests.processes import servers
from tests.processes.fleet import Fleet, Yard
from tests.processes.stores import KINDS, Shared, a_prefix, a_table

__all__ = ["postgres_url", "redis_url"]

if sys.platform == "win32":
    collect_ignore_glob = ["test_*.py"]  # SIGSTOP, SIGKILL and forks


@pytest.fixture(params=KINDS)
def store_url(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    keyring_environment: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """A new store of each kind, gone afterwards. Skips, or in CI fails, where its server is missing.

    A test that is for other kinds says so: `parametrize("store_url", EVERY_KIND, indirect=True)`.
    """
    kind: str = request.param
    with ExitStack() as stack:
        if kind == "postgresql":
            yield stack.enter_context(a_table(request.getfixturevalue("postgres_url")))
        elif kind == "redis":
            yield stack.enter_context(a_prefix(request.getfixturevalue("redis_url")))
        elif kind == "keyring":
            for variable, value in keyring_environment.items():
                monkeypatch.setenv(variable, value)
            monkeypatch.setattr(keyring.core, "_keyring_backend", None)
            yield f"keyring://{tmp_path.name}"
        else:
            yield f"file://{tmp_path}/tokens" if kind == "file" else f"sqlite:///{tmp_path}/tokens.db"


@pytest.fixture
def shared(store_url: str) -> Shared:
    """A name in a new store of each kind."""
    return Shared(store_url)


@pytest.fixture(scope="session")
def own_redis() -> Iterator[servers.OwnRedis]:
    """A Redis for tests that stop it; each finds it running."""
    with servers.own_redis() as server:
        yield server


@pytest.fixture(scope="session")
def own_postgres() -> Iterator[servers.OwnPostgres]:
    """A PostgreSQL for tests that stop it; each finds it running."""
    with servers.own_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def keyring_environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What has keyring choose a back end that all workers share, and its locks lie beside it."""
    directory = tmp_path_factory.mktemp("keyring")
    return {
        "PYTHON_KEYRING_BACKEND": f"{FileKeyring.__module__}.FileKeyring",
        "KEYRING_PROPERTY_DIRECTORY": str(directory),
        "XDG_STATE_HOME": str(directory / "state"),
    }


@pytest.fixture(scope="session")
def yard(keyring_environment: Mapping[str, str]) -> Iterator[Yard]:
    """Where workers wait for the next test; all must end without a complaint."""
    yard = Yard(keyring_environment)
    yield yard
    yard.close()


@pytest.fixture
def fleet(yard: Yard, strict_server: StrictServer, shared: Shared) -> Iterator[Fleet]:
    """Workers whose credentials lie in the store, for the strict server."""
    with Fleet(yard, url=strict_server.url, store=shared.url, name=shared.name) as fleet:
        yield fleet
        strict_server.release()


@pytest.fixture
def lone_fleet(yard: Yard, strict_server: StrictServer) -> Iterator[Fleet]:
    """Workers whose credentials live in their own memory."""
    with Fleet(yard, url=strict_server.url, store="memory://", name="alice") as fleet:
        yield fleet
        strict_server.release()

"""Fixtures for pytest: write `pytest_plugins = ["keyturn.testing.pytest_plugin"]` in a conftest.

`strict_server` is a strict server, as new in each test; `other_server` is one
on a second origin. Each is one process a test run, or one a worker under
xdist, and starts when a test first asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from keyturn.testing.handle import StrictServer


@pytest.fixture(scope="session")
def strict_server_process() -> Iterator[StrictServer]:
    """The process behind `strict_server`."""
    with StrictServer() as server:
        yield server


@pytest.fixture
def strict_server(strict_server_process: StrictServer) -> StrictServer:
    """A strict server without sessions, counts or faults, with the default settings."""
    strict_server_process.reset()
    return strict_server_process


@pytest.fixture(scope="session")
def other_server_process() -> Iterator[StrictServer]:
    """The process behind `other_server`."""
    with StrictServer() as server:
        yield server


@pytest.fixture
def other_server(other_server_process: StrictServer) -> StrictServer:
    """A second strict server, as new, on another origin than `strict_server`."""
    other_server_process.reset()
    return other_server_process

"""A second strict server, for tests of what may not leave its origin. keyturn's own plug-in has the first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from keyturn.testing import StrictServer


@pytest.fixture(scope="session")
def _other_server_process() -> Iterator[StrictServer]:
    with StrictServer() as server:
        yield server


@pytest.fixture
def other_server(_other_server_process: StrictServer) -> StrictServer:
    """A strict server, as new, on another origin than `strict_server`."""
    _other_server_process.reset()
    return _other_server_process

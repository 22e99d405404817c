"""keyturn's fixtures for pytest, which finds them where keyturn is installed; `-p no:keyturn` turns them off.

`strict_server` is a strict authorization and API server: one process a test
run, or one a worker under xdist, started when a test first asks for it, and
as new in each test. `mock_exchange` is a token end point without process or
socket, new in each test.

This module lies beside the package, and its fixtures import what they need,
so that a test run that uses none of them never imports keyturn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from keyturn.testing import MockTransport, StrictServer


@pytest.fixture(scope="session")
def _strict_server_process() -> Iterator[StrictServer]:
    """The process behind `strict_server`."""
    from keyturn.testing import StrictServer

    with StrictServer() as server:
        yield server


@pytest.fixture
def strict_server(_strict_server_process: StrictServer) -> StrictServer:
    """A strict server without sessions, counts or faults, with the default settings."""
    _strict_server_process.reset()
    return _strict_server_process


@pytest.fixture
def mock_exchange() -> Iterator[MockTransport]:
    """A strict token end point in memory, for a grant's `http=mock_exchange.client`."""
    from keyturn.testing import MockTransport

    mock = MockTransport()
    yield mock
    mock.release()

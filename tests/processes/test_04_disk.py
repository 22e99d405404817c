"""The disk is full, or the store's files are read-only: that is found before the exchange, not after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from keyturn.testing import StrictServer
from tests.processes.disks import Disk, limit, read_only, tmpfs
from tests.processes.fleet import Fleet, together
from tests.processes.handles import Started
from tests.processes.stores import Shared
from tests.waiting import until

pytestmark = pytest.mark.processes

SOON = 0.5  # seconds, for which a refresh is tried while there is no room
KINDS = {"file": "file://{}", "sqlite": "sqlite:///{}/tokens.db"}


@pytest.fixture(params=["tmpfs", "limit"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """A disk of each kind."""
    with {"tmpfs": tmpfs, "limit": limit}[request.param](tmp_path / "disk") as one:
        one.path.mkdir(mode=0o700)
        yield one


@pytest.fixture(params=KINDS)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of each kind in files, on the disk where there is one."""
    if "disk" in request.fixturenames:
        directory = request.getfixturevalue("disk").path
    else:
        directory = tmp_path / "tokens"
        directory.mkdir(mode=0o700)
    return KINDS[request.param].format(directory)


def test_a_full_disk_is_found_before_the_exchange_and_nobody_waits_for_it_with_valid_tokens(
    strict_server: StrictServer, disk: Disk, fleet: Fleet, shared: Shared
) -> None:
    crew = fleet.crew(2, tokens=strict_server.sign_in(), retry_for=SOON)
    warm(crew)
    disk.fill(crew)
    assert together([worker.get(10) for worker in crew]) == {"200": 20}
    strict_server.expire()

    assert together([worker.get(10) for worker in crew]) == {"TokenStoreUnavailable": 20}
    assert strict_server.stats.refreshes == 0
    disk.free(crew)

    mended(strict_server, shared, crew)


def test_tokens_that_are_due_are_used_while_the_disk_is_full_and_renewed_afterwards(
    strict_server: StrictServer, disk: Disk, fleet: Fleet, shared: Shared
) -> None:
    crew = fleet.crew(2, tokens=strict_server.sign_in(ttl=40.0), lifetime=250.0, retry_for=SOON)
    warm(crew)
    disk.fill(crew)

    assert together([worker.get(10) for worker in crew]) == {"200": 20}
    for worker in crew:
        worker.saw("Failed")
        assert worker.events("Failed")[0]["cause"] == "TokenStoreUnavailable"
    assert together([worker.get(10) for worker in crew]) == {"200": 20}
    assert strict_server.stats.refreshes == 0
    disk.free(crew)

    for worker in crew:
        until(lambda worker=worker: renewed(worker))  # type: ignore[misc]
    mended(strict_server, shared, crew)


def test_a_disk_that_fills_up_during_the_exchange_costs_nobody_the_session(
    strict_server: StrictServer, disk: Disk, fleet: Fleet, shared: Shared
) -> None:
    crew = fleet.crew(2, tokens=strict_server.sign_in(ttl=-1.0), retry_for=SOON, timeout=SOON)
    holder, other = crew
    holder.pause("saving")
    asked = holder.get(10)
    holder.paused()
    disk.fill(crew)
    holder.go_on()

    assert asked.outcomes == {"200": 10}
    assert holder.get(10).outcomes == {"200": 10}
    holder.saw("SaveFailed")
    assert holder.events("SaveFailed")[0]["cause"] == "TokenStoreUnavailable"
    assert other.get(10).outcomes == {"TokenStoreUnavailable": 10}
    assert shared.is_leased(), "the lease is kept with the pair"
    disk.free(crew)

    mended(strict_server, shared, crew)


def test_files_that_are_read_only_are_found_before_the_exchange(
    strict_server: StrictServer, fleet: Fleet, shared: Shared, tmp_path: Path
) -> None:
    knows, comes = fleet.crew(2, tokens=strict_server.sign_in(), retry_for=SOON)
    warm([knows, comes])
    with read_only(tmp_path / "tokens"):
        comes.open(**fleet.settings(retry_for=SOON))  # the other may have files open from before
        assert knows.get(10).outcomes == {"200": 10}
        strict_server.expire()

        assert comes.get(10).outcomes == {"RefreshMisconfigured": 10}
        assert strict_server.stats.refreshes == 0

    mended(strict_server, shared, [comes, knows])


def warm(crew: Iterable[Started]) -> None:
    """Have each worker know its tokens."""
    for worker in crew:
        assert worker.get(1).outcomes == {"200": 1}


def renewed(worker: Started) -> bool:
    """Send a request, and tell whether the worker has renewed its tokens once."""
    return worker.get(1).outcomes == {"200": 1} and worker.do("tokens")["generation"] == 1


def mended(server: StrictServer, shared: Shared, crew: Iterable[Started]) -> None:
    """Check that all are answered again, and that one refresh was enough."""
    for worker in crew:
        until(lambda worker=worker: worker.get(10).outcomes == {"200": 10})  # type: ignore[misc]
    stats = server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses) == (1, 1, 0)
    until(lambda: shared.record().generation == 1)

"""Disks: a directory that is full, or read-only, for as long as a test says.

Tmpfs       a file system of its own, small enough to fill up; needs the right to mount
Limit       a limit on how large a file the workers may write: any is too large
read_only   by flags of the file system where root would write all the same, by modes otherwise
"""

from __future__ import annotations

import contextlib
import os
import resource
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from tests.processes.handles import Worker

_SIZE = 256 * 1024  # bytes: what a SQLite file and its log need, and a little more


class Disk(Protocol):
    """A directory, on which there may be no room."""

    path: Path

    def fill(self, workers: Sequence[Worker]) -> None:
        """Leave these workers no room."""
        ...

    def free(self, workers: Sequence[Worker]) -> None:
        """Give them room again."""
        ...


class Tmpfs:
    """A small file system that is filled up by a file."""

    def __init__(self, path: Path) -> None:
        self.path = path / "tokens"
        self._filler = path / "filler"

    def fill(self, workers: Sequence[Worker]) -> None:
        """Write until there is no room."""
        with self._filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)

    def free(self, workers: Sequence[Worker]) -> None:
        """Take away what was written."""
        self._filler.unlink()


class Limit:
    """A limit of the workers' own."""

    def __init__(self, path: Path) -> None:
        self.path = path / "tokens"

    def fill(self, workers: Sequence[Worker]) -> None:
        """Let them write nothing into files."""
        self._limit(workers, 0)

    def free(self, workers: Sequence[Worker]) -> None:
        """Let them write what they like."""
        self._limit(workers, resource.RLIM_INFINITY)

    def _limit(self, workers: Sequence[Worker], size: int) -> None:
        for worker in workers:
            resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@contextlib.contextmanager
def tmpfs(path: Path) -> Iterator[Disk]:
    """Mount a small file system at `path`; skip where that is not permitted."""
    path.mkdir()
    mounted = _runs("mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=700", "keyturn", str(path))
    if not mounted:
        pytest.skip("nothing may be mounted here")
    try:
        yield Tmpfs(path)
    finally:
        _runs("umount", "--lazy", str(path))


@contextlib.contextmanager
def limit(path: Path) -> Iterator[Disk]:
    """Make a directory at `path`; skip where one process cannot limit another."""
    if not hasattr(resource, "prlimit"):
        pytest.skip("one process cannot limit another here")
    path.mkdir(mode=0o700)
    yield Limit(path)


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Have nothing opened for writing at and below `path`. What is open already stays as it is."""
    if os.geteuid() == 0:
        if not _runs("mount", "--bind", str(path), str(path)):
            pytest.skip("root writes everywhere, and nothing may be mounted here")
        try:
            assert _runs("mount", "-o", "remount,bind,ro", str(path))
            yield
        finally:
            _runs("umount", "--lazy", str(path))
        return
    modes = {one: stat.S_IMODE(one.stat().st_mode) for one in (path, *path.rglob("*"))}
    for one, mode in modes.items():
        one.chmod(mode & ~0o222)
    try:
        yield
    finally:
        for one, mode in modes.items():
            one.chmod(mode)


def _runs(*command: str) -> bool:
    """Run a command; tell whether it is there and did what it was told."""
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False

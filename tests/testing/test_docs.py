"""docs/testing.md runs as it stands: each of its Python blocks is a file of tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent.parent / "docs" / "testing.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose tests are the page's blocks, and which configures nothing."""
    for number, block in enumerate(BLOCKS):
        (tmp_path / f"test_block_{number}.py").write_text(block)
    return tmp_path


def _run(project: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_block_passes(project: Path) -> None:
    options = ["-o", "asyncio_default_fixture_loop_scope=function"]

    said = _run(project, "pytest", "-q", "-W", "error", *options)

    passed = re.search(r"(\d+) passed", said)
    assert passed is not None
    tests = sum(block.count("def test_") for block in BLOCKS)
    assert int(passed[1]) == tests + 1, "the one of anyio runs on asyncio and on trio"


def test_every_block_is_typed(project: Path) -> None:
    _run(project, "mypy", "--strict", *(f"test_block_{number}.py" for number in range(len(BLOCKS))))

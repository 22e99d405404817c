"""The pytest plug-in, as users write it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keyturn.testing import StrictServer

_TESTS = """
import pathlib, pytest

@pytest.mark.parametrize("n", range(4))
def test_each_test_starts_anew(strict_server, n):
    assert strict_server.stats.sessions_live == 0
    strict_server.configure(ttl=1.0)
    strict_server.sign_in()
    with open(pathlib.Path(__file__).parent / "urls", "a") as urls:
        urls.write(strict_server.url + "\\n")

def test_two(strict_server, other_server):
    assert strict_server.url != other_server.url
    assert strict_server.sign_in().lifetime == 60
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_the_fixtures_work_with_importlib_and_with_xdist(tmp_path: Path, workers: int) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["keyturn.testing.pytest_plugin"]\n')
    (tmp_path / "test_it.py").write_text(_TESTS)
    options = ["-q", "--import-mode=importlib", "-W", "error", "-p", "xdist", "-n", str(workers)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout
    urls = set((tmp_path / "urls").read_text().split())
    assert 1 <= len(urls) <= max(1, workers), "one process a worker"


def test_a_fixture_is_as_new(strict_server: StrictServer) -> None:
    assert strict_server.stats.sessions_live == 0
    assert strict_server.seen == []

"""The pytest plug-in, as users meet it: there without any configuration, and unnoticed until it is used."""

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
"""

_BYSTANDER = """
import sys, threading

def test_nothing_of_keyturn_is_here():
    assert "pytest_keyturn" in sys.modules
    assert not {"keyturn", "httpx2", "httpcore2", "h11", "asyncio"} & set(sys.modules)
    assert threading.active_count() == 1
"""


def _pytest(folder: Path, tests: str, *options: str, autoload: bool = False) -> tuple[int, str]:
    """Run pytest on `tests` in a project without any configuration; return its exit code and output.

    Without `autoload` it meets no other plug-in of this environment.
    """
    (folder / "test_it.py").write_text(tests)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    chosen = ["-p", "no:asyncio"] if autoload else ["-p", "keyturn"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", *chosen, *options],
        cwd=folder,
        env=environment | ({} if autoload else {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_it_is_found_where_keyturn_is_installed(tmp_path: Path) -> None:
    code, said = _pytest(tmp_path, _TESTS, autoload=True)

    assert code == 0, said
    assert "4 passed" in said


@pytest.mark.parametrize("workers", [0, 2])
def test_the_server_is_one_process_a_worker_and_as_new_in_each_test(tmp_path: Path, workers: int) -> None:
    code, said = _pytest(
        tmp_path, _TESTS, "--import-mode=importlib", "-p", "xdist.plugin", "-n", str(workers)
    )

    assert code == 0, said
    assert "4 passed" in said
    urls = set((tmp_path / "urls").read_text().split())
    assert 1 <= len(urls) <= max(1, workers)


def test_a_test_run_that_does_not_use_it_imports_nothing_of_keyturn(tmp_path: Path) -> None:
    code, said = _pytest(tmp_path, _BYSTANDER)

    assert code == 0, said


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    code, said = _pytest(tmp_path, _TESTS, "-p", "no:keyturn", autoload=True)

    assert code == 1
    assert "fixture 'strict_server' not found" in said


def test_a_fixture_of_the_project_that_has_the_same_name_is_the_one_that_counts(tmp_path: Path) -> None:
    own = "import pytest\n\n@pytest.fixture\ndef strict_server():\n    return 'own'\n"
    (tmp_path / "conftest.py").write_text(own)

    code, said = _pytest(tmp_path, "def test_own(strict_server):\n    assert strict_server == 'own'\n")

    assert code == 0, said


def test_a_fixture_is_as_new(strict_server: StrictServer, other_server: StrictServer) -> None:
    assert strict_server.stats.sessions_live == 0
    assert strict_server.seen == []
    assert strict_server.url != other_server.url

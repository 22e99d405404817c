"""The command line, as it is typed."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

MISSING = (
    "import sys; sys.modules[{!r}] = None; from keyturn.cli import main; sys.argv[0] = 'keyturn'; main()"
)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "keyturn", *words], capture_output=True, text=True, timeout=60, check=False
    )


def test_it_tells_its_version() -> None:
    done = run("--version")

    assert (done.returncode, done.stdout, done.stderr) == (0, f"keyturn {version('keyturn')}\n", "")


def test_help_says_what_it_is_for_and_where_to_start() -> None:
    done = run("--help")

    assert done.returncode == 0
    assert "Keep people signed in" in done.stdout
    assert "keyturn demo" in done.stdout


def test_help_of_the_demo_names_its_options_and_their_range() -> None:
    done = run("demo", "-h")

    assert done.returncode == 0
    for words in ("--requests", "1 to 100", "default: 12", "--json", "leaves nothing behind"):
        assert words in done.stdout


def test_without_a_command_it_shows_the_help() -> None:
    done = run()

    assert "Usage:" in done.stdout + done.stderr
    assert "demo" in done.stdout + done.stderr


@pytest.mark.parametrize("number", ["0", "-5", "abc", "100000", "101", "1.5", "", "1e2"])
def test_a_number_out_of_range_is_refused_with_the_range(number: str) -> None:
    done = run("demo", "--requests", number)

    assert done.returncode == 2
    assert "--requests" in done.stderr
    assert "from 1 to 100" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(["dmeo"], "demo"), (["demo", "--request", "3"], "--requests"), (["demo", "--jsn"], "--json")],
)
def test_a_typo_is_answered_with_what_was_meant(typed: list[str], meant: str) -> None:
    done = run(*typed)

    assert done.returncode == 2
    assert "Did you mean" in done.stderr
    assert meant in done.stderr


@pytest.mark.parametrize("absent", ["click", "rich", "flask", "joserfc"])
def test_without_its_extra_it_says_in_one_line_what_to_install(absent: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MISSING.format(absent), "demo"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "pip install 'keyturn[cli]'" in done.stderr


def test_another_missing_module_is_not_taken_for_the_extra() -> None:
    broken = MISSING.format("keyturn.demo.scene")
    done = subprocess.run(
        [sys.executable, "-c", broken], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


def test_importing_keyturn_loads_no_framework() -> None:
    frameworks = ["click", "rich", "flask", "joserfc", "cryptography", "httpx", "trio"]
    look = f"import sys, keyturn, keyturn.cli; print([name for name in {frameworks} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stdout) == (0, "[]\n")

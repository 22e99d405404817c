"""The Python blocks of the README and of the guides run as they stand; CI runs the README's commands."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = ["README.md", "docs/grants.md", "docs/telemetry.md"]
BLOCKS = [
    pytest.param(block, id=f"{page} {number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_runs_as_it_stands_and_prints_what_its_comments_say(block: str, tmp_path: Path) -> None:
    program = tmp_path / "block.py"
    program.write_text(block)

    run = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        cwd=tmp_path,
        env={"KEYTURN_SECRET": secrets.token_urlsafe(32), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    if "gather" in block:
        assert run.stdout == f"{[200] * 100}\n1\n"
    else:
        assert run.stdout.splitlines() == re.findall(r"^ *print\(.*\) +# (.*)$", block, re.MULTILINE)


@pytest.mark.parametrize(
    "command", ["pip install uv && uv run pytest", "pip install uv && uv run keyturn demo"]
)
def test_ci_runs_the_commands_that_the_readme_tells(command: str) -> None:
    assert f"```shell\n{command}\n```" in README
    assert f"\n{command}\n" in (ROOT / ".ci/run").read_text()

"""The pages about other libraries: every block runs as it stands, and every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.interop.pages import DOCS, PAGES, blocks


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_block_of_a_page_runs_by_itself(page: Path) -> None:
    assert all(vars(block) for block in blocks(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).is_file(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_page_has_tests_of_what_it_says(page: Path) -> None:
    name = page.stem.replace("-", "_")
    prefix = "from_" if page.parent.name == "from" else ""
    assert (Path(__file__).parent / f"test_{prefix}{name}.py").is_file()

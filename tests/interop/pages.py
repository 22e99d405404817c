"""The Python blocks of a page of documentation, run as they stand, with its example hosts on this machine."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGES = sorted(page for folder in ("using-with", "from") for page in (DOCS / folder).glob("*.md"))

ISSUER = "https://id.example"
API = "https://api.example"

_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path, *, issuer: str = ISSUER, api: str = API) -> list[SimpleNamespace]:
    """Run every block of a page by itself and return what each defines.

    Only the hosts that the page makes up are replaced: where tokens come from
    by `issuer`, and where they go by `api`.
    """
    found = []
    for number, code in enumerate(_BLOCK.findall(page.read_text()), 1):
        names: dict[str, object] = {"__name__": f"{page.stem}-{number}"}
        program = compile(code.replace(ISSUER, issuer).replace(API, api), f"{page}, block {number}", "exec")
        exec(program, names)  # noqa: S102 - our own documentation
        found.append(SimpleNamespace(**names))
    assert found, f"{page} has no blocks"
    return found

"""What the tests of environments share."""

from __future__ import annotations

import pytest

from keyturn.client import loop


@pytest.fixture
def no_loop_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the next refresh start keyturn's loop."""
    for name in ("_loop", "_thread", "_thread_ident"):
        monkeypatch.setattr(loop, name, None)

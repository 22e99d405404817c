"""The strict server, for every test that asks for it."""

from __future__ import annotations

pytest_plugins = ["keyturn.testing.pytest_plugin"]

"""Programs that the tests of environments run as `python -m tests.environments.programs.<name>`.

They share what tests/scenarios/programs shares, which each imports when its
environment is ready: gevent patches before anything else is imported.
"""

from __future__ import annotations

from pathlib import Path

NAME = "tests.environments.programs"
ROOT = Path(__file__).parents[3]

"""Refresh where the address space has no room for another thread's stack, and where it has again."""

from __future__ import annotations

import resource
import threading
from pathlib import Path

from tests.scenarios.programs import credentials, outcome, say

ROOM = 256 * 1024 * 1024

mine = credentials()
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
_, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, hard))
threading.stack_size(2 * ROOM)
say(outcome(mine.get_tokens))
threading.stack_size(0)
say(outcome(mine.get_tokens))

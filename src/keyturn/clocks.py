"""The two clocks: the one that tokens expire by, and the one that waits are measured by.

Tests freeze and move time (freezegun, time-machine). The first clock goes
along, or no test could see a token expire. The second never does: a time-out
or a pause that is measured by a clock that stands still would last for ever.
"""

from __future__ import annotations

import functools
import sys
import time


def now() -> float:
    """Return POSIX seconds, from whatever `time.time` is at this moment."""
    return time.time()


# Elapsed seconds. Not `time.monotonic` by that name, which is what freezegun replaces wherever it finds it;
# this clock is the same one, and is real even where keyturn is first imported while time is frozen.
if sys.platform == "win32":
    monotonic = functools.partial(time.monotonic)
else:
    monotonic = functools.partial(time.clock_gettime, time.CLOCK_MONOTONIC)

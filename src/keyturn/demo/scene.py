"""The dashboard of the demo: what it asks for, where, and how long that takes.

On one machine a request is over before it can be seen, so the server takes
its time as if it stood at some distance and had a database to ask. How long a
request took is still measured, never taken from here.
"""

from __future__ import annotations

import zlib
from itertools import count, islice

MOST_REQUESTS = 100

LOGIN = "/auth/login"
REFRESH = "/auth/refresh"

# In seconds.
FIRST_ACCESS_TOKEN_LIVES = 1
ACCESS_TOKEN_LIVES = 300
DISTANCE = 0.03
REFRESH_TAKES = 0.08

_NAMES = (
    "/statistics",
    "/other-statistics",
    "/visitors",
    "/orders",
    "/revenue",
    "/top-products",
    "/notifications",
    "/messages",
    "/profile",
    "/inventory",
    "/shipments",
    "/team",
    "/invoices",
    "/goals",
    "/activity",
    "/alerts",
)


def names(number: int) -> list[str]:
    """Return the paths of `number` dashboard calls, all different."""
    more = (f"{name}/{page}" for page in count(2) for name in _NAMES)
    return [*_NAMES[:number], *islice(more, max(0, number - len(_NAMES)))]


def answer_takes(path: str) -> float:
    """Return how many seconds the server thinks about a dashboard call, the same for a path each time."""
    return 0.03 + zlib.crc32(path.encode()) % 8 * 0.01

"""A clock that stands still until it is moved."""

from __future__ import annotations

START = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC


class Clock:
    """Time for code that takes its time as an argument: `clock()` gives POSIX seconds."""

    def __init__(self, start: float = START) -> None:
        self._now = start

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock by `seconds`; backwards too, as clocks of machines do."""
        self._now += seconds

    def __repr__(self) -> str:
        return f"<Clock at {self._now}>"

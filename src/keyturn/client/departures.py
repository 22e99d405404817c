"""Departures: which requests are on their way with which tokens.

Only kept where every response may carry a newer pair that kills the one
before. There a refusal must not start an exchange while another request with
the same tokens is still unanswered: its answer may be about to bring the pair
that takes their place, and the refresh token in hand would be a spent one.
"""

from __future__ import annotations

from collections import Counter

from keyturn.client import native
from keyturn.client.gate import Gate
from keyturn.client.snapshot import Snapshot

_Key = tuple[str, int]


class Departures:
    """Count the requests on their way, by epoch and generation."""

    __slots__ = ("_gates", "_lock", "_under_way")

    def __init__(self) -> None:
        self._lock = native.lock()
        self._under_way: Counter[_Key] = Counter()
        self._gates: dict[_Key, Gate] = {}

    def depart(self, snapshot: Snapshot) -> None:
        """Note that a request leaves with these tokens."""
        with self._lock:
            self._under_way[snapshot.epoch, snapshot.generation] += 1

    def arrive(self, snapshot: Snapshot) -> None:
        """Note that its answer, or its failure, is here, and that a newer pair in it has been adopted."""
        key = snapshot.epoch, snapshot.generation
        with self._lock:
            self._under_way[key] -= 1
            if self._under_way[key] > 0:
                return
            del self._under_way[key]
            gate = self._gates.pop(key, None)
        if gate is not None:
            gate.open()

    def superseded(self, snapshot: Snapshot) -> None:
        """Note that a newer pair is here: nobody need wait for the answers to these tokens any more."""
        with self._lock:
            gate = self._gates.pop((snapshot.epoch, snapshot.generation), None)
        if gate is not None:
            gate.open()

    def cleared(self, snapshot: Snapshot) -> Gate | None:
        """Return the gate that opens when no request is on its way with these tokens; None if none is now."""
        key = snapshot.epoch, snapshot.generation
        with self._lock:
            return self._gates.setdefault(key, Gate()) if key in self._under_way else None

"""Ticket: one caller's place on a flight, or the snapshot to go with at once."""

from __future__ import annotations

import time

from keyturn.client import loop
from keyturn.client.flight import Clock, Flight
from keyturn.client.gate import Gate
from keyturn.client.snapshot import Snapshot
from keyturn.errors import ConfigurationError, ReentrantRefresh, RefreshTimeout, SessionEnded


class Ticket:
    """What a caller was given: wait for `gate` while there is one, then redeem.

    A caller whose own snapshot has not expired and was not refused goes on
    with it when the flight stalls, fails, or takes longer than he can wait;
    only the end of the session is told to everyone.
    """

    __slots__ = ("_clock", "_flight", "_refused", "_snapshot")

    def __init__(
        self, snapshot: Snapshot, flight: Flight | None, clock: Clock, *, refused: bool = False
    ) -> None:
        self._snapshot, self._flight = snapshot, flight
        self._clock, self._refused = clock, refused

    @property
    def gate(self) -> Gate | None:
        """Return what to wait for next; None when there is nothing to wait for."""
        flight = self._flight
        if flight is None or flight.outcome is not None:
            return None
        if self._usable():
            return None if flight.stalled.is_open else flight.stalled
        return flight.landed

    def redeem(self) -> Snapshot:
        """Return the snapshot to go with. Raises what the flight ended with, or RefreshTimeout."""
        if self._flight is None:
            return self._snapshot
        outcome = self._flight.outcome
        if isinstance(outcome, Snapshot):
            return outcome
        if self._usable() and not isinstance(outcome, SessionEnded):
            return self._snapshot
        if outcome is None:
            raise RefreshTimeout(
                "the refresh took longer than this caller could wait; it goes on for the others"
            )
        raise outcome.again()

    def wait(self, timeout: float | None = None) -> Snapshot:
        """Block until redeemable, at most `timeout` seconds, and redeem."""
        if self.gate is not None and loop.is_current():
            raise ReentrantRefresh(
                "keyturn's own thread cannot wait for a refresh; call from a thread of yours"
            )
        ends = _ends(timeout)
        while (gate := self.gate) is not None:
            if not gate.wait(_left(ends)):
                break
        return self.redeem()

    async def wait_async(self, timeout: float | None = None) -> Snapshot:
        """Suspend until redeemable, at most `timeout` seconds, and redeem."""
        ends = _ends(timeout)
        while (gate := self.gate) is not None:
            if not await gate.wait_async(_left(ends)):
                break
        return self.redeem()

    def _usable(self) -> bool:
        return not self._refused and self._snapshot.left(self._clock()) > 0


def _ends(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise ConfigurationError("timeout is a number of seconds")
    return time.monotonic() + timeout


def _left(ends: float | None) -> float | None:
    return None if ends is None else max(0.0, ends - time.monotonic())

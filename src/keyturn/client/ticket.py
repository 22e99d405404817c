"""Ticket: one caller's place on a flight, or the snapshot to go with at once."""

from __future__ import annotations

from types import TracebackType

from keyturn.client import events, loop
from keyturn.client.flight import Clock, Flight, Outcome
from keyturn.client.gate import Gate
from keyturn.client.snapshot import Snapshot
from keyturn.clocks import monotonic
from keyturn.errors import (
    ConfigurationError,
    KeyturnError,
    ReentrantRefresh,
    RefreshTimeout,
    SessionEnded,
)


class Ticket:
    """What a caller was given: wait for `gate` while there is one, then redeem.

    A caller whose own snapshot has not expired and was not refused goes on
    with it when the flight stalls, fails, or takes longer than he can wait;
    only the end of the session is told to everyone. A wait is told by two
    events, one when it begins and one when it is over.
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

    @property
    def is_looked_up(self) -> bool:
        """Tell whether it came to what a store had for the first use, however little is left of that."""
        flight = self._flight
        return flight is not None and self._snapshot.is_awaited and not flight.figures()["attempts"]

    @property
    def has_found(self) -> bool:
        """Tell whether it came to what was there already, or was bought by another process."""
        return self._flight is None or self._flight.has_found

    def redeem(self) -> Snapshot:
        """Return the snapshot to go with. Raises what the flight ended with, or RefreshTimeout."""
        flight = self._flight
        return self._snapshot if flight is None else self._redeemed(flight.outcome)

    def wait(self, timeout: float | None = None) -> Snapshot:
        """Block until redeemable, at most `timeout` seconds, and redeem."""
        ends = _ends(timeout)
        flight = self._flight
        if flight is None or self.gate is None:
            return self.redeem()
        if loop.is_current():
            raise ReentrantRefresh(
                "keyturn's own thread cannot wait for a refresh; call from a thread of yours"
            )
        if not flight.heard(events.Waiting):
            return self._redeemed(self._block(flight, ends))
        with _Wait(flight, self._snapshot) as wait:
            wait.outcome = self._block(flight, ends)
            return self._redeemed(wait.outcome)

    async def wait_async(self, timeout: float | None = None) -> Snapshot:
        """Suspend until redeemable, at most `timeout` seconds, and redeem."""
        ends = _ends(timeout)
        flight = self._flight
        if flight is None or self.gate is None:
            return self.redeem()
        if not flight.heard(events.Waiting):
            return self._redeemed(await self._suspend(flight, ends))
        with _Wait(flight, self._snapshot) as wait:
            wait.outcome = await self._suspend(flight, ends)
            return self._redeemed(wait.outcome)

    def _block(self, flight: Flight, ends: float | None) -> Outcome | None:
        """Block until redeemable or out of time; return the outcome at that moment."""
        while (gate := self.gate) is not None:
            if not gate.wait(_left(ends)):
                break
        return flight.outcome

    async def _suspend(self, flight: Flight, ends: float | None) -> Outcome | None:
        """Await what `_block` does."""
        while (gate := self.gate) is not None:
            if not await gate.wait_async(_left(ends)):
                break
        return flight.outcome

    def _redeemed(self, outcome: Outcome | None) -> Snapshot:
        if isinstance(outcome, Snapshot):
            return outcome
        if self._usable() and not isinstance(outcome, SessionEnded):
            return self._snapshot
        if outcome is None:
            raise RefreshTimeout(
                "the refresh took longer than this caller could wait; it goes on for the others"
            )
        raise outcome.again()

    def _usable(self) -> bool:
        return not self._refused and self._snapshot.left(self._clock()) > 0


class _Wait:
    """Tell of one caller's wait: that it begins, and what came of it."""

    __slots__ = ("_began", "_flight", "_snapshot", "outcome")

    def __init__(self, flight: Flight, snapshot: Snapshot) -> None:
        self._flight, self._snapshot = flight, snapshot
        self.outcome: Outcome | None = None  # as this caller finds it when his wait is over
        self._began = monotonic()

    def __enter__(self) -> _Wait:
        self._flight.announce(events.Waiting, self._snapshot, flight=self._flight.number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        result, cause = self._result(error)
        self._flight.announce(
            events.Waited,
            self._snapshot,
            flight=self._flight.number,
            duration=monotonic() - self._began,
            result=result,
            cause=cause,
        )

    def _result(self, error: BaseException | None) -> tuple[events.Result, KeyturnError | None]:
        if error is None:
            outcome = self.outcome
            return ("renewed", None) if isinstance(outcome, Snapshot) else ("kept", outcome)
        if isinstance(error, RefreshTimeout):
            return "timed_out", error
        return ("failed", error) if isinstance(error, KeyturnError) else ("cancelled", None)


def _ends(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise ConfigurationError("timeout is a number of seconds")
    return monotonic() + timeout


def _left(ends: float | None) -> float | None:
    return None if ends is None else max(0.0, ends - monotonic())

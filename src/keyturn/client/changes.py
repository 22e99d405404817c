"""Changes: what changes the tokens that credentials hold, and whom each change wakes.

a landing       a flight brought a new pair, or what it means that it did not
an adoption     a response carried a newer pair
an epoch        somebody signed in or out
a lesson        another process did one of these, and the store says so
"""

from __future__ import annotations

from typing import Literal

from keyturn.client import events
from keyturn.client.flight import Flight
from keyturn.client.snapshot import Snapshot
from keyturn.client.state import REPLACED, State
from keyturn.client.trouble import Trouble
from keyturn.errors import ConfigurationError, CredentialsClosed, KeyturnError, NotSignedIn, SessionEnded
from keyturn.tokens import Tokens


class Changes(State):
    """State whose snapshot changes; every change is announced."""

    def _land(self, flight: Flight, result: Tokens | KeyturnError | None) -> None:
        """Turn what a flight brought into the outcome for everyone, on keyturn's thread."""
        began = None
        with self._lock:
            if self._flight is flight:
                self._flight = None
            outcome = self._outcome(flight, result)
            if isinstance(result, Snapshot) and self._current is result and not flight.carried.is_awaited:
                began = result if result.epoch != flight.carried.epoch else None
        flight.arrive(outcome)
        flight.announce_landing(result)
        if began is not None:
            self.announce(events.SignedIn, began)

    def _outcome(self, flight: Flight, result: Tokens | KeyturnError | None) -> Snapshot | KeyturnError:
        current, carried = self._current, flight.carried
        if flight.outcome is not None:
            return flight.outcome
        if current is not None and carried.is_awaited and not current.is_awaited:
            return current  # who waited held nothing, so nothing crosses an epoch
        if current is None or current.epoch != carried.epoch:
            return SessionEnded(REPLACED, reason="replaced", epoch=carried.epoch)
        if result is None or (not isinstance(result, Tokens) and current.supersedes(carried)):
            return current
        if isinstance(result, Snapshot):
            return self._learnt(current, result)
        if isinstance(result, Tokens):
            return self._take_over(current, result) if current.yields_to(result, carried) else current
        if isinstance(result, SessionEnded):
            result.epoch = result.epoch or carried.epoch
            self._current, self._absence = None, result
        elif not isinstance(result, NotSignedIn):
            self._trouble.note(result, self._clock())
        return result

    def _learnt(self, current: Snapshot, found: Snapshot) -> Snapshot | SessionEnded:
        """Take over a snapshot that the store has a place for; return what it is to who waited."""
        if found.epoch == current.epoch and found.generation <= current.generation:
            return current
        self._swap(current, found)
        if found.epoch != current.epoch and not current.is_awaited:
            return SessionEnded(REPLACED, reason="replaced", epoch=current.epoch)
        return found

    def _take_over(self, current: Snapshot, tokens: Tokens) -> Snapshot:
        taken = current.next(tokens, self._clock())
        self._swap(current, taken)
        return taken

    def _swap(self, current: Snapshot, taken: Snapshot) -> None:
        self._current = taken
        self.departures.superseded(current)
        self._trouble = Trouble()

    def learn(self, found: Snapshot | SessionEnded, held: Snapshot | None) -> bool:
        """Take over what the store holds, where it is news.

        False, and nothing is done, if `held` is no longer what is held: what
        was found may be older than what has changed that.
        """
        if isinstance(found, SessionEnded):
            if self._current is not None and not self._closing:
                self.begin_epoch(None, found, instead_of=held)
            return self.tokens is None or self._closing
        with self._lock:
            current = self._current
            if self._closing:
                return True
            if self.tokens is not held:
                return False
            goes_on = current is not None and (current.is_awaited or current.epoch == found.epoch)
            if current is not None and goes_on:
                if found.left(self._clock()) <= 0:
                    return True  # nobody is to be given it: the next flight buys what follows
                if self._learnt(current, found) is not found:
                    return True
        if goes_on:
            self.announce(events.Adopted, found)
            return True
        self.begin_epoch(found, SessionEnded(REPLACED, reason="replaced"), instead_of=held)
        return self._current is found or self._closing

    def signed_in(self, first: Snapshot) -> None:
        """Begin an epoch, unless the store has told us of it before whoever began it could."""
        current = self._current
        if current is None or current.epoch != first.epoch:
            self.begin_epoch(first, SessionEnded(REPLACED, reason="replaced"))

    def adopt(self, tokens: Tokens, carried: Snapshot) -> bool:
        """Take over a newer pair that came with the answer to a request that carried `carried`.

        Tell whether it was taken: not across a sign-in, and not over a pair
        that is newer still.
        """
        for value, kind in ((tokens, Tokens), (carried, Snapshot)):
            if not isinstance(value, kind):
                raise ConfigurationError("adopt takes keyturn.Tokens and the snapshot that was carried")
        with self._lock:
            current = self._current
            if current is None or current.epoch != carried.epoch or tokens.access == current.access:
                return False
            if not current.yields_to(tokens, carried):
                return False
            taken = self._take_over(current, tokens)
        if self._keeper is not None:
            self._keeper.look_soon()
        self.announce(events.Adopted, taken)
        return True

    def begin_epoch(
        self,
        first: Snapshot | None,
        absence: KeyturnError,
        *,
        instead_of: Snapshot | Literal["whatever"] | None = "whatever",
        leaves: bool = False,
    ) -> tuple[Snapshot | None, Flight | None]:
        """Swap everything for `first`, or for nothing; `absence` is what whoever waited is told.

        With `instead_of`, only where that is what is held. `leaves` says that
        somebody signs out here. Return the tokens that were, and the flight
        that was renewing them.
        """
        with self._lock:
            if instead_of != "whatever" and self.tokens is not instead_of:
                return None, None
            if isinstance(self._absence, CredentialsClosed):
                if first is not None:
                    raise self._absence.again()
                return None, None
            old, self._current, self._absence = self._current, first, absence
            flight, self._flight = self._flight, None
            if leaves and self._keeper is not None:
                self._keeper.leaves(None if old is None or old.is_awaited else old.epoch)
            self._forked = self._forked and first is None
            self._trouble = Trouble()
        if flight is not None:
            if isinstance(absence, SessionEnded) and old is not None:
                absence.epoch = old.epoch
            flight.arrive(absence)
        old = None if old is None or old.is_awaited else old
        if first is not None:
            self.announce(events.SignedIn, first)
        elif old is not None and isinstance(absence, SessionEnded):
            self.announce(events.SignedOut, old)
        return old, flight

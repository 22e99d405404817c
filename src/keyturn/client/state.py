"""State: what credentials hold, and the rules for who is given what.

The state is one snapshot, swapped whole under a lock that is never held
across I/O. Every caller is given a ticket: the snapshot to go with, or a
place on the one flight in the air. What changes the snapshot is in
`keyturn.client.changes`.
"""

from __future__ import annotations

import abc
from datetime import timedelta
from typing import TYPE_CHECKING

from keyturn.client import events, loop, native
from keyturn.client.carriers import Carrier
from keyturn.client.departures import Departures
from keyturn.client.flight import Clock, Flight, aboard
from keyturn.client.gate import Gate, Turnstile
from keyturn.client.grants import Grant
from keyturn.client.schedule import Zone
from keyturn.client.snapshot import Snapshot
from keyturn.client.ticket import Ticket
from keyturn.client.trouble import Trouble
from keyturn.errors import (
    ConfigurationError,
    CredentialsClosed,
    KeyturnError,
    NotSignedIn,
    ReentrantRefresh,
    RefreshAfterFork,
    RefreshError,
    SessionEnded,
)
from keyturn.tokens import Tokens

if TYPE_CHECKING:
    from keyturn.client.keeper import Keeper

REPLACED = "somebody signed in anew while this request was on its way"


class State(abc.ABC):
    """The base of `Credentials`: its data and its rules."""

    _keeper: Keeper | None = None  # of those in a shared store

    def __init__(
        self,
        grant: Grant,
        carrier: Carrier,
        first: Snapshot | None,
        *,
        opening: Grant | None,
        name: str | None,
        on_event: events.Callback | None,
        patience: float,
        clock: Clock,
    ) -> None:
        self.carrier = carrier
        self.name = name
        self._grant, self._on_event, self._patience, self._clock = grant, on_event, patience, clock
        self._current, self._opening = first, opening
        self._refused: Snapshot | None = None
        self._insists = False
        self._absence: KeyturnError = NotSignedIn(
            "there are no tokens yet: log in with a client of its own, then sign_in(grant.read(response))"
        )
        self._trouble = Trouble()
        self._forked = False
        self._reset()
        loop.on_fork(self)

    @property
    def tokens(self) -> Snapshot | None:
        """The current tokens as they are, however old; None without any. No I/O, no waiting."""
        current = self._current
        return None if current is None or current.is_awaited else current

    @property
    def is_expendable(self) -> bool:
        """Tell whether nothing would be lost with these credentials: no flight, nothing only they hold."""
        with self._lock:
            current = self._current
            empty = type(self._absence) is NotSignedIn if current is None else current.is_awaited
            kept = empty if self._keeper is None else self._keeper.is_settled
            return kept and self._flight is None and self._trouble.is_over(self._clock())

    def fresh(self) -> Snapshot | None:
        """Return the current snapshot if it needs no thought; None if a ticket is needed."""
        current = self._current
        return current if current is not None and self._clock() < current.plan.advisory_at else None

    def ticket(self, min_ttl: timedelta | None = None, *, once: bool = False) -> Ticket:
        """Return a ticket for tokens of at least `min_ttl`. Raises what stands in the way.

        `once` is for a body that can be sent only once: it is not spent on
        tokens that were refused while the refresh for that is in the air.
        """
        if min_ttl is not None and not isinstance(min_ttl, timedelta):
            raise ConfigurationError("min_ttl must be a datetime.timedelta")
        if min_ttl is None and not once and not self.carrier.renews and (fresh := self.fresh()) is not None:
            return Ticket(fresh, None, self._clock)
        now, needed = self._clock(), 0.0 if min_ttl is None else min_ttl.total_seconds()
        with self._lock:
            current = self._signed_in()
            if current.generation > 0 and current.lifetime is not None and current.lifetime <= needed:
                needed = 0.0  # this server grants no more
            zone = current.plan.zone(now, needed)
            if self.carrier.renews and zone is not Zone.MANDATORY:  # the answer brings a new pair by itself
                zone = Zone.FRESH if self._flight is None else Zone.MANDATORY
            wait = zone is Zone.MANDATORY or (once and current is self._refused)
            if zone is Zone.FRESH:
                return Ticket(current, self._flight if wait else None, self._clock)
            usable = current.left(now) > 0
            obstacle = self._obstacle(now, current)
            if usable and (obstacle is not None or self._trouble.is_recent(now)):
                return Ticket(current, None, self._clock)
            if obstacle is not None:
                raise obstacle.again()
            try:
                flight = (self._flight if usable else None) or self._flight_for(current, now)
            except RefreshError as error:  # there is no thread for it
                if not usable:
                    raise
                self._trouble.note(error, now)
                return Ticket(current, None, self._clock)
            return Ticket(current, flight if wait else None, self._clock)

    def refusal_ticket(self, rejected: Snapshot) -> Ticket:
        """Return a ticket for what takes the place of refused tokens. Raises what stands in the way."""
        if not isinstance(rejected, Snapshot):
            raise ConfigurationError("renew takes the tokens that get_tokens() returned")
        now = self._clock()
        with self._lock:
            current = self._current_of(rejected)
            if current.generation > rejected.generation:
                return Ticket(current, None, self._clock)
            obstacle = self._obstacle(now, current)
            if obstacle is not None:
                raise obstacle.again()
            self._refused = current
            return Ticket(current, self._flight_for(current, now), self._clock, refused=True)

    def successor(self, snapshot: Snapshot) -> Snapshot:
        """Return the newest tokens of the sign-in that `snapshot` is of. Raises what has become of it."""
        with self._lock:
            return self._current_of(snapshot)

    def reset_after_fork(self) -> None:
        """Start anew in a forked child: the flight in the air is the parent's, as is a token in memory."""
        self._reset()
        self._forked = True
        if self._keeper is not None:
            self._keeper.reset_after_fork()

    def _reset(self) -> None:
        self._lock = native.lock()
        self._flight: Flight | None = None
        self._closing = False
        self.turnstile = Turnstile()
        self.departures = Departures()

    @abc.abstractmethod
    def _land(self, flight: Flight, result: Tokens | KeyturnError | None) -> None:
        """Turn what a flight brought into the outcome for everyone, on keyturn's thread."""

    # The rules, under the lock

    def _signed_in(self) -> Snapshot:
        if self._current is None and self._may_look():
            self._current = Snapshot.awaited()
        if self._current is None:
            raise self._absence.again()
        return self._current

    def _may_look(self) -> bool:
        """Tell whether somebody may have signed in elsewhere without our hearing of it."""
        is_open = not self._closing and not isinstance(self._absence, CredentialsClosed)
        return is_open and self._keeper is not None and self._keeper.may_look()

    def _current_of(self, snapshot: Snapshot) -> Snapshot:
        current = self._signed_in()
        if current.is_awaited and type(self._absence) is not NotSignedIn:
            raise self._absence.again()  # somebody may have signed in by now, but not to that epoch
        if current.epoch != snapshot.epoch:
            raise SessionEnded(REPLACED, reason="replaced", epoch=snapshot.epoch)
        return current

    def _obstacle(self, now: float, current: Snapshot) -> KeyturnError | None:
        """Return why no refresh can be started or joined, None where one can."""
        shared = self._keeper is not None
        if self._forked and self._grant.rotates and not shared:
            return RefreshAfterFork(
                "these credentials were forked and live in memory: only the parent may refresh them."
                " Create them after the fork (gunicorn's post_fork, Celery's worker_process_init)"
            )
        if (
            self._grant.needs_refresh_token
            and current.refresh is None
            and not current.is_awaited
            and not shared
        ):
            return NotSignedIn("there is no refresh token: sign in again")
        if self._closing and (self._flight is None or self._flight.carried is not current):
            return CredentialsClosed("these credentials are being closed")
        if self._flight in aboard.get():
            return ReentrantRefresh(
                "the grant waits for the refresh that it is part of; use its own http client"
            )
        if self._trouble.unknown is not None and self._keeper is not None and self._keeper.may_look():
            self._trouble.unknown = None  # the record says whether it still is
        return self._trouble.obstacle(now, self._patience)

    def _flight_for(self, current: Snapshot, now: float) -> Flight:
        """Return the flight that renews these tokens: the one in the air, unless it carries older ones.

        Whoever needs more than the current tokens gets nothing from a flight
        that newer ones have overtaken; the next one waits for it.
        """
        flight = self._flight
        if flight is None or flight.carried is current:
            return flight or self._take_off(current, now)
        return self._take_off(current, now, flight.give_way())

    def _take_off(self, current: Snapshot, now: float, behind: Gate | None = None) -> Flight:
        flight = Flight(
            self._opening if current.is_awaited and self._opening is not None else self._grant,
            current,
            clock=self._clock,
            patience=self._patience,
            wait=self._trouble.pause(now),
            needed=lambda: self._current is current,
            land=self._land,
            announce=self.announce,
            heard=self.heard,
            clear=[gate for gate in (behind, self.departures.cleared(current)) if gate is not None],
            bring=None if self._keeper is None else self._keeper.renew,
            insists=self._insists,
        )
        flight.take_off()
        self._flight, self._insists = flight, False
        return flight

    def closing(self, *, blocking: bool) -> Flight | None:
        """Return the flight to wait for, the last one. Raises ReentrantRefresh where nobody may wait."""
        with self._lock:
            flight = self._flight
            if flight in aboard.get():
                raise ReentrantRefresh("the grant closes the credentials that it refreshes")
            if blocking and flight is not None and loop.is_current():
                raise ReentrantRefresh(
                    "keyturn's own thread cannot wait for a refresh; close from a thread of yours"
                )
            self._closing = True
        return flight

    def retry_ticket(self) -> Ticket:
        """Return a ticket for a refresh although the outcome of the last one is unknown."""
        with self._lock:
            self._trouble.unknown, self._insists = None, True
            current = self._signed_in()
        try:
            return self.refusal_ticket(current)
        finally:
            self._insists = False  # there may have been a flight already

    def in_the_air(self) -> Flight | None:
        """Return the flight that is on its way."""
        return self._flight

    def heard(self, kind: type[events.Event]) -> bool:
        """Tell whether anybody listens for events of this kind."""
        return events.heard(kind, self._on_event)

    def announce(self, kind: type[events.Event], snapshot: Snapshot, **facts: object) -> None:
        """Tell what happened to `snapshot`, where anybody listens."""
        if self.heard(kind):
            event = kind(name=self.name, epoch=snapshot.epoch, generation=snapshot.generation, **facts)
            events.announce(event, self._on_event)

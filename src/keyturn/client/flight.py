"""Flight: one exchange, its retries, and all who wait for it.

A flight belongs to nobody. It runs on keyturn's loop, in a context of its
own; who waits for it holds a ticket and may leave at any time.

    sent           the request may have left this machine: nothing stops it now
    landed         a gate: there is an outcome, a snapshot or an error
    stalled        a gate: the end point asked for a pause, or the first attempt failed
                   and there will be others, or it has landed; who holds a token
                   that is still valid waits no longer

It is told by two events, one when it takes off and one when it lands, both in
its own context.

Retries. What was not sent, and a 429 or 503, is tried again with jittered
back-off, `Retry-After` honoured, as long as the patience lasts. After an
ambiguous outcome the same token is sent again only if the grant does not
rotate, or inside its replay window, counted from the first sending on the
clock that shows more.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, TypedDict, cast

from keyturn.client import events, loop, schedule
from keyturn.client.gate import Gate
from keyturn.client.grants import Grant, Wire
from keyturn.client.grants.answers import failure
from keyturn.client.seed import Seeded
from keyturn.client.snapshot import Snapshot
from keyturn.clocks import monotonic
from keyturn.errors import KeyturnError, NotSignedIn, OutcomeUnknown, RefreshUnavailable, SessionEnded
from keyturn.tokens import Tokens

Outcome = Snapshot | KeyturnError


class Figures(TypedDict):
    """What the events tell of a flight; `duration` is in seconds."""

    flight: int
    waiters: int
    duration: float
    attempts: int


Clock = Callable[[], float]


class Announce(Protocol):
    """How a flight, and who waits for it, tell what happens to `snapshot`: `State.announce`."""

    def __call__(self, kind: type[events.Event], snapshot: Snapshot, **facts: object) -> None: ...


# Whose flights the running code is part of: what would wait for one of these waits for itself.
aboard: contextvars.ContextVar[frozenset[Flight]] = contextvars.ContextVar(
    "keyturn_aboard", default=frozenset()
)

_numbers = itertools.count(1)

_WAYS_OUT = "the refresh token may be spent, and is not sent again unasked: sign in, or retry_unknown()"

_LONGEST_SAVE = 5.0  # seconds, after an exchange whose tokens are shared

_WINDOW_MARGIN = 0.1  # of the replay window, at most a second: a retry must also arrive inside it


Bring = Callable[["Flight"], Awaitable[Tokens | None]]


class Flight:
    """One exchange for one snapshot; `land` turns its result into the outcome for everyone.

    `bring` goes about it in its own way, and calls `buy` if it comes to that;
    `insists` says that somebody wants the token sent again whatever it costs.
    """

    def __init__(
        self,
        grant: Grant,
        carried: Snapshot,
        *,
        clock: Clock,
        patience: float,
        wait: float,
        needed: Callable[[], bool],
        land: Callable[[Flight, Tokens | KeyturnError | None], None],
        announce: Announce,
        heard: Callable[[type[events.Event]], bool],
        clear: Iterable[Gate],
        bring: Bring | None = None,
        insists: bool = False,
    ) -> None:
        self.number = next(_numbers)
        self.carried, self.announce, self.heard = carried, announce, heard
        self.landed, self.stalled = Gate(), Gate()
        self.outcome: Outcome | None = None
        self.brought: Tokens | None = None
        self._over = Gate()
        self._attempts = 0
        self._started = monotonic()
        self._grant, self._clock, self.needed, self._land = grant, clock, needed, land
        self._bring, self.insists = bring, insists
        self._patience, self._wait, self._clear = patience, wait, clear
        self._wire: Wire | None = None
        self._ambiguous = False
        self._task: asyncio.Task[None] | None = None
        self._given_up = False

    def take_off(self) -> None:
        """Start, on keyturn's loop, aboard whatever the caller is aboard of. Raises RefreshUnavailable."""
        context = contextvars.Context()
        context.run(aboard.set, aboard.get() | {self})
        loop.launch(self, self._fly, context)

    @property
    def sent(self) -> bool:
        """Tell whether the token may be spent and the outcome is still open."""
        return self._ambiguous or (self._wire is not None and self._wire.sent)

    @property
    def has_found(self) -> bool:
        """Tell whether nothing was sent, and another process may have bought what it came to."""
        return self._bring is not None and not self._attempts

    def figures(self) -> Figures:
        """Return what the events tell of a flight."""
        return {
            "flight": self.number,
            "waiters": self.landed.waiters + self.stalled.waiters,
            "duration": monotonic() - self._started,
            "attempts": self._attempts,
        }

    def arrive(self, outcome: Outcome) -> None:
        """Set the outcome and wake everyone."""
        self.outcome = outcome
        self.landed.open()
        self.stalled.open()

    def announce_landing(self, result: Tokens | KeyturnError | None) -> None:
        """Tell how it ended; `result` is what the exchange came to, the outcome what became of that."""
        outcome = self.outcome
        if self._is_loaded(result):
            self.announce(events.Loaded, self.carried, found=isinstance(result, Tokens), **self.figures())
        elif isinstance(outcome, Snapshot):
            kind: type[events.Landing] = events.Overtaken
            if isinstance(result, Tokens):
                kind = events.Refreshed if self._attempts else events.Found
            self.announce(kind, outcome, **self.figures())
        elif outcome is not result:
            self.announce(events.Overtaken, self.carried, **self.figures())
        else:
            kind = events.Ended if isinstance(outcome, SessionEnded) else events.Failed
            self.announce(kind, self.carried, cause=outcome, **self.figures())

    def _is_loaded(self, result: Tokens | KeyturnError | None) -> bool:
        """Tell whether this was the first use, and what it came to is what was there, or not there."""
        if self._bring is None:
            return isinstance(self._grant, Seeded) and self._grant.is_answered_by(result)
        return self.carried.is_awaited and not self._attempts and isinstance(result, Tokens | NotSignedIn)

    def settle(self, timeout: float | None = None) -> bool:
        """Wait for what is sent, by default as long as that can take; what is not sent is given up at once.

        Tell whether nothing is left in the air.
        """
        loop.call(self._give_up_unless_sent)
        return self._over.wait(self.longest if timeout is None else timeout)

    def give_way(self) -> Gate:
        """Give up what is not sent; return the gate that opens when nothing is left in the air."""
        loop.call(self._give_up_unless_sent)
        return self._over

    async def settle_async(self, timeout: float | None = None) -> bool:
        """Await what `settle` does."""
        loop.call(self._give_up_unless_sent)
        return await self._over.wait_async(self.longest if timeout is None else timeout)

    @property
    def longest(self) -> float:
        """Return how many seconds an exchange, once sent, can take."""
        return (
            self._grant.timeout + self._grant.replay_window + (0.0 if self._bring is None else _LONGEST_SAVE)
        )

    def _give_up_unless_sent(self) -> None:
        if not self.sent and not self._given_up:  # once: what is noted down on the way out is not broken off
            self._given_up = True
            if self._task is not None:
                self._task.cancel()

    async def _fly(self) -> None:
        self._task = task = cast("asyncio.Task[None]", asyncio.current_task())
        self.announce(events.Refreshing, self.carried, flight=self.number)
        if self._given_up:  # before it began
            task.cancel()
        result: Tokens | KeyturnError | None
        try:
            await self._clear_for_take_off()
            result = self.brought = await (self._bring or self._buy_for_carried)(self)
        except asyncio.CancelledError:
            result = RefreshUnavailable(
                "the refresh was given up before it was sent", attempts=self._attempts
            )
        except KeyturnError as error:
            result = error
        try:
            self._land(self, result)
        finally:
            self._over.open()
            self._task = (
                None  # whose context leads back here: without it nothing waits for the garbage collector
            )

    async def _clear_for_take_off(self) -> None:
        for gate in self._clear:
            await gate.wait_async(self._grant.timeout)
        if self._wait > 0:
            self.stalled.open()
        await asyncio.sleep(self._wait)

    @staticmethod
    async def _buy_for_carried(flight: Flight) -> Tokens | None:
        return await flight.buy(flight.carried)

    async def buy(
        self, tokens: Tokens, *, sent_ago: float | None = None, may: Callable[[], bool] = lambda: True
    ) -> Tokens | None:
        """Return what `tokens` buy, trying again as the rules above allow; None once nobody needs it, or may.

        `sent_ago` is for how many seconds these tokens may have been spent
        already: the window counts from then. Raises what the exchange came to.
        """
        patience_ends = monotonic() + self._patience
        first_sent: tuple[float, float] | None = None
        if sent_ago is not None:
            first_sent = monotonic() - sent_ago, self._clock() - sent_ago
            self._ambiguous = True
        trouble: OutcomeUnknown | RefreshUnavailable
        while self.needed() and may():
            self._attempts += 1
            moment = monotonic(), self._clock()
            try:
                return await self._exchange(tokens)
            except OutcomeUnknown as error:
                first_sent, trouble = first_sent or moment, error
                self._ambiguous = self._grant.rotates
            except RefreshUnavailable as error:
                trouble = error
            if self._attempts == 1:
                events.logger.info("keyturn: %s (by %r); it may be tried again", trouble, self._grant)
            wait = schedule.backoff(self._attempts, random.random())  # noqa: S311 - spreads load, guards nothing
            wait = max(wait, getattr(trouble, "retry_after", None) or 0.0)
            if monotonic() + wait > patience_ends or not self._may_send_again(first_sent, wait):
                raise self._final(trouble)
            self.stalled.open()
            await asyncio.sleep(wait)
            if not self._may_send_again(first_sent, 0.0):  # this machine may have slept
                raise self._final(trouble)
        return None

    async def _exchange(self, tokens: Tokens) -> Tokens:
        """Try once. Raises a KeyturnError that says what the failure means."""
        self._wire = wire = Wire(self._clock)
        try:
            async with asyncio.timeout(self._grant.timeout):
                pair: object = await self._grant.exchange(tokens, wire)
            wire.sent = True  # a grant of the user's own need not say so
        except GeneratorExit:
            raise
        except BaseException as error:  # a callable raises what it likes; its meaning is raised below
            if self._given_up and isinstance(error, asyncio.CancelledError):
                raise
            meaning = failure(error, wire)
            if not isinstance(meaning, OutcomeUnknown):
                wire.sent = False  # it was answered, or never left: nothing is open any more
            meaning.add_note(f"keyturn: refreshing by {self._grant!r}")
            raise meaning from None
        if not isinstance(pair, Tokens):
            raise OutcomeUnknown(f"the grant must return keyturn.Tokens, not {type(pair).__name__}")
        return pair

    def _may_send_again(self, first_sent: tuple[float, float] | None, wait: float) -> bool:
        if first_sent is None or not self._grant.rotates:
            return True
        window = self._grant.replay_window
        elapsed = max(monotonic() - first_sent[0], self._clock() - first_sent[1])
        return elapsed + wait + min(1.0, window * _WINDOW_MARGIN) <= window

    def _final(self, trouble: OutcomeUnknown | RefreshUnavailable) -> KeyturnError:
        """Return the error that ends the retries."""
        error: KeyturnError
        if self._ambiguous:
            said = "an earlier refresh got no answer, and no retry did"
            said = str(trouble) if isinstance(trouble, OutcomeUnknown) else said
            error = OutcomeUnknown(f"{said}; {_WAYS_OUT}", status=trouble.status)
        else:
            error = RefreshUnavailable(
                str(trouble),
                status=trouble.status,
                retry_after=getattr(trouble, "retry_after", None),
                attempts=self._attempts,
            )
        for note in getattr(trouble, "__notes__", ()):
            error.add_note(note)
        return error

"""The loop that every exchange runs on: one a process, indestructible, in a hurry only at exit."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta

import httpx2
import pytest

import keyturn
from keyturn.client import Bearer, events, grants, loop
from keyturn.client.carriers import Carrier
from keyturn.client.flight import Flight
from keyturn.client.grants import Wire
from keyturn.errors import OutcomeUnknown, RefreshTimeout, RefreshUnavailable
from keyturn.tokens import Tokens
from tests.kit import in_threads
from tests.waiting import WITHIN, T, start, until

mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="nobody's")


class HeldGrant:
    """A grant whose exchange has `began`, has sent or not, and stays there until `release`."""

    rotates = True
    replay_window = 0.0
    timeout = WITHIN
    carrier: Carrier = Bearer()
    needs_refresh_token = True

    def __init__(self, *, sends: bool) -> None:
        self.began = threading.Event()
        self._sends = sends
        self._go_on: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def exchange(self, tokens: Tokens, wire: Wire) -> Tokens:
        """Wait for `release`."""
        wire.sent = self._sends
        self._loop, self._go_on = asyncio.get_running_loop(), asyncio.Event()
        self.began.set()
        await self._go_on.wait()
        return Tokens("new", "new-refresh")

    def release(self) -> None:
        """Let the exchange end."""
        assert self._loop is not None
        assert self._go_on is not None
        self._loop.call_soon_threadsafe(self._go_on.set)


class Raising(HeldGrant):
    """A grant whose exchange raises, after sending or before."""

    def __init__(self, error: BaseException, *, sends: bool) -> None:
        super().__init__(sends=sends)
        self._error = error

    async def exchange(self, tokens: Tokens, wire: Wire) -> Tokens:
        """Raise."""
        wire.sent = self._sends
        raise self._error


def expired(grant: HeldGrant, on_event: events.Callback | None = None) -> keyturn.Credentials:
    """Return credentials that need a refresh at once."""
    return keyturn.Credentials(
        grant,
        tokens=Tokens("old", "old-refresh", expires_at=1.0),
        origins=["https://api.example"],
        on_event=on_event,
    )


def on_the_loop(function: Callable[[], T]) -> T:
    """Return what `function()` returns on keyturn's loop."""
    answer: Future[T] = Future()
    loop.call(lambda: answer.set_result(function()))
    return answer.result(WITHIN)


def where() -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
    return asyncio.get_running_loop(), threading.current_thread()


def forget_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the next refresh start a loop, until the test is over."""
    for name in ("_loop", "_thread", "_thread_ident"):
        monkeypatch.setattr(loop, name, None)


def test_it_is_one_selector_loop_on_one_daemon_thread_however_many_start_it_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forget_the_loop(monkeypatch)

    answers = set(in_threads(20, lambda _: on_the_loop(where)))

    assert len(answers) == 1
    ((running, thread),) = answers
    assert isinstance(running, asyncio.SelectorEventLoop)
    assert thread.daemon
    assert thread.name == "keyturn"


def test_only_its_own_thread_is_told_that_nobody_may_block_there() -> None:
    assert on_the_loop(loop.is_current) is True
    assert not loop.is_current()
    assert in_threads(2, lambda _: loop.is_current()) == [False, False]


def test_what_is_called_or_launched_sees_nothing_of_the_callers_context() -> None:
    landed = threading.Event()
    seen: list[str] = []

    class Nothing:
        longest = 0.0

        def settle(self, timeout: float | None = None) -> bool:
            return True

    async def look() -> None:
        seen.append(mark.get())
        await asyncio.sleep(0)
        seen.append(mark.get())
        landed.set()

    token = mark.set("the caller's")
    try:
        assert on_the_loop(mark.get) == "nobody's"
        given = contextvars.Context()
        given.run(mark.set, "the flight's")
        loop.launch(Nothing(), look, given)
        assert landed.wait(WITHIN)
    finally:
        mark.reset(token)
    assert seen == ["the flight's"] * 2


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), ZeroDivisionError()], ids=repr)
def test_nothing_that_a_callback_raises_stops_it(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise error

    with caplog.at_level(logging.CRITICAL):
        loop.call(fail)
    assert on_the_loop(where)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()], ids=repr)
def test_an_event_callback_that_exits_neither_takes_the_answer_nor_the_loop_away(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: events.Event) -> None:
        if loop.is_current():  # on a caller's thread it is his own interrupt
            raise error

    with caplog.at_level(logging.CRITICAL):
        for _ in range(2):
            grant = HeldGrant(sends=True)
            credentials = expired(grant, fail)
            waiting = start(credentials.get_tokens)
            assert grant.began.wait(WITHIN)
            grant.release()
            assert waiting.result(WITHIN).access == "new"
            credentials.close(timeout=WITHIN)


@pytest.mark.parametrize("sends", [True, False], ids=["sent", "not-sent"])
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()], ids=repr)
def test_a_grant_that_exits_or_cancels_itself_still_lands(error: BaseException, sends: bool) -> None:
    credentials = expired(Raising(error, sends=sends))
    with pytest.raises((OutcomeUnknown, RefreshUnavailable)) as caught:
        credentials.get_tokens(timeout=WITHIN)
    if sends:
        assert caught.type is OutcomeUnknown, "the token may be spent: it must not be sent again"


def _calling(function: grants.Function) -> keyturn.Credentials:
    return keyturn.Credentials(
        grants.Call(function, timeout=timedelta(seconds=2 * WITHIN)),
        tokens=Tokens("old", "old-refresh", expires_at=1.0),
        origins=["https://api.example"],
        retry_for=timedelta(0),
    )


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration()], ids=repr)
def test_a_callable_that_exits_on_its_thread_lands_at_once(error: BaseException) -> None:
    def fail(tokens: Tokens, http: httpx2.Client) -> Tokens:
        raise error

    with pytest.raises(OutcomeUnknown):
        _calling(fail).get_tokens(timeout=WITHIN)


def test_a_callable_that_no_thread_can_be_started_for_is_not_taken_for_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "keyturn-grant":
            raise RuntimeError("can't start new thread")
        started(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RefreshUnavailable):
        _calling(lambda tokens, http: tokens).get_tokens(timeout=WITHIN)


def test_exit_waits_for_what_was_sent_and_gives_up_at_once_what_was_not() -> None:
    sent, unsent = HeldGrant(sends=True), HeldGrant(sends=False)
    waiting = []
    for grant in (sent, unsent):
        waiting.append(start(expired(grant).get_tokens))
        assert grant.began.wait(WITHIN)

    exiting = start(loop._settle_at_exit)

    with pytest.raises(RefreshUnavailable):
        waiting[1].result(WITHIN)  # while the first is still in the air
    assert not exiting.done()
    sent.release()
    exiting.result(WITHIN)
    assert waiting[0].result(WITHIN).access == "new"


def test_exit_gives_up_a_flight_that_has_not_begun() -> None:
    grant = HeldGrant(sends=True)
    credentials = expired(grant)
    blocked, go_on = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        go_on.wait(WITHIN)

    loop.call(block)
    assert blocked.wait(WITHIN)
    with pytest.raises(RefreshTimeout):
        credentials.get_tokens(timeout=0.0)
    flight = credentials._flight
    assert flight is not None
    exiting = start(loop._settle_at_exit)
    until(lambda: flight._over.waiters == 1)

    go_on.set()

    exiting.result(WITHIN)
    assert not grant.began.is_set()
    assert isinstance(flight.outcome, RefreshUnavailable)


def test_it_keeps_nobody_alive_for_the_sake_of_a_fork_to_come() -> None:
    credentials = expired(HeldGrant(sends=False))
    gone = weakref.ref(credentials)
    del credentials
    gc.collect()
    assert gone() is None


def test_a_landed_flight_is_no_longer_in_the_air() -> None:
    grant = HeldGrant(sends=True)
    credentials = expired(grant)
    waiting = start(credentials.get_tokens)
    assert grant.began.wait(WITHIN)
    (flight,) = (one for one in loop._in_air if isinstance(one, Flight) and one.carried is credentials.tokens)
    grant.release()
    waiting.result(WITHIN)
    until(lambda: flight not in loop._in_air)

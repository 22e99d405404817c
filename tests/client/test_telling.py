"""What credentials tell as they live: a flight by two events, a wait by two, a sign-in by one."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import trio

import keyturn
from keyturn.client import events, grants
from keyturn.testing import StrictServer
from tests.kit import Log, credentials_for, in_threads
from tests.waiting import WITHIN, aboard, patient_oauth2, start, until

Kinds = list[type[events.Event]]


def kinds(log: Log) -> Kinds:
    """Return the kinds of what was told, without the waits."""
    return [type(event) for event in log.events if not isinstance(event, events.Waiting | events.Waited)]


def held(server: StrictServer, log: events.Callback, **options: Any) -> keyturn.Credentials:
    """Return credentials whose first caller starts a refresh, which the server holds."""
    server.hold_refresh()
    tokens = server.sign_in(ttl=-1.0)
    return credentials_for(server, tokens, grant=patient_oauth2(server), on_event=log, **options)


# Flights


def test_a_refresh_is_told_when_it_takes_off_and_when_it_lands_under_one_number(
    strict_server: StrictServer,
) -> None:
    log = Log()
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=-1.0), name="alice", on_event=log)
    for expected in (1, 2):
        before = credentials.tokens
        assert before is not None
        assert credentials.renew(before, timeout=WITHIN).generation == expected
        until(lambda expected=expected: len(log.of(events.Refreshed)) == expected)  # type: ignore[misc]

    first, second = log.of(events.Refreshing)
    assert [(one.generation, one.flight) for one in log.of(events.Refreshed)] == [
        (1, first.flight),
        (2, second.flight),
    ]
    assert (first.name, first.generation, second.generation) == ("alice", 0, 1)
    assert first.flight != second.flight
    assert kinds(log) == [events.Refreshing, events.Refreshed] * 2


def close(credentials: keyturn.Credentials) -> None:
    """Close without waiting for what is sent."""
    credentials.close(timeout=0.0)


OVERTAKERS: dict[str, Callable[[keyturn.Credentials], object]] = {
    "sign-in": lambda credentials: credentials.sign_in(keyturn.Tokens("of-bob", "refresh")),
    "sign-out": lambda credentials: credentials.sign_out(),
    "close": close,
}


@pytest.mark.parametrize("overtake", OVERTAKERS.values(), ids=list(OVERTAKERS))
def test_a_flight_that_was_overtaken_is_told_to_have_landed_too(
    strict_server: StrictServer, overtake: Callable[[keyturn.Credentials], object]
) -> None:
    log = Log()
    credentials = held(strict_server, log)
    waiting = start(lambda: credentials.get_tokens(timeout=WITHIN))
    strict_server.wait_for(refreshes=1)
    overtaking = start(lambda: overtake(credentials))
    assert isinstance(waiting.exception(WITHIN), keyturn.KeyturnError)
    strict_server.release()
    overtaking.result(WITHIN)

    until(lambda: bool(log.of(events.Landing)))
    (landing,) = log.of(events.Landing)
    assert type(landing) is events.Overtaken
    assert landing.flight == log.of(events.Refreshing)[0].flight
    assert landing.epoch == log.of(events.Refreshing)[0].epoch


def test_a_flight_that_a_newer_pair_has_overtaken_is_told_under_that_pair(
    strict_server: StrictServer,
) -> None:
    log = Log()
    credentials = held(strict_server, log)
    before = credentials.tokens
    assert before is not None
    waiting = start(lambda: credentials.get_tokens(timeout=WITHIN))
    strict_server.wait_for(refreshes=1)
    assert credentials.adopt(keyturn.Tokens("adopted", "refresh"), before)
    strict_server.fail_refresh(403)
    strict_server.release()

    assert waiting.result(WITHIN).access == "adopted"
    until(lambda: bool(log.of(events.Landing)))
    assert kinds(log) == [events.Refreshing, events.Adopted, events.Overtaken]
    assert log.of(events.Overtaken)[0].generation == 1


def test_a_session_that_ends_is_told_once_with_the_figures_of_its_flight(strict_server: StrictServer) -> None:
    log = Log()
    credentials = held(strict_server, log)
    waiting = [start(lambda: credentials.get_tokens(timeout=WITHIN)) for _ in range(3)]
    until(lambda: aboard(credentials) == 3)
    strict_server.revoke()
    strict_server.release()
    assert {type(one.exception(WITHIN)) for one in waiting} == {keyturn.SessionEnded}
    with pytest.raises(keyturn.SessionEnded):
        credentials.get_tokens()

    until(lambda: bool(log.of(events.Ended)))
    (ended,) = log.of(events.Landing)
    assert isinstance(ended, events.Ended)
    assert (ended.waiters, ended.attempts, ended.flight) == (3, 1, log.of(events.Refreshing)[0].flight)
    assert len(log.of(events.Waiting)) == 3, "who came later did not wait"


def test_a_context_variable_that_is_set_at_the_take_off_is_there_for_the_exchange_and_the_landing() -> None:
    place: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="nowhere")
    seen = list[tuple[str, str]]()

    async def grant(tokens: keyturn.Tokens, http: httpx2.AsyncClient) -> keyturn.Tokens:
        seen.append(("exchange", place.get()))
        return keyturn.Tokens("new")

    def callback(event: events.Event) -> None:
        if isinstance(event, events.Refreshing):
            place.set(f"flight {event.flight}")
        seen.append((type(event).__name__, place.get()))

    place.set("the caller's")
    credentials = keyturn.Credentials(
        grant, tokens=keyturn.Tokens("old", "r", 1.0), origins=["https://api.example"], on_event=callback
    )
    credentials.get_tokens(timeout=WITHIN)
    until(lambda: len(seen) == 5)

    told = dict(seen)
    assert told["Refreshing"] == told["exchange"] == told["Refreshed"]
    assert told["Refreshing"].startswith("flight ")
    assert told["Waiting"] == told["Waited"] == "the caller's"


# Waits


class Places:
    """An `on_event` callback that keeps the waits, and in which thread and task each was told."""

    def __init__(self) -> None:
        self.told: list[tuple[events.Waiting | events.Waited, object]] = []

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Waiting | events.Waited):
            self.told.append((event, PLACE.get()))

    def results(self) -> dict[object, events.Waited]:
        """Return how the wait at each place ended; each was told twice, there."""
        ended = {place: event for event, place in self.told if isinstance(event, events.Waited)}
        begun = [place for event, place in self.told if isinstance(event, events.Waiting)]
        assert sorted(map(str, begun)) == sorted(map(str, ended))
        assert len(self.told) == 2 * len(begun)
        return ended


PLACE: contextvars.ContextVar[object] = contextvars.ContextVar("place")


def test_every_wait_is_told_twice_in_the_context_of_who_waits(strict_server: StrictServer) -> None:
    places = Places()
    credentials = held(strict_server, places)

    def in_thread(i: int) -> None:
        PLACE.set(("thread", threading.get_ident(), i))
        credentials.get_tokens(timeout=WITHIN)

    async def task(kind: str, i: int) -> None:
        PLACE.set((kind, threading.get_ident(), i))
        await credentials.aget_tokens(timeout=WITHIN)

    async def in_asyncio() -> None:
        await asyncio.gather(*(task("asyncio", i) for i in range(5)))

    async def in_trio() -> None:
        async with trio.open_nursery() as nursery:
            for i in range(5):
                nursery.start_soon(task, "trio", i)

    crowds: list[Future[object]] = [
        start(lambda: in_threads(5, in_thread)),
        start(lambda: asyncio.run(in_asyncio())),
        start(lambda: trio.run(in_trio)),
    ]
    until(lambda: aboard(credentials) == 15)
    strict_server.release()
    for crowd in crowds:
        crowd.result(WITHIN)

    results = places.results()
    assert len(results) == 15
    assert {(event.result, event.cause) for event in results.values()} == {("renewed", None)}
    assert len({event.flight for event in results.values()}) == 1
    assert all(0 < event.duration < WITHIN for event in results.values())


def test_who_needs_not_wait_is_not_told_of(strict_server: StrictServer) -> None:
    log = Log()
    credentials = credentials_for(strict_server, on_event=log)
    for _ in range(3):
        credentials.get_tokens()

    async def main() -> None:
        await credentials.aget_tokens(timeout=1.0)

    asyncio.run(main())
    assert log.events == []


def test_a_wait_that_ends_early_says_how(strict_server: StrictServer) -> None:
    log = Log()
    credentials = held(strict_server, log)

    async def cancelled() -> None:
        task = asyncio.create_task(credentials.aget_tokens())
        await asyncio.to_thread(until, lambda: aboard(credentials) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def cancelled_in_trio() -> None:
        with trio.move_on_after(0):
            await credentials.aget_tokens()

    with pytest.raises(keyturn.RefreshTimeout) as late:
        credentials.get_tokens(timeout=0.0)
    asyncio.run(cancelled())
    trio.run(cancelled_in_trio)
    strict_server.release()

    told = log.of(events.Waited)
    assert [event.result for event in told] == ["timed_out", "cancelled", "cancelled"]
    assert [event.cause for event in told] == [late.value, None, None]


def test_a_wait_that_fails_says_by_what_also_where_a_valid_token_was_kept(
    strict_server: StrictServer,
) -> None:
    log = Log()
    strict_server.fail_refresh(403, times=2)
    strict_server.hold_refresh()
    tokens = strict_server.sign_in(ttl=600.0)
    credentials = credentials_for(
        strict_server, tokens, grant=patient_oauth2(strict_server), on_event=log, retry_for=timedelta(0)
    )
    refused = credentials.tokens
    assert refused is not None
    waiting = [
        start(lambda: credentials.renew(refused, timeout=WITHIN)),
        start(lambda: credentials.get_tokens(min_ttl=timedelta(hours=1), timeout=WITHIN)),
    ]
    until(lambda: aboard(credentials) == 2)
    strict_server.release()
    assert isinstance(waiting[0].exception(WITHIN), keyturn.RefreshMisconfigured)
    assert waiting[1].result(WITHIN) is refused

    told = {event.result: event.cause for event in log.of(events.Waited)}
    assert set(told) == {"failed", "kept"}
    assert {type(cause) for cause in told.values()} == {keyturn.RefreshMisconfigured}


# Sign-in and sign-out


def test_a_sign_in_and_a_sign_out_are_told_and_the_tokens_to_begin_with_are_none() -> None:
    log = Log()
    credentials = keyturn.Credentials(
        grants.OAuth2("https://id.example/token"),
        tokens=keyturn.Tokens("seed", "refresh"),
        origins=["https://api.example"],
        name="alice",
        on_event=log,
    )
    assert log.events == []
    seed = credentials.tokens
    credentials.sign_in(keyturn.Tokens("second", "refresh"))
    second = credentials.tokens
    credentials.sign_out()
    credentials.sign_out()
    credentials.close()
    assert seed is not None
    assert second is not None

    assert kinds(log) == [events.SignedIn, events.SignedOut]
    assert [(event.name, event.epoch, event.generation) for event in log.events] == [
        ("alice", second.epoch, 0)
    ] * 2


def test_a_callback_may_sign_in_where_it_is_told_that_the_session_has_ended(
    strict_server: StrictServer,
) -> None:
    log, mine = Log(), list[keyturn.Credentials]()

    def callback(event: events.Event) -> None:
        log(event)
        if isinstance(event, events.Ended):
            mine[0].sign_in(strict_server.sign_in())

    tokens = strict_server.sign_in(ttl=-1.0)
    strict_server.revoke()
    mine.append(credentials_for(strict_server, tokens, on_event=callback))
    with pytest.raises(keyturn.SessionEnded):
        mine[0].get_tokens(timeout=WITHIN)

    until(lambda: mine[0].tokens is not None)
    assert mine[0].get_tokens(timeout=WITHIN).generation == 0
    assert kinds(log) == [events.Refreshing, events.Ended, events.SignedIn]

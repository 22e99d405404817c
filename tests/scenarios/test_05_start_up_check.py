"""Scenario 5: what an application asks when it starts: are there tokens for the next twelve hours?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta

import pytest

import keyturn
from keyturn.client import events
from keyturn.testing import StrictServer
from tests.kit import Log, credentials_for, in_threads, oauth2, run_in_loop

from .callers import until, waiting
from .ways import announced, beside

TWELVE_HOURS = timedelta(hours=12)
HOUR = 3600.0
Ask = Callable[[keyturn.Credentials], object]


def _blocking(credentials: keyturn.Credentials) -> object:
    return credentials.get_tokens(min_ttl=TWELVE_HOURS)


def _awaiting(credentials: keyturn.Credentials) -> object:
    return asyncio.run(credentials.aget_tokens(min_ttl=TWELVE_HOURS))


ASKS = pytest.mark.parametrize("ask", [_blocking, _awaiting])


@ASKS
@pytest.mark.parametrize("left", [12.1 * HOUR, 48 * HOUR])
def test_more_than_twelve_hours_left_cost_no_request_at_all(
    strict_server: StrictServer, ask: Ask, left: float
) -> None:
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=left))
    before = credentials.tokens

    for _ in range(3):
        assert ask(credentials) is before

    assert not strict_server.seen


@ASKS
@pytest.mark.parametrize("left", [11.9 * HOUR, 60.0, -HOUR])
def test_less_than_twelve_hours_left_cost_one_refresh(
    strict_server: StrictServer, ask: Ask, left: float
) -> None:
    strict_server.configure(ttl=24 * HOUR)
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=left))

    for _ in range(3):
        ask(credentials)

    tokens = credentials.tokens
    assert tokens is not None
    assert tokens.left(time.time()) > 12 * HOUR
    assert (strict_server.stats.refreshes, len(strict_server.seen)) == (1, 1)


@ASKS
@pytest.mark.parametrize("left", [11.9 * HOUR, -HOUR])
def test_a_dead_refresh_token_wipes_the_tokens_and_says_that_the_session_has_ended(
    strict_server: StrictServer, ask: Ask, left: float
) -> None:
    log = Log()
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=left), on_event=log)
    strict_server.revoke()

    for _ in range(3):
        with pytest.raises(keyturn.SessionEnded) as caught:
            ask(credentials)
        assert caught.value.reason == "refused"
    announced()

    assert credentials.tokens is None
    assert strict_server.stats.refreshes == 1
    assert len(log.of(events.Ended)) == 1


@ASKS
def test_without_any_tokens_it_says_to_sign_in_without_a_request(
    strict_server: StrictServer, ask: Ask
) -> None:
    credentials = keyturn.Credentials(oauth2(strict_server), origins=[strict_server.url])

    with pytest.raises(keyturn.NotSignedIn) as caught:
        ask(credentials)

    assert not isinstance(caught.value, keyturn.SessionEnded)
    assert not strict_server.seen


@ASKS
def test_tokens_that_are_good_for_now_survive_a_refresh_end_point_that_is_down(
    strict_server: StrictServer, ask: Ask
) -> None:
    strict_server.fail_refresh(503, times=100)
    signed_in = strict_server.sign_in(ttl=HOUR)
    credentials = credentials_for(strict_server, signed_in, retry_for=timedelta(0))

    assert ask(credentials) is credentials.tokens
    assert credentials.tokens is not None
    assert credentials.tokens.access == signed_in.access


@ASKS
def test_a_token_that_nobody_gave_an_expiry_is_taken_as_it_is(strict_server: StrictServer, ask: Ask) -> None:
    credentials = credentials_for(strict_server, keyturn.Tokens("opaque", "refresh"))

    ask(credentials)

    assert not strict_server.seen


def test_twenty_callers_at_start_up_cost_one_refresh(strict_server: StrictServer) -> None:
    strict_server.configure(ttl=24 * HOUR)
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=HOUR))

    tokens = in_threads(20, lambda _: credentials.get_tokens(min_ttl=TWELVE_HOURS))

    assert len({id(one) for one in tokens}) == 1
    assert (strict_server.stats.refreshes, strict_server.stats.sessions_live) == (1, 1)


def test_twenty_tasks_at_start_up_cost_one_refresh(strict_server: StrictServer) -> None:
    strict_server.configure(ttl=24 * HOUR)
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=HOUR))

    async def main() -> list[keyturn.Tokens]:
        return await asyncio.gather(*(credentials.aget_tokens(min_ttl=TWELVE_HOURS) for _ in range(20)))

    assert len({id(one) for one in run_in_loop(main)}) == 1
    assert strict_server.stats.refreshes == 1


def test_twenty_loops_of_five_tasks_beside_twenty_plain_threads_cost_one_refresh_at_start_up(
    strict_server: StrictServer,
) -> None:
    strict_server.configure(ttl=24 * HOUR)
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=HOUR))
    strict_server.hold_refresh()

    def worker(i: int) -> list[keyturn.Tokens]:
        if i % 2:
            return [credentials.get_tokens(min_ttl=TWELVE_HOURS)]

        async def main() -> list[keyturn.Tokens]:
            return await asyncio.gather(*(credentials.aget_tokens(min_ttl=TWELVE_HOURS) for _ in range(5)))

        return run_in_loop(main)

    def main() -> None:
        strict_server.wait_for(refreshes=1)
        until(lambda: waiting(credentials) == 120)
        strict_server.release()

    tokens = beside(main, lambda: in_threads(40, worker))

    assert len({id(one) for some in tokens for one in some}) == 1
    assert (strict_server.stats.refreshes, strict_server.stats.sessions_live) == (1, 1)


def test_twenty_callers_who_ask_for_more_than_the_server_grants_cost_one_refresh_and_are_all_answered(
    strict_server: StrictServer,
) -> None:
    strict_server.configure(ttl=60.0)
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=30.0))
    strict_server.hold_refresh()

    def main() -> None:
        strict_server.wait_for(refreshes=1)
        until(lambda: waiting(credentials) == 20)
        strict_server.release()

    tokens = beside(main, lambda: in_threads(20, lambda _: credentials.get_tokens(min_ttl=TWELVE_HOURS)))

    assert {one.generation for one in tokens} == {1}
    assert strict_server.stats.refreshes == 1


def test_twenty_callers_with_a_dead_refresh_token_cost_one_refresh_and_one_end(
    strict_server: StrictServer,
) -> None:
    log = Log()
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=HOUR), on_event=log)
    strict_server.revoke()

    def caller(_: int) -> str:
        with pytest.raises(keyturn.SessionEnded) as caught:
            credentials.get_tokens(min_ttl=TWELVE_HOURS)
        return caught.value.reason

    assert in_threads(20, caller) == ["refused"] * 20
    announced()
    assert (strict_server.stats.refreshes, len(log.of(events.Ended))) == (1, 1)
    assert credentials.tokens is None


@ASKS
def test_a_server_that_grants_less_is_taken_at_its_word_until_that_runs_out(
    strict_server: StrictServer, ask: Ask
) -> None:
    strict_server.configure(ttl=HOUR)
    ahead = 0.0
    credentials = credentials_for(
        strict_server, strict_server.sign_in(ttl=60.0), clock=lambda: time.time() + ahead
    )

    for _ in range(5):
        ask(credentials)
    assert strict_server.stats.refreshes == 1

    ahead = HOUR
    for _ in range(5):
        ask(credentials)
    assert strict_server.stats.refreshes == 2

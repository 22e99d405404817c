"""Credentials that begin without tokens: a seed that is loaded, and a grant that signs in by itself."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

import keyturn
from keyturn.client import events, grants, loop
from keyturn.testing import StrictServer
from tests.kit import Log, in_threads, oauth2, run_in_loop
from tests.waiting import WITHIN, aboard, start, until

CROWD = 30
NOT_CALLED = "a seed that nobody needed was loaded"


def _credentials(
    server: StrictServer,
    seed: Callable[[], keyturn.Tokens | None] | Callable[[], Awaitable[keyturn.Tokens | None]],
    on_event: events.Callback | None = None,
) -> keyturn.Credentials:
    return keyturn.Credentials(
        oauth2(server),
        tokens=seed,
        origins=[server.url],
        on_event=on_event,
        retry_for=timedelta(seconds=0.3),
    )


def _never() -> keyturn.Tokens:
    raise AssertionError(NOT_CALLED)


def test_a_seed_is_loaded_at_the_first_use_and_not_before(strict_server: StrictServer) -> None:
    tokens, calls = strict_server.sign_in(), []

    def seed() -> keyturn.Tokens:
        calls.append(threading.current_thread().name)
        return tokens

    credentials = _credentials(strict_server, seed)
    assert (credentials.tokens, calls) == (None, [])
    assert "not used yet" in repr(credentials)

    first = credentials.get_tokens(timeout=WITHIN)

    assert (first.access, first.generation) == (tokens.access, 0)
    assert credentials.get_tokens() is first is credentials.tokens
    assert calls == ["keyturn-seed"]
    assert strict_server.stats.refreshes == 0


def test_an_async_seed_is_loaded_on_keyturns_loop(strict_server: StrictServer) -> None:
    tokens, where = strict_server.sign_in(), []

    async def seed() -> keyturn.Tokens:
        await asyncio.sleep(0)
        where.append(loop.is_current())
        return tokens

    assert _credentials(strict_server, seed).get_tokens(timeout=WITHIN).access == tokens.access
    assert where == [True]


def test_a_crowd_at_the_first_use_loads_one_seed(strict_server: StrictServer) -> None:
    tokens, calls, go_on = strict_server.sign_in(), [], threading.Event()

    def seed() -> keyturn.Tokens:
        calls.append(1)
        assert go_on.wait(WITHIN)
        return tokens

    credentials = _credentials(strict_server, seed)
    crowd = start(lambda: in_threads(CROWD, lambda i: credentials.get_tokens(timeout=WITHIN).access))
    until(lambda: aboard(credentials) == CROWD)
    go_on.set()

    assert crowd.result(WITHIN) == [tokens.access] * CROWD
    assert calls == [1]


def test_a_seed_that_has_expired_is_renewed_on_the_same_flight_and_never_handed_out(
    strict_server: StrictServer,
) -> None:
    credentials = _credentials(strict_server, lambda: strict_server.sign_in(ttl=-1.0))

    answers = in_threads(CROWD, lambda i: credentials.get_tokens(timeout=WITHIN))

    assert {tokens.generation for tokens in answers} == {0}
    assert all(tokens.left(time.time()) > 0 for tokens in answers)
    assert strict_server.stats.refreshes == 1


def test_without_a_seed_nobody_is_signed_in_and_the_next_use_asks_again(strict_server: StrictServer) -> None:
    kept: list[keyturn.Tokens] = []
    credentials = _credentials(strict_server, lambda: kept[-1] if kept else None)

    for _ in range(2):
        with pytest.raises(keyturn.NotSignedIn, match="knows of none") as raised:
            credentials.get_tokens(timeout=WITHIN)
        assert type(raised.value) is keyturn.NotSignedIn

    kept.append(strict_server.sign_in())
    assert credentials.get_tokens(timeout=WITHIN).access == kept[0].access


def test_a_seed_that_cannot_be_loaded_is_tried_again_and_then_told_without_what_it_said(
    strict_server: StrictServer,
) -> None:
    calls: list[int] = []

    def seed() -> keyturn.Tokens:
        calls.append(1)
        raise sqlite3.OperationalError("refresh-token-7 is locked")

    with pytest.raises(keyturn.RefreshUnavailable, match="OperationalError") as raised:
        _credentials(strict_server, seed).get_tokens(timeout=WITHIN)

    assert raised.value.attempts == len(calls) >= 2
    assert "refresh-token-7" not in str(raised.value)


def test_a_seed_that_takes_too_long_leaves_nothing_unknown(strict_server: StrictServer) -> None:
    go_on = threading.Event()
    grant = grants.OAuth2(strict_server.url + "/token", timeout=timedelta(seconds=0.2))

    def seed() -> None:
        go_on.wait(WITHIN)

    credentials = keyturn.Credentials(
        grant, tokens=seed, origins=[strict_server.url], retry_for=timedelta(seconds=0)
    )
    with pytest.raises(keyturn.RefreshUnavailable, match="TimeoutError"):
        credentials.get_tokens(timeout=WITHIN)
    go_on.set()


def test_an_expired_seed_whose_refresh_gets_no_answer_is_unknown_and_not_sent_again(
    strict_server: StrictServer,
) -> None:
    strict_server.drop_refresh()
    credentials = _credentials(strict_server, lambda: strict_server.sign_in(ttl=-1.0))

    for _ in range(2):
        with pytest.raises(keyturn.OutcomeUnknown):
            credentials.get_tokens(timeout=WITHIN)

    assert strict_server.stats.refreshes == 1


def test_what_is_no_seed_is_a_clear_error(strict_server: StrictServer) -> None:
    wrong: object = {"access_token": "secret"}
    credentials = _credentials(strict_server, lambda: wrong)  # type: ignore[arg-type]

    with pytest.raises(keyturn.RefreshMisconfigured, match="not dict") as raised:
        credentials.get_tokens(timeout=WITHIN)
    assert "secret" not in str(raised.value)
    with pytest.raises(keyturn.ConfigurationError, match="what loads one"):
        _credentials(strict_server, wrong)  # type: ignore[arg-type]


def test_a_sign_in_before_the_first_use_needs_no_seed(strict_server: StrictServer) -> None:
    credentials = _credentials(strict_server, _never)
    tokens = strict_server.sign_in("bob")

    credentials.sign_in(tokens)

    assert credentials.get_tokens(timeout=WITHIN).access == tokens.access


def test_a_sign_in_while_the_seed_is_loaded_is_not_overwritten_by_it(strict_server: StrictServer) -> None:
    go_on, begun = threading.Event(), threading.Event()

    def seed() -> keyturn.Tokens:
        begun.set()
        assert go_on.wait(WITHIN)
        return strict_server.sign_in("alice")

    credentials = _credentials(strict_server, seed)
    first = start(lambda: credentials.get_tokens(timeout=WITHIN))
    assert begun.wait(WITHIN)
    bob = strict_server.sign_in("bob")
    credentials.sign_in(bob)
    go_on.set()

    with pytest.raises(keyturn.SessionEnded) as raised:
        first.result(WITHIN)
    assert raised.value.reason == "replaced"
    assert credentials.get_tokens(timeout=WITHIN).access == bob.access


def test_a_seed_whose_refresh_is_refused_ends_the_session_for_good(strict_server: StrictServer) -> None:
    tokens, calls = strict_server.sign_in(ttl=-1.0), []
    strict_server.revoke()

    def seed() -> keyturn.Tokens:
        calls.append(1)
        return tokens

    credentials = _credentials(strict_server, seed)
    for _ in range(2):
        with pytest.raises(keyturn.SessionEnded) as raised:
            credentials.get_tokens(timeout=WITHIN)
        assert raised.value.reason == "refused"

    assert (calls, strict_server.stats.refreshes) == ([1], 1)


def test_a_seed_is_announced_as_what_it_is(strict_server: StrictServer) -> None:
    log = Log()
    credentials = _credentials(strict_server, lambda: strict_server.sign_in(), log)

    credentials.get_tokens(timeout=WITHIN)
    until(lambda: bool(log.of(events.Landing)))

    assert [type(one) for one in log.of(events.Landing)] == [events.Loaded]
    assert log.of(events.Refreshed) == []


# A grant that signs in by itself


def _own(server: StrictServer, **options: object) -> keyturn.Credentials:
    grant = grants.ClientCredentials(server.url + "/token", client_id="tests", client_secret="s3cret")
    return keyturn.Credentials(grant, origins=[server.url], **options)  # type: ignore[arg-type]


def test_a_storm_on_client_credentials_without_tokens_asks_for_one_token(strict_server: StrictServer) -> None:
    log = Log()
    credentials = _own(strict_server, on_event=log)
    assert credentials.tokens is None

    answers = in_threads(CROWD, lambda i: credentials.get_tokens(timeout=WITHIN))

    assert len({tokens.access for tokens in answers}) == 1
    assert {(tokens.generation, tokens.refresh) for tokens in answers} == {(0, None)}
    assert strict_server.stats.refreshes == 1
    until(lambda: bool(log.of(events.Refreshed)))


def test_client_credentials_whose_token_was_refused_ask_for_a_new_one(strict_server: StrictServer) -> None:
    credentials = _own(strict_server)
    carried = credentials.get_tokens(timeout=WITHIN)

    renewed = in_threads(CROWD, lambda i: credentials.renew(carried, timeout=WITHIN))

    assert {tokens.generation for tokens in renewed} == {1}
    assert strict_server.stats.refreshes == 2


def test_client_credentials_survive_a_lost_answer_since_nothing_is_spent(strict_server: StrictServer) -> None:
    strict_server.drop_refresh()

    async def main() -> list[keyturn.Tokens]:
        credentials = _own(strict_server)
        return await asyncio.gather(*(credentials.aget_tokens(timeout=WITHIN) for _ in range(CROWD)))

    assert len({tokens.access for tokens in run_in_loop(main)}) == 1
    assert strict_server.stats.refreshes == 2


def test_client_credentials_that_signed_out_stay_so(strict_server: StrictServer) -> None:
    credentials = _own(strict_server)
    credentials.get_tokens(timeout=WITHIN)

    credentials.sign_out()

    with pytest.raises(keyturn.SessionEnded) as raised:
        credentials.get_tokens(timeout=WITHIN)
    assert raised.value.reason == "signed_out"
    assert strict_server.stats.refreshes == 1

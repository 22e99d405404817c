"""Scenario 8, a refresh that would wait for itself: raised at once, wherever it hides."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import httpx2
import pytest

import keyturn
from keyturn.client import events, grants
from keyturn.errors import ReentrantRefresh
from keyturn.testing import StrictServer
from tests.kit import HOSTS, Host, Log, credentials_for, in_threads, run_in_loop
from tests.waiting import WITHIN, start, until

Again = Callable[[keyturn.Credentials, Host, StrictServer], object]
AgainAsync = Callable[[keyturn.Credentials, Host, StrictServer], Coroutine[Any, Any, object]]

HURRY = timedelta(seconds=WITHIN)  # a grant that hangs is cut off only after the test has failed


def _current(credentials: keyturn.Credentials) -> keyturn.client.Snapshot:
    assert credentials.tokens is not None
    return credentials.tokens


def _through_auth(credentials: keyturn.Credentials, host: Host, server: StrictServer) -> object:
    with host.client(server, credentials) as api:
        return api.get("/x")


async def _through_async_auth(credentials: keyturn.Credentials, host: Host, server: StrictServer) -> object:
    async with host.async_client(server, credentials) as api:
        return await api.get("/x")


BLOCKING: dict[str, Again] = {
    "get_tokens": lambda credentials, host, server: credentials.get_tokens(),
    "renew": lambda credentials, host, server: credentials.renew(_current(credentials)),
    "retry_unknown": lambda credentials, host, server: credentials.retry_unknown(),
    "close": lambda credentials, host, server: credentials.close(),
    "auth": _through_auth,
    "a-loop-of-its-own": lambda credentials, host, server: asyncio.run(credentials.aget_tokens()),
}
AWAITING: dict[str, AgainAsync] = {
    "aget_tokens": lambda credentials, host, server: credentials.aget_tokens(),
    "arenew": lambda credentials, host, server: credentials.arenew(_current(credentials)),
    "aretry_unknown": lambda credentials, host, server: credentials.aretry_unknown(),
    "aclose": lambda credentials, host, server: credentials.aclose(),
    "auth": _through_async_auth,
}


def _exchange(server: StrictServer, tokens: keyturn.Tokens) -> dict[str, Any]:
    form = {"grant_type": "refresh_token", "refresh_token": tokens.refresh, "client_id": "tests"}
    return {"url": server.url + "/token", "data": form}


def _pair(response: httpx2.Response) -> keyturn.Tokens:
    return grants.OAuth2(str(response.url)).read(response)


def _grant_that_refreshes_first(
    again: Again | AgainAsync, host: Host, server: StrictServer, mine: list[keyturn.Credentials]
) -> grants.Function:
    """Return a grant that does `again` before its exchange."""
    if again in AWAITING.values():

        async def ask(tokens: keyturn.Tokens, http: httpx2.AsyncClient) -> keyturn.Tokens:
            await again(mine[0], host, server)  # type: ignore[misc]
            return _pair(await http.post(**_exchange(server, tokens)))

        return ask

    def ask_blocking(tokens: keyturn.Tokens, http: httpx2.Client) -> keyturn.Tokens:
        again(mine[0], host, server)
        return _pair(http.post(**_exchange(server, tokens)))

    return ask_blocking


WAYS = [
    *(pytest.param(again, id=f"blocking-{name}") for name, again in BLOCKING.items()),
    *(pytest.param(again, id=f"awaiting-{name}") for name, again in AWAITING.items()),
]


@pytest.mark.parametrize("host", HOSTS, ids=str)
@pytest.mark.parametrize("again", WAYS)
def test_a_grant_that_waits_for_its_own_refresh_is_told_so_and_nobody_hangs(
    strict_server: StrictServer, host: Host, again: Again | AgainAsync
) -> None:
    mine: list[keyturn.Credentials] = []
    grant = grants.Call(_grant_that_refreshes_first(again, host, strict_server, mine), timeout=HURRY)
    tokens = strict_server.sign_in(ttl=-1.0)
    mine.append(credentials_for(strict_server, tokens, grant=grant))

    def call(_: int) -> None:
        with pytest.raises(ReentrantRefresh):
            mine[0].get_tokens(timeout=WITHIN)

    in_threads(3, call)

    assert strict_server.stats.refreshes == 0
    assert strict_server.alive(tokens), "nothing was spent, and the tokens are kept"
    assert _current(mine[0]).refresh == tokens.refresh


@pytest.mark.parametrize("again", WAYS)
def test_a_grant_that_takes_the_hint_goes_on_and_everyone_is_answered(
    strict_server: StrictServer, again: Again | AgainAsync
) -> None:
    mine: list[keyturn.Credentials] = []
    told: list[ReentrantRefresh] = []

    def take_the_hint(credentials: keyturn.Credentials, host: Host, server: StrictServer) -> object:
        try:
            return again(credentials, host, server)
        except ReentrantRefresh as error:
            told.append(error)
            return None

    async def take_the_hint_async(
        credentials: keyturn.Credentials, host: Host, server: StrictServer
    ) -> object:
        try:
            return await again(credentials, host, server)  # type: ignore[misc]
        except ReentrantRefresh as error:
            told.append(error)
            return None

    ways: list[Again | AgainAsync] = [take_the_hint]
    if again in AWAITING.values():
        ways = [take_the_hint_async]
    with pytest.MonkeyPatch.context() as patched:
        if again in AWAITING.values():
            patched.setitem(AWAITING, "it", take_the_hint_async)
        grant = grants.Call(
            _grant_that_refreshes_first(ways[0], HOSTS[0], strict_server, mine), timeout=HURRY
        )
    mine.append(credentials_for(strict_server, strict_server.sign_in(ttl=-1.0), grant=grant))

    answers = in_threads(3, lambda _: mine[0].get_tokens(timeout=WITHIN).generation)

    assert answers == [1] * 3
    assert len(told) == strict_server.stats.refreshes == 1


def test_an_async_grant_that_blocks_on_its_own_refresh_is_told_so(strict_server: StrictServer) -> None:
    mine: list[keyturn.Credentials] = []

    async def ask(tokens: keyturn.Tokens, http: httpx2.AsyncClient) -> keyturn.Tokens:
        return mine[0].get_tokens()

    mine.append(
        credentials_for(strict_server, strict_server.sign_in(ttl=-1.0), grant=grants.Call(ask, timeout=HURRY))
    )
    with pytest.raises(ReentrantRefresh):
        mine[0].get_tokens(timeout=WITHIN)


def test_two_credentials_whose_grants_use_each_other_are_told_so(strict_server: StrictServer) -> None:
    pair: list[keyturn.Credentials] = []

    def grant(other: int) -> grants.Call:
        async def ask(tokens: keyturn.Tokens, http: httpx2.AsyncClient) -> keyturn.Tokens:
            return await pair[other].aget_tokens()

        return grants.Call(ask, timeout=HURRY)

    for other in (1, 0):
        tokens = strict_server.sign_in(ttl=-1.0)
        pair.append(credentials_for(strict_server, tokens, grant=grant(other)))

    with pytest.raises(ReentrantRefresh):
        pair[0].get_tokens(timeout=WITHIN)


@pytest.mark.parametrize("host", HOSTS, ids=str)
def test_a_grant_may_use_other_credentials_that_refresh_in_their_turn(
    strict_server: StrictServer, other_server: StrictServer, host: Host
) -> None:
    outer = credentials_for(other_server, other_server.sign_in(ttl=-1.0))

    async def ask(tokens: keyturn.Tokens, http: httpx2.AsyncClient) -> keyturn.Tokens:
        async with host.async_client(other_server, outer) as api:
            assert (await api.get("/x")).status_code == 200
        return _pair(await http.post(**_exchange(strict_server, tokens)))

    credentials = credentials_for(
        strict_server, strict_server.sign_in(ttl=-1.0), grant=grants.Call(ask, timeout=HURRY)
    )
    answers = in_threads(5, lambda _: credentials.get_tokens(timeout=WITHIN).generation)
    assert answers == [1] * 5
    assert (strict_server.stats.refreshes, other_server.stats.refreshes) == (1, 1)


def test_a_task_that_a_grant_has_left_behind_may_refresh_later(strict_server: StrictServer) -> None:
    mine: list[keyturn.Credentials] = []
    landed = asyncio.Event()
    left_behind: list[asyncio.Task[int]] = []

    async def later() -> int:
        await landed.wait()
        return (await mine[0].arenew(_current(mine[0]))).generation

    async def ask(tokens: keyturn.Tokens, http: httpx2.AsyncClient) -> keyturn.Tokens:
        if not left_behind:
            left_behind.append(asyncio.create_task(later()))
        return _pair(await http.post(**_exchange(strict_server, tokens)))

    mine.append(
        credentials_for(strict_server, strict_server.sign_in(ttl=-1.0), grant=grants.Call(ask, timeout=HURRY))
    )
    assert mine[0].get_tokens(timeout=WITHIN).generation == 1
    left_behind[0].get_loop().call_soon_threadsafe(landed.set)
    until(left_behind[0].done)
    assert left_behind[0].result() == 2


# What an on_event callback may do, on keyturn's own thread


def test_a_callback_that_blocks_on_another_refresh_is_told_so(
    strict_server: StrictServer, other_server: StrictServer
) -> None:
    others = credentials_for(other_server, other_server.sign_in(ttl=-1.0))
    told: list[BaseException] = []

    def block(event: events.Event) -> None:
        if not isinstance(event, events.Refreshed):
            return
        for wait in (others.get_tokens, others.close):
            try:
                wait()
            except ReentrantRefresh as error:
                told.append(error)

    other_server.hold_refresh()
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=-1.0), on_event=block)
    assert credentials.get_tokens(timeout=WITHIN).generation == 1
    until(lambda: len(told) == 2)

    other_server.release()
    assert others.get_tokens(timeout=WITHIN).generation == 1, "the refresh that it started went on"


def test_a_callback_that_blocks_on_its_own_credentials_gets_what_the_flight_brought(
    strict_server: StrictServer,
) -> None:
    mine: list[keyturn.Credentials] = []
    got: list[int] = []
    told = threading.Event()

    def look(event: events.Event) -> None:
        if isinstance(event, events.Refreshed):
            got.append(mine[0].get_tokens().generation)
            told.set()

    mine.append(credentials_for(strict_server, strict_server.sign_in(ttl=-1.0), on_event=look))
    assert mine[0].get_tokens(timeout=WITHIN).generation == 1
    assert told.wait(WITHIN)
    assert got == [1]


def test_a_callback_may_close_the_credentials_that_it_is_told_of(strict_server: StrictServer) -> None:
    mine: list[keyturn.Credentials] = []
    told = threading.Event()

    def close(event: events.Event) -> None:
        if isinstance(event, events.Refreshed):
            mine[0].close()
            told.set()

    mine.append(credentials_for(strict_server, strict_server.sign_in(ttl=-1.0), on_event=close))
    assert mine[0].get_tokens(timeout=WITHIN).generation == 1
    assert told.wait(WITHIN)
    with pytest.raises(keyturn.KeyturnError):
        mine[0].get_tokens()


def test_a_callback_that_waits_on_the_thread_of_a_caller_is_not_told_of_its_own_wait(
    strict_server: StrictServer,
) -> None:
    mine: list[keyturn.Credentials] = []
    log, got = Log(), list[int]()

    def wait(event: events.Event) -> None:
        log(event)
        if isinstance(event, events.Waiting):
            got.append(mine[0].get_tokens(timeout=WITHIN).generation)

    mine.append(credentials_for(strict_server, strict_server.sign_in(ttl=-1.0), on_event=wait))
    assert mine[0].get_tokens(timeout=WITHIN).generation == 1
    assert (got, len(log.of(events.Waiting)), len(log.of(events.Waited))) == ([1], 1, 1)


@pytest.mark.parametrize("host", HOSTS, ids=str)
def test_work_that_a_callback_hands_to_another_loop_may_refresh(
    strict_server: StrictServer, host: Host
) -> None:
    async def main() -> list[int]:
        loop, worked = asyncio.get_running_loop(), asyncio.Event()
        workers: list[asyncio.Task[int]] = []

        async def work() -> int:
            async with host.async_client(strict_server, credentials) as api:
                return int((await api.get("/x")).status_code)

        def begin() -> None:
            strict_server.expire()
            workers.append(loop.create_task(work()))
            worked.set()

        def hand_over(event: events.Event) -> None:
            if event.generation == 1 and isinstance(event, events.Refreshed):
                loop.call_soon_threadsafe(begin)

        credentials = credentials_for(strict_server, strict_server.sign_in(ttl=-1.0), on_event=hand_over)
        await credentials.aget_tokens()
        await worked.wait()
        return [await worker for worker in workers]

    assert run_in_loop(main) == [200]
    assert strict_server.stats.refreshes == 2


def test_a_callback_that_raises_is_logged_and_the_flight_is_not_told(
    strict_server: StrictServer, caplog: pytest.LogCaptureFixture
) -> None:
    log = Log()

    def fail(event: events.Event) -> None:
        log(event)
        raise ZeroDivisionError

    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=-1.0), on_event=fail)
    waiting = [start(lambda: credentials.get_tokens(timeout=WITHIN)) for _ in range(3)]
    assert [one.result(WITHIN).generation for one in waiting] == [1] * 3
    until(lambda: "ZeroDivisionError" in caplog.text)
    assert len(log.of(events.Refreshed)) == 1

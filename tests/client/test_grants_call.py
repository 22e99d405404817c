"""Call: a callable in place of a grant."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
from typing import Any

import httpx2
import pytest

import keyturn
from keyturn.client import grants

from .end_point import URL, Server, buy


async def _async(tokens: keyturn.Tokens, http: httpx2.AsyncClient) -> keyturn.Tokens:
    answer = await http.post(URL, json={"token": tokens.refresh})
    answer.raise_for_status()
    return keyturn.Tokens(answer.json()["access_token"], answer.json()["refresh_token"])


def _sync(tokens: keyturn.Tokens, http: httpx2.Client) -> keyturn.Tokens:
    answer = http.post(URL, json={"token": tokens.refresh})
    answer.raise_for_status()
    return keyturn.Tokens(answer.json()["access_token"], answer.json()["refresh_token"])


class _AsyncObject:
    async def __call__(self, tokens: keyturn.Tokens, http: httpx2.AsyncClient) -> keyturn.Tokens:
        return await _async(tokens, http)

    async def method(self, tokens: keyturn.Tokens, http: httpx2.AsyncClient) -> keyturn.Tokens:
        return await _async(tokens, http)


FUNCTIONS = pytest.mark.parametrize(
    "function",
    [
        _async,
        _sync,
        functools.partial(_async),
        functools.partial(_sync),
        _AsyncObject(),
        _AsyncObject().method,
    ],
    ids=["async", "sync", "async-partial", "sync-partial", "async-object", "async-method"],
)


@FUNCTIONS
def test_a_callable_buys_a_pair_with_the_client_that_it_is_given(function: Any) -> None:
    server = Server()

    pair = buy(grants.Call(function, http=server.http, sync_http=server.sync_http))

    assert (pair.access, pair.refresh) == ("new-access", "new-refresh")
    assert json.loads(server.request.content) == {"token": "old-refresh"}


@FUNCTIONS
@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, {"error": "invalid_grant"}, keyturn.SessionEnded),
        (401, {"error": "invalid_client"}, keyturn.RefreshMisconfigured),
        (403, b"blocked", keyturn.RefreshMisconfigured),
        (302, b"", keyturn.RefreshMisconfigured),
        (429, b"", keyturn.RefreshUnavailable),
        (503, b"", keyturn.RefreshUnavailable),
        (500, b"", keyturn.OutcomeUnknown),
        (200, b"<html>", keyturn.OutcomeUnknown),
        (200, {"access_token": "", "refresh_token": "r"}, keyturn.OutcomeUnknown),
    ],
)
def test_what_a_callable_raises_is_read_as_the_answer_that_it_stands_for(
    function: Any, status: int, body: object, error: type[Exception]
) -> None:
    server = Server(status, body)

    with pytest.raises(error):
        buy(grants.Call(function, http=server.http, sync_http=server.sync_http))


@pytest.mark.parametrize("value", [None, {"access_token": "x"}, "access", ("access", "refresh")])
@pytest.mark.parametrize("is_async", [True, False])
def test_a_callable_that_returns_something_else_is_told_what_to_return(value: object, is_async: bool) -> None:
    def returns(tokens: keyturn.Tokens, http: object) -> object:
        return value

    async def returns_later(tokens: keyturn.Tokens, http: object) -> object:
        return value

    function: Any = returns_later if is_async else returns
    # What it has sent before it returned nobody can tell.
    with pytest.raises(keyturn.OutcomeUnknown, match=rf"keyturn.Tokens, not {type(value).__name__}"):
        buy(function)


def test_an_async_callable_with_a_client_of_its_own_is_waited_for_when_the_credentials_close() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    async def buy_elsewhere(tokens: keyturn.Tokens, http: object) -> keyturn.Tokens:
        begun.set()
        await asyncio.to_thread(go_on.wait, 30)
        done.set()
        return keyturn.Tokens("new", "new-refresh")

    credentials = keyturn.Credentials(
        buy_elsewhere, tokens=keyturn.Tokens("old", "r", 1.0), origins=["https://api.example"]
    )
    waiter = threading.Thread(target=credentials.get_tokens, daemon=True)
    waiter.start()
    assert begun.wait(30)
    closing = threading.Thread(target=credentials.close, daemon=True)
    closing.start()
    go_on.set()
    closing.join(30)
    waiter.join(30)

    assert done.is_set()
    assert not closing.is_alive()


def test_a_plain_function_that_returns_a_coroutine_is_told_so_and_leaves_none_unawaited() -> None:
    function: Any = lambda tokens, http: _async(tokens, http)  # noqa: E731

    with pytest.raises(keyturn.RefreshMisconfigured, match="not coroutine"):
        buy(function)


@pytest.mark.parametrize("is_async", [True, False])
def test_a_session_that_a_callable_ends_itself_has_ended(is_async: bool) -> None:
    def ends(tokens: keyturn.Tokens, http: object) -> keyturn.Tokens:
        raise keyturn.SessionEnded("the account is closed", reason="refused")

    async def ends_later(tokens: keyturn.Tokens, http: object) -> keyturn.Tokens:
        return ends(tokens, http)

    function: Any = ends_later if is_async else ends
    with pytest.raises(keyturn.SessionEnded, match="the account is closed"):
        buy(function)


def test_an_exception_of_a_callable_is_told_by_its_kind_and_place_and_not_by_its_text() -> None:
    def fails(tokens: keyturn.Tokens, http: httpx2.Client) -> keyturn.Tokens:
        raise LookupError(f"nothing for {tokens.refresh}")

    with pytest.raises(keyturn.OutcomeUnknown, match=r"LookupError.*test_grants_call\.py") as caught:
        buy(fails)
    assert "old-refresh" not in str(caught.value)


def test_a_callable_needs_no_refresh_token() -> None:
    server = Server()

    assert buy(grants.Call(_async, http=server.http), keyturn.Tokens("old-access")).access == "new-access"


def test_an_async_callable_that_fails_before_it_sends_has_spent_nothing() -> None:
    def refuses(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    def http() -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.MockTransport(refuses))

    with pytest.raises(keyturn.RefreshUnavailable):
        buy(grants.Call(_async, http=http))

"""JSON and BearerRefresh: refreshes of a house's own making."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx2
import pytest

import keyturn
from keyturn.client import grants
from keyturn.testing import StrictServer

from .end_point import PAIR, URL, Server, buy, credentials_of

ENVELOPE = {"success": True, "customResult": {"accessToken": "new-access", "refreshToken": "new-refresh"}}
NAMES = {"access": "customResult.accessToken", "refresh": "customResult.refreshToken"}


def test_json_sends_the_refresh_token_by_name_and_reads_dotted_names() -> None:
    server = Server(body=ENVELOPE)

    pair = buy(grants.JSON(URL, send="refreshToken", receive=NAMES, http=server.http))

    assert json.loads(server.request.content) == {"refreshToken": "old-refresh"}
    assert (pair.access, pair.refresh) == ("new-access", "new-refresh")


def test_json_sends_and_reads_by_callables() -> None:
    server = Server(body={"pair": ["new-access", "new-refresh"]})

    def receive(body: Mapping[str, object]) -> keyturn.Tokens:
        pair = body["pair"]
        assert isinstance(pair, list)
        return keyturn.Tokens(*pair)

    grant = grants.JSON(
        URL,
        send=lambda tokens: {"token": tokens.refresh, "csrf": tokens.extra["csrf_refresh_token"]},
        receive=receive,
        http=server.http,
    )

    assert buy(grant).access == "new-access"
    assert json.loads(server.request.content) == {"token": "old-refresh", "csrf": "old-csrf"}


@pytest.mark.parametrize("status", [200, 400, 418])
def test_json_ends_the_session_where_the_callable_says_so(status: int) -> None:
    asked: list[object] = []

    def ended(status: int, body: Mapping[str, object]) -> bool:
        asked.append((status, body))
        return body.get("success") is False

    with pytest.raises(keyturn.SessionEnded):
        buy(grants.JSON(URL, ended=ended, http=Server(status, {"success": False}).http))
    assert asked == [(status, {"success": False})]


@pytest.mark.parametrize("status", [429, 503])
def test_json_never_takes_an_overloaded_server_for_the_end(status: int) -> None:
    with pytest.raises(keyturn.RefreshUnavailable):
        buy(grants.JSON(URL, ended=lambda *_: True, http=Server(status, {"success": False}).http))


@pytest.mark.parametrize(("status", "body"), [(401, b""), (400, {"error": "invalid_grant"})])
def test_json_ends_the_session_on_a_401_and_on_invalid_grant(status: int, body: object) -> None:
    with pytest.raises(keyturn.SessionEnded):
        buy(grants.JSON(URL, http=Server(status, body).http))


@pytest.mark.parametrize(
    "receive",
    [
        lambda body: body,
        lambda body: None,
        lambda body: keyturn.Tokens(body["nothing"]),
        lambda body: keyturn.Tokens(""),
        lambda body: ("access", "refresh"),
    ],
    ids=["body", "none", "key-error", "empty-token", "tuple"],
)
def test_json_leaves_the_outcome_open_where_the_callable_makes_no_tokens_of_a_success(receive: Any) -> None:
    server = Server()
    credentials = credentials_of(grants.JSON(URL, receive=receive, http=server.http))
    carried = credentials.get_tokens()

    for _ in range(2):
        with pytest.raises(keyturn.OutcomeUnknown):
            credentials.renew(carried)

    assert credentials.tokens is carried
    assert len(server.requests) == 1


def test_json_says_what_its_callable_returned_instead_of_tokens() -> None:
    grant = grants.JSON(URL, receive=lambda body: body, http=Server().http)  # type: ignore[arg-type,return-value]

    with pytest.raises(keyturn.OutcomeUnknown, match=r"Tokens, not dict"):
        buy(grant)
    with pytest.raises(keyturn.ConfigurationError, match=r"Tokens, not dict"):
        grant.read(httpx2.Response(200, json=PAIR))


def test_json_reads_a_login_response_in_the_same_format() -> None:
    grant = grants.JSON(URL, receive=NAMES)

    assert grant.read(httpx2.Response(200, json=ENVELOPE)).refresh == "new-refresh"
    with pytest.raises(keyturn.ConfigurationError, match="access token"):
        grant.read(httpx2.Response(200, json={"success": False}))


def test_a_fault_of_the_house_is_not_taken_for_the_end_that_its_envelope_spells() -> None:
    server = Server(500, {"success": False})
    grant = grants.JSON(
        "https://id.example/refresh",
        http=server.http,
        ended=lambda status, body: body.get("success") is False,
    )

    with pytest.raises(keyturn.OutcomeUnknown):
        buy(grant)


# BearerRefresh


def test_bearer_refresh_posts_the_refresh_token_as_a_header_and_nothing_else() -> None:
    server = Server()

    pair = buy(grants.BearerRefresh(URL, http=server.http))

    assert server.request.headers["authorization"] == "Bearer old-refresh"
    assert (server.request.method, server.request.content) == ("POST", b"")
    assert (pair.access, pair.refresh, pair.lifetime) == ("new-access", "new-refresh", 60)


def test_bearer_refresh_reads_dotted_names_and_keeps_the_refresh_token_where_none_is_new() -> None:
    server = Server(body={"data": {"jwt": "new-access"}})

    pair = buy(grants.BearerRefresh(URL, receive={"access": "data.jwt"}, http=server.http))

    assert (pair.access, pair.refresh) == ("new-access", "old-refresh")


@pytest.mark.parametrize("status", [401, 422])
def test_bearer_refresh_ends_the_session_on_a_401_and_a_422(status: int) -> None:
    with pytest.raises(keyturn.SessionEnded):
        buy(grants.BearerRefresh(URL, http=Server(status, {"msg": "Token has expired"}).http))


def test_bearer_refresh_ends_the_session_where_the_callable_says_so() -> None:
    grant = grants.BearerRefresh(
        URL, ended=lambda status, body: body.get("code") == 7, http=Server(403, {"code": 7}).http
    )

    with pytest.raises(keyturn.SessionEnded):
        buy(grant)


def test_bearer_refresh_reads_a_login_response_in_the_same_format() -> None:
    tokens = grants.BearerRefresh(URL).read(httpx2.Response(200, json=PAIR))

    assert (tokens.access, tokens.refresh) == ("new-access", "new-refresh")


def test_a_real_server_takes_a_bearer_refresh_and_ends_the_session_on_a_spent_one(
    strict_server: StrictServer,
) -> None:
    grant = grants.BearerRefresh(strict_server.url + "/token/bearer")
    tokens = strict_server.sign_in()

    assert buy(grant, tokens).refresh != tokens.refresh
    with pytest.raises(keyturn.SessionEnded):
        buy(grant, tokens)

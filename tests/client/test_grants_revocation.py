"""Revocation: what a grant tells its server at a sign-out (RFC 7009), and what the answers mean."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest

import keyturn
from keyturn.client import grants
from keyturn.testing import StrictServer

from .end_point import OLD, URL, Server

REVOKE = "https://id.example/revoke"
NO_REFRESH = keyturn.Tokens("old-access")


def revoke(grant: grants.Revoking, tokens: keyturn.Tokens = OLD) -> None:
    asyncio.run(asyncio.wait_for(grant.revoke(tokens), 30))


def oauth2(server: Server, **options: Any) -> grants.OAuth2:
    return grants.OAuth2(URL, revoke_url=REVOKE, http=server.http, **options)


# What is sent


def test_the_refresh_token_is_given_up_with_its_kind_and_the_client_s_proof() -> None:
    server = Server(200, b"")

    revoke(oauth2(server, client_id="app", client_secret="hush", scope="read", audience="a"))

    assert (server.request.method, str(server.request.url)) == ("POST", REVOKE)
    assert server.form == {"token": "old-refresh", "token_type_hint": "refresh_token"}
    assert server.request.headers["authorization"].startswith("Basic ")


def test_without_a_refresh_token_the_access_token_is_given_up() -> None:
    server = Server(200, b"")

    revoke(oauth2(server, client_id="app"), NO_REFRESH)

    assert server.form == {
        "token": "old-access",
        "token_type_hint": "access_token",
        "client_id": "app",
    }


HOUSES: list[tuple[Callable[..., Any], Callable[[httpx2.Request], object], object]] = [
    (grants.JSON, lambda request: json.loads(request.content), {"refresh_token": "old-refresh"}),
    (grants.BearerRefresh, lambda request: request.headers["authorization"], "Bearer old-refresh"),
    (
        grants.Cookies,
        lambda request: (request.headers["cookie"], request.headers["x-csrf-token"]),
        ("refresh_token_cookie=old-refresh; csrf_refresh_token=old-csrf", "old-csrf"),
    ),
]


@pytest.mark.parametrize(("make", "shown", "expected"), HOUSES, ids=lambda one: getattr(one, "__name__", ""))
def test_a_house_is_told_by_what_it_takes_for_a_refresh(
    make: Callable[..., Any], shown: Callable[[httpx2.Request], object], expected: object
) -> None:
    server = Server(200, b"")

    revoke(make(URL, revoke_url=REVOKE, http=server.http))

    assert str(server.request.url) == REVOKE
    assert shown(server.request) == expected


@pytest.mark.parametrize("make", [grants.OAuth2, grants.JSON, grants.BearerRefresh, grants.Cookies])
def test_without_a_revoke_url_nothing_is_sent_and_the_grant_says_so(make: Callable[..., Any]) -> None:
    server = Server()
    grant = make(URL, http=server.http)

    revoke(grant)

    assert not grant.revokes
    assert make(URL, revoke_url=REVOKE).revokes
    assert not server.requests


@pytest.mark.parametrize("make", [grants.JSON, grants.BearerRefresh, grants.Cookies])
def test_where_there_is_nothing_to_give_up_nothing_is_sent(make: Callable[..., Any]) -> None:
    server = Server()

    revoke(make(URL, revoke_url=REVOKE, http=server.http), NO_REFRESH)

    assert not server.requests


def test_every_http_grant_is_a_revoking_one_and_a_callable_is_not() -> None:
    assert isinstance(grants.OAuth2(URL), grants.Revoking)
    assert not isinstance(grants.grant_of(lambda tokens, http: tokens), grants.Revoking)


# What the answers mean

ANSWERS: list[tuple[int, object, type[keyturn.KeyturnError] | None]] = [
    (200, b"", None),
    (200, {}, None),
    (204, b"", None),
    # the token is as dead as it was to be
    (400, {"error": "invalid_token"}, None),
    (400, {"error": "invalid_grant"}, None),
    (200, {"error": "invalid_token"}, None),
    # nobody was told
    (400, {"error": "unsupported_token_type"}, keyturn.RefreshMisconfigured),
    (401, {"error": "invalid_client"}, keyturn.RefreshMisconfigured),
    (200, {"error": "invalid_client"}, keyturn.RefreshMisconfigured),
    (403, b"<html>", keyturn.RefreshMisconfigured),
    (404, b"", keyturn.RefreshMisconfigured),
    (302, b"", keyturn.RefreshMisconfigured),
    (429, b"", keyturn.RefreshUnavailable),
    (503, {"error": "invalid_token"}, keyturn.RefreshUnavailable),
    (500, {"error": "invalid_token"}, keyturn.OutcomeUnknown),
    (502, b"", keyturn.OutcomeUnknown),
]


@pytest.mark.parametrize(("status", "body", "error"), ANSWERS)
def test_each_answer_to_a_revocation_has_one_meaning(
    status: int, body: object, error: type[keyturn.KeyturnError] | None
) -> None:
    grant = oauth2(Server(status, body, headers={"Retry-After": "7", "Location": "/"}))

    if error is None:
        revoke(grant)
        return
    with pytest.raises(error, match="revocation end point") as caught:
        revoke(grant)
    assert getattr(caught.value, "status") == status  # noqa: B009 - each of these has one
    if isinstance(caught.value, keyturn.RefreshUnavailable):
        assert caught.value.retry_after == 7
    if isinstance(caught.value, keyturn.RefreshMisconfigured) and isinstance(body, dict):
        assert caught.value.error == body["error"]


FAILURES: list[tuple[Exception, type[keyturn.KeyturnError]]] = [
    (httpx2.ConnectError("no"), keyturn.RefreshUnavailable),
    (httpx2.ReadTimeout("no"), keyturn.OutcomeUnknown),
    (httpx2.RemoteProtocolError("no"), keyturn.OutcomeUnknown),
    (ValueError("old-refresh"), keyturn.OutcomeUnknown),
]


@pytest.mark.parametrize(("error", "meaning"), FAILURES, ids=lambda one: type(one).__name__)
def test_each_failure_of_a_revocation_is_a_named_error_that_quotes_nothing(
    error: Exception, meaning: type[keyturn.KeyturnError]
) -> None:
    def fails(request: httpx2.Request) -> httpx2.Response:
        raise error

    grant = grants.OAuth2(
        URL, revoke_url=REVOKE, http=lambda: httpx2.AsyncClient(transport=httpx2.MockTransport(fails))
    )

    with pytest.raises(meaning, match="the revocation") as caught:
        revoke(grant)
    assert caught.value.__suppress_context__
    assert "old-refresh" not in str(caught.value)


# At a real server


def at(server: StrictServer, **options: Any) -> grants.OAuth2:
    return grants.OAuth2(server.url + "/token", revoke_url=server.url + "/revoke", client_id="app", **options)


def test_after_a_revocation_the_server_takes_neither_token(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()

    revoke(at(strict_server), tokens)
    revoke(at(strict_server), tokens)  # which tells it nothing new, and is no error

    assert not strict_server.alive(tokens)
    assert strict_server.stats.revocations == 2
    with httpx2.Client() as api:
        headers = {"Authorization": f"Bearer {tokens.access}"}
        assert api.get(strict_server.url + "/x", headers=headers).status_code == 401


def test_a_server_that_asks_for_time_or_hangs_up_has_not_revoked(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()
    strict_server.fail_revocation(503, headers={"Retry-After": "3"})
    strict_server.drop_revocation()

    with pytest.raises(keyturn.RefreshUnavailable) as caught:
        revoke(at(strict_server), tokens)
    with pytest.raises(keyturn.OutcomeUnknown):
        revoke(at(strict_server), tokens)

    assert caught.value.retry_after == 3
    assert strict_server.alive(tokens)


def test_a_server_that_does_not_answer_costs_the_grant_s_time_out(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()
    strict_server.hold_revocation()
    began = time.monotonic()

    with pytest.raises(keyturn.OutcomeUnknown):
        revoke(at(strict_server, timeout=timedelta(milliseconds=200)), tokens)

    assert time.monotonic() - began < 10
    strict_server.release()


def test_a_client_without_a_time_out_of_its_own_is_bounded_by_the_grant_s() -> None:
    async def silent(request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(3600)
        return httpx2.Response(200)

    grant = grants.OAuth2(
        URL,
        revoke_url=REVOKE,
        http=lambda: httpx2.AsyncClient(transport=httpx2.MockTransport(silent), timeout=None),
        timeout=timedelta(milliseconds=50),
    )

    with pytest.raises(keyturn.OutcomeUnknown, match="got no answer"):
        revoke(grant)


def test_a_revocation_end_point_that_nobody_listens_at_is_unavailable(strict_server: StrictServer) -> None:
    strict_server.sign_in()
    grant = grants.OAuth2(URL, revoke_url="http://127.0.0.1:9/revoke")

    with pytest.raises(keyturn.RefreshUnavailable):
        revoke(grant)


@pytest.mark.parametrize("url", ["/revoke", "ftp://id.example", 7, "https://user:hunter2@"])
def test_a_revoke_url_that_is_none_is_refused_at_once(url: Any) -> None:
    with pytest.raises(keyturn.ConfigurationError, match="revocation end point") as caught:
        grants.OAuth2(URL, revoke_url=url)

    assert "hunter2" not in str(caught.value)

"""HttpOnly cookies with double-submit CSRF, under flask-jwt-extended's names."""

from __future__ import annotations

import pytest

from keyturn.testing import StrictServer
from keyturn.tokens import Tokens

from .wire import call, cookie_headers


def _refresh(server: StrictServer, tokens: Tokens, csrf: str) -> tuple[int, dict[str, str]]:
    answer = call(server, "/token/refresh", method="POST", headers=cookie_headers(tokens, csrf))
    return answer.status, answer.cookies


def test_sign_in_sets_two_http_only_cookies_and_two_readable_ones(strict_server: StrictServer) -> None:
    answer = call(strict_server, "/login-cookies", method="POST", body=b'{"subject": "alice"}')
    hidden = {
        value.partition("=")[0]: "HttpOnly" in value for value in answer.headers.get_all("Set-Cookie", [])
    }
    assert hidden == {
        "access_token_cookie": True,
        "refresh_token_cookie": True,
        "csrf_access_token": False,
        "csrf_refresh_token": False,
    }


def test_the_handle_gives_the_csrf_values_in_extra(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in_cookies("bob")
    assert set(tokens.extra) == {"csrf_access_token", "csrf_refresh_token"}
    assert tokens.lifetime == 60
    assert call(strict_server, "/x", headers=cookie_headers(tokens)).json["subject"] == "bob"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_an_unsafe_method_needs_the_csrf_value_of_the_access_token(
    strict_server: StrictServer, method: str
) -> None:
    tokens = strict_server.sign_in_cookies()
    statuses = [
        call(strict_server, "/x", method=method, headers=cookie_headers(tokens, csrf)).status
        for csrf in ("", tokens.extra["csrf_refresh_token"], tokens.extra["csrf_access_token"])
    ]
    assert statuses == [401, 401, 200]


def test_a_safe_method_needs_no_csrf_value(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in_cookies()
    for method in ("GET", "HEAD", "OPTIONS"):
        assert call(strict_server, "/x", method=method, headers=cookie_headers(tokens)).status == 200


def test_a_refresh_needs_the_csrf_value_of_the_refresh_token_and_spends_nothing_without(
    strict_server: StrictServer,
) -> None:
    tokens = strict_server.sign_in_cookies()
    for wrong in ("", "x", tokens.extra["csrf_access_token"]):
        assert _refresh(strict_server, tokens, wrong)[0] == 401
    assert strict_server.stats.rotations == 0
    status, cookies = _refresh(strict_server, tokens, tokens.extra["csrf_refresh_token"])
    assert status == 200
    assert set(cookies) == {
        "access_token_cookie",
        "refresh_token_cookie",
        "csrf_access_token",
        "csrf_refresh_token",
    }
    assert not set(cookies.values()) & {tokens.access, tokens.refresh, *tokens.extra.values()}


def test_a_replay_after_the_refresh_needs_the_new_csrf_value(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in_cookies()
    _, cookies = _refresh(strict_server, tokens, tokens.extra["csrf_refresh_token"])
    renewed = Tokens(cookies["access_token_cookie"], cookies["refresh_token_cookie"])
    old, new = tokens.extra["csrf_access_token"], cookies["csrf_access_token"]
    assert call(strict_server, "/x", method="POST", headers=cookie_headers(renewed, old)).status == 401
    assert call(strict_server, "/x", method="POST", headers=cookie_headers(renewed, new)).status == 200


def test_reuse_of_a_refresh_cookie_ends_the_session(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in_cookies()
    csrf = tokens.extra["csrf_refresh_token"]
    assert [_refresh(strict_server, tokens, csrf)[0] for _ in range(2)] == [200, 401]
    assert not strict_server.alive(tokens)


def test_without_a_cookie_it_is_a_401(strict_server: StrictServer) -> None:
    answer = call(strict_server, "/token/refresh", method="POST")
    assert (answer.status, answer.json["msg"]) == (401, "refresh token missing")
    assert call(strict_server, "/x", headers={"Cookie": "other=1"}).json["reason"] == "missing"


def test_renewed_cookies_come_with_the_answer(strict_server: StrictServer) -> None:
    strict_server.configure(renews=True)
    tokens = strict_server.sign_in_cookies()
    answer = call(strict_server, "/x", headers=cookie_headers(tokens))
    renewed = Tokens(answer.cookies["access_token_cookie"], answer.cookies["refresh_token_cookie"])
    assert call(strict_server, "/x", headers=cookie_headers(tokens)).status == 401
    assert call(strict_server, "/x", headers=cookie_headers(renewed)).status == 200

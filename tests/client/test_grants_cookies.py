"""Cookies: a refresh that travels in cookies, with its CSRF value."""

from __future__ import annotations

import httpx2
import pytest

import keyturn
from keyturn.client import CookieNames, grants

from .end_point import URL, Server, buy


def _set(*lines: str) -> list[tuple[str, str]]:
    return [("Set-Cookie", line) for line in lines]


def test_cookies_posts_the_refresh_cookie_with_its_csrf_value_and_nothing_else() -> None:
    server = Server(headers=_set("access_token_cookie=new-access; HttpOnly"))

    pair = buy(grants.Cookies(URL, http=server.http))

    request = server.request
    assert request.headers["cookie"] == "refresh_token_cookie=old-refresh; csrf_refresh_token=old-csrf"
    assert request.headers["x-csrf-token"] == "old-csrf"
    assert (request.method, request.content) == ("POST", b"")
    assert (pair.access, pair.refresh) == ("new-access", "old-refresh")
    assert pair.extra == {"csrf_refresh_token": "old-csrf"}


def test_cookies_takes_every_cookie_that_the_answer_sets_anew() -> None:
    server = Server(
        headers=_set(
            "access_token_cookie=new-access; HttpOnly; Path=/",
            "csrf_access_token=a-csrf; Path=/",
            "refresh_token_cookie=new-refresh; HttpOnly; Path=/",
            "csrf_refresh_token=r-csrf; Path=/",
            "theme=dark",
        )
    )

    pair = buy(grants.Cookies(URL, http=server.http))

    assert (pair.access, pair.refresh) == ("new-access", "new-refresh")
    assert pair.extra == {"csrf_access_token": "a-csrf", "csrf_refresh_token": "r-csrf"}


def test_cookies_goes_by_the_names_that_it_was_given() -> None:
    names = CookieNames("at", "rt", "ac", "rc", "X-XSRF")
    server = Server(headers=_set("at=new-access", "access_token_cookie=wrong"))

    pair = buy(
        grants.Cookies(URL, names=names, http=server.http), keyturn.Tokens("a", "r", extra={"rc": "c"})
    )

    assert server.request.headers["cookie"] == "rt=r; rc=c"
    assert server.request.headers["x-xsrf"] == "c"
    assert pair.access == "new-access"


@pytest.mark.parametrize("status", [401, 422])
def test_cookies_ends_the_session_on_a_401_and_a_422(status: int) -> None:
    with pytest.raises(keyturn.SessionEnded):
        buy(grants.Cookies(URL, http=Server(status).http))


@pytest.mark.parametrize(
    "lines", [(), ("access_token_cookie=; Max-Age=0",), ("access_token_cookie=x; Max-Age=0",)]
)
def test_cookies_leaves_the_outcome_open_where_a_success_sets_no_access_cookie(
    lines: tuple[str, ...],
) -> None:
    with pytest.raises(keyturn.OutcomeUnknown):
        buy(grants.Cookies(URL, http=Server(headers=_set(*lines)).http))


def test_cookies_says_that_a_login_response_sets_none() -> None:
    with pytest.raises(keyturn.ConfigurationError, match=r"401.*access_token_cookie"):
        grants.Cookies(URL).read(httpx2.Response(401))

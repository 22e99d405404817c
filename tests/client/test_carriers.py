"""How tokens ride on a request, what refuses them, and where a newer pair is found."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import httpx2
import pytest

import keyturn
from keyturn.client import Answer, Bearer, CookieNames, Cookies, InBody, InHeaders
from keyturn.client.carriers import merge_cookies

OLD = keyturn.Tokens(
    "old-access",
    "old-refresh",
    extra={"csrf_access_token": "old-a", "csrf_refresh_token": "old-r", "other": "kept"},
)
NAMES = {"access": "X-Access-Token", "refresh": "X-Refresh-Token", "expires_in": "X-Expires-In"}
LIBRARIES = pytest.mark.parametrize("lib", [httpx2, httpx], ids=lambda lib: str(lib.__name__))


def answer(
    *lines: str, headers: Mapping[str, str] | None = None, body: object = None, lib: Any = httpx2
) -> Answer:
    """An answer that was sent at 1,000 seconds, with these Set-Cookies."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return Answer(200, lib.Headers(headers or {}), 1_000.0, lines, content)


# Bearer


@LIBRARIES
def test_the_bearer_token_takes_the_place_of_an_authorization_header_that_is_there(lib: Any) -> None:
    headers = lib.Headers({"authorization": "Basic x", "accept": "*/*"})

    Bearer().attach(headers, OLD)

    assert headers.get_list("Authorization") == ["Bearer old-access"]
    assert headers["accept"] == "*/*"


@LIBRARIES
def test_a_bearer_token_is_carried_while_it_is_still_the_one_in_the_header(lib: Any) -> None:
    carrier, headers = Bearer(), lib.Headers()
    assert not carrier.carries(headers, OLD)

    carrier.attach(headers, OLD)

    assert carrier.carries(headers, OLD)
    assert not carrier.carries(headers, keyturn.Tokens("other"))


@pytest.mark.parametrize(
    ("status", "challenge", "refused"),
    [
        (401, None, True),
        (401, "Bearer", True),
        (401, 'bearer error="invalid_token"', True),
        (401, 'DPoP algs="ES256"', True),
        (401, 'Basic realm="x", Bearer', True),
        (401, 'Basic realm="x"', False),
        (403, None, False),
        (422, None, False),
        (200, "Bearer", False),
    ],
)
def test_a_401_refuses_a_bearer_token_unless_it_asks_for_another_scheme_only(
    status: int, challenge: str | None, refused: bool
) -> None:
    headers = httpx2.Headers({} if challenge is None else {"WWW-Authenticate": challenge})

    assert Bearer().refused(status, headers) is refused


def test_which_statuses_refuse_is_the_application_s_to_say() -> None:
    carrier = Bearer(refusals=(401, 419))

    assert carrier.refused(419, {})
    assert not Cookies().refused(422, {})
    assert Cookies(refusals=(401, 422)).refused(422, {})


def test_cookies_for_another_origin_lose_ours_and_keep_the_others() -> None:
    headers = {"Cookie": "theme=dark; access_token_cookie=a; csrf_access_token = b; access_token_cookie2=c"}
    Cookies().withhold(headers)
    assert headers == {"Cookie": "theme=dark; access_token_cookie2=c"}

    headers = {"Cookie": "refresh_token_cookie=a; csrf_refresh_token=b", "Accept": "*/*"}
    Cookies().withhold(headers)
    assert headers == {"Accept": "*/*"}

    headers = {"Authorization": "Basic theirs"}
    Bearer().withhold(headers)
    assert headers == {"Authorization": "Basic theirs"}


# Where a newer pair is found


def test_a_bearer_carrier_adopts_nothing_unless_it_is_told_where() -> None:
    carrier = Bearer()

    assert (carrier.adopts, carrier.renews, carrier.body) == (False, False, False)
    assert carrier.adopt(answer(headers={"X-Access-Token": "new"}), OLD) is None


@LIBRARIES
def test_a_pair_in_headers_is_adopted_with_its_life_counted_from_the_sending(lib: Any) -> None:
    carrier = Bearer(adopt=NAMES)
    assert (carrier.adopts, carrier.renews, carrier.body) == (True, True, False)

    headers = {"x-access-token": "new", "x-refresh-token": "new-r", "x-expires-in": "60"}
    pair = carrier.adopt(answer(headers=headers, lib=lib), OLD)

    assert pair is not None
    assert (pair.access, pair.refresh, pair.expires_at) == ("new", "new-r", 1_060.0)


@pytest.mark.parametrize("said", [{}, {"X-Refresh-Token": ""}])
def test_a_pair_in_headers_without_a_refresh_token_keeps_the_old_one(said: Mapping[str, str]) -> None:
    pair = InHeaders(NAMES)(answer(headers={"X-Access-Token": "new", **said}), OLD)

    assert pair is not None
    assert (pair.access, pair.refresh, pair.expires_at) == ("new", "old-refresh", None)


@pytest.mark.parametrize("value", [None, "", "two words"])
def test_headers_without_an_access_token_that_could_be_sent_hold_no_pair(value: str | None) -> None:
    headers = {} if value is None else {"X-Access-Token": value}

    assert InHeaders(NAMES)(answer(headers=headers), OLD) is None


def test_a_pair_in_the_body_is_found_under_dotted_names() -> None:
    carrier = Bearer(adopt=InBody({"access": "auth.tokens.a", "refresh": "auth.tokens.r"}))
    assert (carrier.adopts, carrier.renews, carrier.body) == (True, True, True)

    pair = carrier.adopt(answer(body={"auth": {"tokens": {"a": "new", "r": "new-r"}}}), OLD)

    assert pair is not None
    assert (pair.access, pair.refresh) == ("new", "new-r")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff\xfe",
        [],
        "text",
        {},
        {"a": None},
        {"a": 7},
        {"a": ["x"]},
        {"a": ""},
        b"[" * 100_000,
    ],
    ids=lambda body: repr(body)[:20],
)
def test_a_body_that_holds_no_pair_is_no_harm(body: object) -> None:
    assert InBody({"access": "a"})(answer(body=body), OLD) is None
    assert InBody({"access": "a.b"})(answer(body=body), OLD) is None


def test_a_callable_may_say_where_the_pair_is() -> None:
    seen: list[object] = []

    def find(of: Answer, carried: keyturn.Tokens) -> keyturn.Tokens | None:
        seen.append((of.status, carried))
        return keyturn.Tokens("found")

    pair = Bearer(adopt=find).adopt(answer(), OLD)

    assert pair is not None
    assert pair.access == "found"
    assert seen == [(200, OLD)]


# Cookies


@LIBRARIES
def test_the_access_cookie_and_its_csrf_value_join_the_cookies_that_are_there(lib: Any) -> None:
    headers = lib.Headers({"Cookie": "theme=dark; lang=de"})

    Cookies().attach(headers, OLD)

    assert headers.get_list("cookie") == [
        "theme=dark; lang=de; access_token_cookie=old-access; csrf_access_token=old-a"
    ]
    assert headers.get_list("x-csrf-token") == ["old-a"]


@LIBRARIES
def test_the_refresh_token_never_rides_on_a_request(lib: Any) -> None:
    headers = lib.Headers()

    Cookies().attach(headers, OLD)

    assert "old-refresh" not in str(headers.multi_items())
    assert "old-r" not in [value for _, value in headers.multi_items()]


@LIBRARIES
def test_without_a_csrf_value_no_csrf_header_is_written(lib: Any) -> None:
    headers = lib.Headers({"X-CSRF-TOKEN": "the caller's own"})

    Cookies().attach(headers, keyturn.Tokens("a"))

    assert headers["cookie"] == "access_token_cookie=a"
    assert headers["x-csrf-token"] == "the caller's own"


@pytest.mark.parametrize(
    ("header", "merged"),
    [
        ("", "a=1; b=2"),
        ("theme=dark", "theme=dark; a=1; b=2"),
        ("a=old; theme=dark; b=old", "theme=dark; a=1; b=2"),
        ("a=old; a=older", "a=1; b=2"),
        ("aa=x; xa=y; A=z", "aa=x; xa=y; A=z; a=1; b=2"),
        (" theme=dark ;; lang=de; ", "theme=dark; lang=de; a=1; b=2"),
        ("a =old; theme=a=b", "theme=a=b; a=1; b=2"),
        ("flag", "flag; a=1; b=2"),
        ('q="a=1, b=2"', 'q="a=1, b=2"; a=1; b=2'),
    ],
)
def test_cookies_are_merged_by_name_and_ours_win(header: str, merged: str) -> None:
    assert merge_cookies(header, {"a": "1", "b": "2"}) == merged


def test_attaching_again_leaves_one_cookie_of_each_name() -> None:
    headers, carrier = httpx2.Headers({"Cookie": "theme=dark"}), Cookies()

    carrier.attach(headers, OLD)
    carrier.attach(headers, keyturn.Tokens("new", extra={"csrf_access_token": "new-a"}))

    assert headers["cookie"] == "theme=dark; access_token_cookie=new; csrf_access_token=new-a"
    assert carrier.carries(headers, keyturn.Tokens("new"))
    assert not carrier.carries(headers, OLD)
    assert not carrier.carries(headers, keyturn.Tokens("ne"))


def test_cookies_go_by_the_names_that_they_were_given() -> None:
    carrier = Cookies(CookieNames("at", "rt", "ac", "rc", "X-XSRF"))
    headers = httpx2.Headers()

    carrier.attach(headers, keyturn.Tokens("a", "r", extra={"ac": "c", "rc": "d"}))

    assert (headers["cookie"], headers["x-xsrf"]) == ("at=a; ac=c", "c")
    assert carrier.headers == ("cookie", "x-xsrf")


PAST, FUTURE = "Sat, 01 Jan 2000 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("access_token_cookie=new", "new"),
        ("access_token_cookie=new; HttpOnly; Secure; Path=/; SameSite=Lax", "new"),
        ('access_token_cookie="new"; Path=/', "new"),
        ("  access_token_cookie = new ;Path=/", "new"),
        ("access_token_cookie=a=b==; Path=/", "a=b=="),
        ("access_token_cookie=new; Max-Age=60", "new"),
        ("access_token_cookie=new; max-age=60; Expires=" + PAST, "new"),
        ("access_token_cookie=new; Expires=" + FUTURE, "new"),
        ("access_token_cookie=new; Expires=never", "new"),
        ("access_token_cookie=new; Max-Age=soon", "new"),
        ("access_token_cookie=new; Max-Age=" + "9" * 5000, "new"),
        ("access_token_cookie=new; Max-Age=--5", "new"),
        ("access_token_cookie=new; Max-Age=-", "new"),
        ("access_token_cookie=new; Max-Age=", "new"),
        ("access_token_cookie=new; Expires=Thu, 01 Jan 99999 00:00:00 GMT", "new"),
        ("access_token_cookie=; Path=/", None),
        ("access_token_cookie=old; Max-Age=0", None),
        ("access_token_cookie=old; Max-Age=-1", None),
        ("access_token_cookie=old; MAX-AGE=0; Expires=" + FUTURE, None),
        ("access_token_cookie=old; Expires=" + PAST, None),
        ("access_token_cookie=old; Expires=Thu, 01-Jan-1970 00:00:00 GMT", None),
        ("access_token_cookie=old; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/", None),
        ("access_token_cookie", None),
        ("=access_token_cookie", None),
        ("", None),
        ("Access_Token_Cookie=new", None),
        ("other=x; access_token_cookie=new", None),
        ("access_token_cookie=two words", None),
        ("access_token_cookie=tökén", None),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_set_cookie_gives_a_new_access_token_unless_it_deletes_it_or_is_none(
    line: str, value: str | None
) -> None:
    pair = Cookies().adopt(answer(line), OLD)

    assert (None if pair is None else pair.access) == value


def test_the_last_set_cookie_of_a_name_counts() -> None:
    first, last = "access_token_cookie=first", "access_token_cookie=last"

    pair = Cookies().adopt(answer(first, last), OLD)

    assert pair is not None
    assert pair.access == "last"
    assert Cookies().adopt(answer(first, "access_token_cookie=; Max-Age=0"), OLD) is None


def test_what_the_cookies_do_not_set_anew_goes_on() -> None:
    pair = Cookies().adopt(answer("access_token_cookie=new", "csrf_access_token=new-a"), OLD)

    assert pair is not None
    assert (pair.access, pair.refresh) == ("new", "old-refresh")
    assert pair.extra == {"csrf_access_token": "new-a", "csrf_refresh_token": "old-r", "other": "kept"}


def test_a_whole_new_pair_is_adopted_with_both_csrf_values() -> None:
    lines = (
        "access_token_cookie=new; HttpOnly",
        "refresh_token_cookie=new-refresh; HttpOnly",
        "csrf_access_token=new-a",
        "csrf_refresh_token=new-r",
    )

    pair = Cookies(renews=True).adopt(answer(*lines), OLD)

    assert pair is not None
    assert (pair.access, pair.refresh) == ("new", "new-refresh")
    assert pair.extra == {"csrf_access_token": "new-a", "csrf_refresh_token": "new-r", "other": "kept"}


@LIBRARIES
def test_every_set_cookie_of_a_response_is_seen(lib: Any) -> None:
    response = lib.Response(
        200, headers=[("Set-Cookie", "a=1; Path=/"), ("Other", "x"), ("set-cookie", "b=2; Expires=" + FUTURE)]
    )

    seen = Answer.of(response)

    assert seen.cookies() == {"a": "1", "b": "2"}
    assert seen.sent_at == pytest.approx(time.time(), abs=5)


# Arguments that cannot work

WRONG: list[tuple[str, Callable[[], object]]] = [
    ("adopt", lambda: Bearer(adopt="X-Access-Token")),  # type: ignore[arg-type]
    ("adopt", lambda: Bearer(adopt=7)),  # type: ignore[arg-type]
    ("access", lambda: Bearer(adopt={})),
    ("access", lambda: Bearer(adopt={"token": "X-Access-Token"})),
    ("access", lambda: InBody({"refresh": "r"})),
    ("access", lambda: InHeaders({"access": ""})),
    ("list", lambda: InBody(["access"])),  # type: ignore[arg-type]
    ("refusals", lambda: Bearer(refusals=401)),  # type: ignore[arg-type]
    ("refusals", lambda: Bearer(refusals="401")),  # type: ignore[arg-type]
    ("refusals", lambda: Cookies(refusals=401)),  # type: ignore[arg-type]
    ("CookieNames", lambda: Cookies("access_token_cookie")),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(
    ("says", "make"), [pytest.param(*one, id=f"{i}-{one[0]}") for i, one in enumerate(WRONG)]
)
def test_an_argument_that_cannot_work_is_refused_at_once_and_named(
    says: str, make: Callable[[], object]
) -> None:
    with pytest.raises(keyturn.ConfigurationError, match=says):
        make()

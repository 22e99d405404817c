"""Answers: what each status and each failure of an exchange means, and that nothing else ever comes of one.

The tables are the rules of `keyturn.client.grants.answers`, written out; the
properties hold for whatever a server, a proxy or a firewall may answer.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import httpx
import httpx2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import keyturn
import keyturn.client.httpx
import keyturn.client.httpx2
from keyturn.client import Bearer, CookieNames, Cookies, InBody, grants
from keyturn.client.answer import Answer, set_cookies
from keyturn.client.carriers import Carrier, merge_cookies
from keyturn.client.grants.reply import Reply
from keyturn.errors import (
    ConfigurationError,
    KeyturnError,
    NotReplayable,
    OutcomeUnknown,
    RefreshMisconfigured,
    RefreshUnavailable,
    SessionEnded,
)
from keyturn.tokens import Tokens

URL = "https://id.example/token"
LIBRARIES = pytest.mark.parametrize(
    ("lib", "adapter"),
    [
        pytest.param(httpx2, keyturn.client.httpx2, id="httpx2"),
        pytest.param(httpx, keyturn.client.httpx, id="httpx"),
    ],
)
MEANINGS = (SessionEnded, RefreshMisconfigured, RefreshUnavailable, OutcomeUnknown)
Factory = Callable[[], httpx2.AsyncClient]


def pair() -> Tokens:
    """Return a pair whose access token has expired."""
    return Tokens(
        "access", "refresh", time.time() - 60, 60.0, {"csrf_access_token": "ca", "csrf_refresh_token": "cr"}
    )


async def by_hand(tokens: Tokens, http: httpx2.AsyncClient) -> Tokens:
    """Refresh as a user would write it."""
    response = await http.post(URL, data={"refresh_token": tokens.refresh})
    return Tokens(response.raise_for_status().json()["access_token"])


def by_hand_on_a_thread(tokens: Tokens, http: httpx2.Client) -> Tokens:
    """Refresh as a user would write it without async."""
    response = http.post(URL, data={"refresh_token": tokens.refresh})
    return Tokens(response.raise_for_status().json()["access_token"])


def sync_http(make: Factory) -> Callable[[], httpx2.Client]:
    """Return the factory of clients for functions on a thread, with the same answers."""
    return lambda: httpx2.Client(transport=make()._transport)  # type: ignore[arg-type]  # a MockTransport is both


HOUSE = {"access": "customResult.accessToken", "refresh": "customResult.refreshToken"}
GRANTS: dict[str, Callable[[Factory], grants.Grant]] = {
    "oauth2": lambda http: grants.OAuth2(URL, client_id="app", client_secret="word", http=http),
    "post": lambda http: grants.OAuth2(
        URL, client_id="app", client_secret="word", client_auth="client_secret_post", http=http
    ),
    "client credentials": lambda http: grants.ClientCredentials(
        URL, client_id="app", client_secret="word", http=http
    ),
    "json": lambda http: grants.JSON(URL, http=http),
    "bearer": lambda http: grants.BearerRefresh(URL, http=http),
    "house": lambda http: grants.JSON(
        URL,
        send="refreshToken",
        receive=HOUSE,
        ended=lambda status, body: body.get("success") is False,
        http=http,
    ),
    "cookies": lambda http: grants.Cookies(URL, http=http),
    "async function": lambda http: grants.Call(by_hand, http=http),
    "function": lambda http: grants.Call(by_hand_on_a_thread, sync_http=sync_http(http)),
}


def outcome(kind: str, answer: Callable[[httpx2.Request], httpx2.Response]) -> keyturn.Tokens | KeyturnError:
    """Return what a caller is given, or told, when the refresh end point answers like this."""
    credentials = keyturn.Credentials(
        GRANTS[kind](lambda: httpx2.AsyncClient(transport=httpx2.MockTransport(answer))),
        tokens=pair(),
        origins=["https://api.example"],
        retry_for=timedelta(0),
    )
    try:
        return credentials.get_tokens(timeout=30)
    except KeyturnError as error:
        return error


def answered(
    status: int, body: object = None, headers: Mapping[str, str] | list[tuple[bytes, bytes]] | None = None
) -> Callable[[httpx2.Request], httpx2.Response]:
    """Return an end point that answers so; a body that is not bytes goes as JSON."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return lambda _: httpx2.Response(status, headers=headers, stream=httpx2.ByteStream(content))


def raising(error: BaseException) -> Callable[[httpx2.Request], httpx2.Response]:
    """Return an end point whose exchange fails so."""

    def answer(_: httpx2.Request) -> httpx2.Response:
        raise error

    return answer


# The table: a grant, a status, a body; what it means


NEW = {"access_token": "new", "refresh_token": "next", "expires_in": 60}
NEW_HOUSE = {"success": True, "customResult": {"accessToken": "new", "refreshToken": "next"}}
OVER = {"error": "invalid_grant", "error_description": "the refresh token is spent"}
CLIENT = {"error": "invalid_client"}

HTTP_GRANTS = [kind for kind in GRANTS if not kind.endswith("function")]

TABLE: list[tuple[str, int, object, type[object]]] = [
    # a new pair, to be read
    ("oauth2", 200, NEW, Tokens),
    ("oauth2", 201, NEW, Tokens),
    ("oauth2", 200, {"access_token": "new"}, Tokens),
    ("json", 200, NEW, Tokens),
    ("bearer", 200, NEW, Tokens),
    ("bearer", 200, {"access_token": "new"}, Tokens),
    ("client credentials", 200, NEW, Tokens),
    ("oauth2", 200, NEW | {"error": None}, Tokens),
    ("oauth2", 200, NEW | {"error": ""}, Tokens),
    ("oauth2", 200, b"\xef\xbb\xbf" + json.dumps(NEW).encode(), Tokens),
    ("oauth2", 200, json.dumps(NEW).encode("utf-16"), Tokens),
    ("oauth2", 200, json.dumps(NEW | {"note": "\u00e9"}, ensure_ascii=False).encode("latin-1"), Tokens),
    *(("oauth2", 200, NEW | {"token_type": kind}, Tokens) for kind in ("bearer", "BEARER", "bot", None, 7)),
    ("house", 200, NEW_HOUSE, Tokens),
    ("async function", 200, NEW, Tokens),
    ("function", 200, NEW, Tokens),
    # a success without one: the token may be spent
    ("oauth2", 200, None, OutcomeUnknown),
    ("oauth2", 204, None, OutcomeUnknown),
    ("oauth2", 200, b"<html>signed in</html>", OutcomeUnknown),
    ("oauth2", 200, b'{"access_token": "ne', OutcomeUnknown),
    ("oauth2", 200, b"[" * 100_000, OutcomeUnknown),
    ("oauth2", 200, b"\xff\xfe\x00", OutcomeUnknown),
    ("oauth2", 200, [NEW], OutcomeUnknown),
    ("oauth2", 200, "new", OutcomeUnknown),
    ("oauth2", 200, {"access_token": None}, OutcomeUnknown),
    ("oauth2", 200, {"access_token": 5}, OutcomeUnknown),
    ("oauth2", 200, {"access_token": ""}, OutcomeUnknown),
    ("oauth2", 200, {"access_token": "new\r\nX: y"}, OutcomeUnknown),
    ("oauth2", 200, {"access_token": "new", "refresh_token": "a b"}, OutcomeUnknown),
    ("oauth2", 200, {"accessToken": "new"}, OutcomeUnknown),
    ("json", 200, {"access": "new"}, OutcomeUnknown),
    ("bearer", 200, {"access": "new"}, OutcomeUnknown),
    ("client credentials", 200, {"refresh_token": "next"}, OutcomeUnknown),
    # of a type that no bearer header serves; what it cost decides
    *(("oauth2", 200, NEW | {"token_type": kind}, OutcomeUnknown) for kind in ("mac", "DPoP", "pop")),
    ("client credentials", 200, NEW | {"token_type": "DPoP"}, RefreshMisconfigured),
    # an error code in a success says what it is
    ("oauth2", 200, OVER, SessionEnded),
    ("json", 200, OVER, SessionEnded),
    ("bearer", 200, OVER, SessionEnded),
    ("client credentials", 200, OVER, RefreshMisconfigured),
    *((kind, 200, CLIENT, RefreshMisconfigured) for kind in HTTP_GRANTS),
    *((kind, 200, {"error": "server_error"}, OutcomeUnknown) for kind in HTTP_GRANTS),
    *((kind, 200, {"error": "temporarily_unavailable"}, RefreshUnavailable) for kind in HTTP_GRANTS),
    ("oauth2", 200, {"error": "a sentence for people"}, OutcomeUnknown),
    ("oauth2", 200, {"error": {"code": 190}}, OutcomeUnknown),
    ("house", 200, {"success": True}, OutcomeUnknown),
    ("house", 200, {"success": True, "customResult": "new"}, OutcomeUnknown),
    ("cookies", 200, NEW, OutcomeUnknown),
    ("async function", 200, {}, OutcomeUnknown),
    ("async function", 200, {"access_token": ""}, OutcomeUnknown),
    ("async function", 200, b"<html>", OutcomeUnknown),
    ("function", 200, {}, OutcomeUnknown),
    ("function", 200, b"<html>", OutcomeUnknown),
    # what the grant declares final
    ("oauth2", 400, OVER, SessionEnded),
    ("oauth2", 401, OVER, SessionEnded),
    ("oauth2", 403, OVER, SessionEnded),
    ("json", 400, OVER, SessionEnded),
    ("json", 401, None, SessionEnded),
    ("json", 401, CLIENT, SessionEnded),
    ("house", 200, {"success": False}, SessionEnded),
    ("house", 400, {"success": False}, SessionEnded),
    ("house", 401, None, SessionEnded),
    ("cookies", 401, {"msg": "Token has expired"}, SessionEnded),
    ("cookies", 422, {"msg": "Signature verification failed"}, SessionEnded),
    ("bearer", 401, {"msg": "Token has expired"}, SessionEnded),
    ("bearer", 422, {"msg": "Signature verification failed"}, SessionEnded),
    ("bearer", 400, OVER, SessionEnded),
    ("async function", 400, OVER, SessionEnded),
    ("function", 400, OVER, SessionEnded),
    # any other refusal: the end point refuses us, not the session
    ("oauth2", 400, None, RefreshMisconfigured),
    ("oauth2", 400, CLIENT, RefreshMisconfigured),
    ("oauth2", 401, CLIENT, RefreshMisconfigured),
    ("oauth2", 401, None, RefreshMisconfigured),
    ("oauth2", 403, b"<html>blocked</html>", RefreshMisconfigured),
    ("oauth2", 404, None, RefreshMisconfigured),
    ("oauth2", 405, None, RefreshMisconfigured),
    ("oauth2", 407, None, RefreshMisconfigured),
    ("oauth2", 413, None, RefreshMisconfigured),
    ("oauth2", 499, None, RefreshMisconfigured),
    ("oauth2", 400, {"error": ["invalid_grant"]}, RefreshMisconfigured),
    ("oauth2", 400, {"error": "invalid_grants"}, RefreshMisconfigured),
    ("oauth2", 400, ["invalid_grant"], RefreshMisconfigured),
    ("oauth2", 400, b"invalid_grant", RefreshMisconfigured),
    *(("client credentials", 400, body, RefreshMisconfigured) for body in (OVER, CLIENT, None)),
    ("client credentials", 401, CLIENT, RefreshMisconfigured),
    ("bearer", 403, None, RefreshMisconfigured),
    ("json", 400, None, RefreshMisconfigured),
    ("json", 403, None, RefreshMisconfigured),
    ("json", 422, None, RefreshMisconfigured),
    ("house", 403, {"success": True}, RefreshMisconfigured),
    ("cookies", 400, None, RefreshMisconfigured),
    ("cookies", 403, None, RefreshMisconfigured),
    ("cookies", 400, OVER, RefreshMisconfigured),
    ("async function", 401, CLIENT, RefreshMisconfigured),
    ("async function", 403, b"<html>", RefreshMisconfigured),
    ("function", 404, None, RefreshMisconfigured),
    # the end point is overloaded: nothing was spent
    *((kind, status, None, RefreshUnavailable) for kind in GRANTS for status in (429, 503)),
    ("house", 503, {"success": False}, RefreshUnavailable),
    # it failed: the token may be spent
    *((kind, status, None, OutcomeUnknown) for kind in GRANTS for status in (500, 501, 502, 504, 520, 599)),
    ("oauth2", 500, OVER, OutcomeUnknown),
    ("json", 500, OVER, OutcomeUnknown),
    ("async function", 500, OVER, OutcomeUnknown),
    ("function", 502, OVER, OutcomeUnknown),
]


@pytest.mark.parametrize(
    ("kind", "status", "body", "meaning"),
    TABLE,
    ids=[f"{i}-{kind}-{status}-{meaning.__name__}" for i, (kind, status, _, meaning) in enumerate(TABLE)],
)
def test_each_answer_has_one_meaning(kind: str, status: int, body: object, meaning: type[object]) -> None:
    if kind == "client credentials" and meaning is OutcomeUnknown:
        meaning = RefreshUnavailable  # there is no token that could be spent

    result = outcome(kind, answered(status, body))

    assert isinstance(result, meaning), result
    if isinstance(result, keyturn.RefreshError) and not (kind.endswith("function") and status < 300):
        assert result.status == status


@pytest.mark.parametrize("kind", GRANTS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["https://evil.example/token", "/login", None])
def test_a_redirect_is_never_followed_with_a_refresh_token(
    kind: str, status: int, location: str | None
) -> None:
    urls: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        urls.append(str(request.url))
        return httpx2.Response(status, headers={} if location is None else {"Location": location})

    assert isinstance(outcome(kind, answer), RefreshMisconfigured)
    assert urls == [URL]


@pytest.mark.parametrize("kind", HTTP_GRANTS)
@pytest.mark.parametrize("status", [400, 403])
@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"error": "invalid_client"}, "invalid_client"),
        ({"error": "temporarily_unavailable"}, "temporarily_unavailable"),
        ({"error": "token.bad-client"}, "token.bad-client"),
        ({"error": "a sentence for people"}, None),
        ({"error": ""}, None),
        ({"error": 5}, None),
        ({"error": {"code": "invalid_client"}}, None),
        ({"error": "x" * 65}, None),
        ({"error": "line\nbreak"}, None),
        ({}, None),
        (b"<html>", None),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_the_error_code_is_handed_on_where_it_is_one(
    kind: str, status: int, body: object, code: str | None
) -> None:
    result = outcome(kind, answered(status, body))

    assert isinstance(result, RefreshMisconfigured)
    assert (result.status, result.error) == (status, code)


@pytest.mark.parametrize("kind", GRANTS)
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("2", 2.0),
        ("0", 0.0),
        ("99999", 3600.0),
        ("soon", None),
        (None, None),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
    ],
)
def test_retry_after_is_handed_on_in_seconds(kind: str, header: str | None, seconds: float | None) -> None:
    headers = {"Date": "Tue, 14 Nov 2023 22:13:20 GMT"} | ({} if header is None else {"Retry-After": header})

    result = outcome(kind, answered(503, None, headers))

    assert isinstance(result, RefreshUnavailable)
    assert (result.status, result.retry_after) == (503, seconds)


FAILURES: list[tuple[BaseException, type[KeyturnError]]] = [
    # no connection: nothing was spent
    (httpx2.ConnectError("no"), RefreshUnavailable),
    (httpx2.ConnectTimeout("no"), RefreshUnavailable),
    (httpx2.PoolTimeout("no"), RefreshUnavailable),
    (httpx2.ProxyError("no"), RefreshUnavailable),
    # no answer after sending: it may be
    (httpx2.ReadTimeout("no"), OutcomeUnknown),
    (httpx2.ReadError("no"), OutcomeUnknown),
    (httpx2.WriteTimeout("no"), OutcomeUnknown),
    (httpx2.WriteError("no"), OutcomeUnknown),
    (httpx2.CloseError("no"), OutcomeUnknown),
    (httpx2.RemoteProtocolError("no"), OutcomeUnknown),
    (httpx2.LocalProtocolError("no"), OutcomeUnknown),
    (httpx2.SSEError("no"), OutcomeUnknown),
    (httpx2.DecodingError("no"), OutcomeUnknown),
    (httpx2.TooManyRedirects("no"), OutcomeUnknown),
    (TimeoutError("no"), OutcomeUnknown),
    # never an answer, and a wrong address never will be one
    (httpx2.UnsupportedProtocol("no"), RefreshMisconfigured),
    (httpx2.InvalidURL("no"), RefreshMisconfigured),
    # what nobody thought of
    (OSError("no"), OutcomeUnknown),
    (ConnectionResetError("no"), OutcomeUnknown),
    (ValueError("no"), OutcomeUnknown),
    (KeyError("no"), OutcomeUnknown),
    (RecursionError("no"), OutcomeUnknown),
    (MemoryError("no"), OutcomeUnknown),
    (AssertionError("no"), OutcomeUnknown),
    (StopIteration("no"), OutcomeUnknown),
    (StopAsyncIteration("no"), OutcomeUnknown),
    (RuntimeError("no"), OutcomeUnknown),
    (ExceptionGroup("no", [ValueError("no")]), OutcomeUnknown),
    (asyncio.CancelledError("no"), OutcomeUnknown),
    (SystemExit(1), OutcomeUnknown),
    (BaseException("no"), OutcomeUnknown),
]


@pytest.mark.parametrize("kind", GRANTS)
@pytest.mark.parametrize(
    ("error", "meaning"), FAILURES, ids=lambda value: getattr(type(value), "__name__", "")
)
def test_each_failure_has_one_meaning_and_strands_nobody(
    kind: str, error: BaseException, meaning: type[KeyturnError]
) -> None:
    if kind == "client credentials" and meaning is OutcomeUnknown:
        meaning = RefreshUnavailable  # there is no token that could be spent
    if kind == "function" and meaning is RefreshUnavailable:
        meaning = OutcomeUnknown  # nobody sees what it did before: it may have sent something else

    result = outcome(kind, raising(error))

    assert type(result) is meaning, result


def test_every_transport_error_of_httpx2_is_in_the_table() -> None:
    def below(kind: type[Exception]) -> set[type[Exception]]:
        return {kind, *itertools.chain.from_iterable(map(below, kind.__subclasses__()))}

    abstract = {httpx2.TransportError, httpx2.TimeoutException, httpx2.NetworkError, httpx2.ProtocolError}
    assert below(httpx2.TransportError) - abstract <= {type(error) for error, _ in FAILURES}


async def silent(request: httpx2.Request) -> httpx2.Response:
    """Answer nothing, for longer than any test waits."""
    await asyncio.sleep(3600)
    return httpx2.Response(200)


def test_an_end_point_that_never_answers_costs_the_grants_own_timeout_and_no_more() -> None:
    credentials = keyturn.Credentials(
        grants.OAuth2(
            URL,
            http=lambda: httpx2.AsyncClient(transport=httpx2.MockTransport(silent)),
            timeout=timedelta(milliseconds=50),
        ),
        tokens=pair(),
        origins=["https://api.example"],
    )

    with pytest.raises(OutcomeUnknown):
        credentials.get_tokens(timeout=30)


def test_a_grant_of_the_users_own_that_returns_no_tokens_is_told_by_name() -> None:
    class Odd(grants.OAuth2):
        async def exchange(self, tokens: Tokens, wire: grants.Wire) -> Any:
            return {"access_token": "new"}

    credentials = keyturn.Credentials(Odd(URL), tokens=pair(), origins=["https://api.example"])

    with pytest.raises(OutcomeUnknown):
        credentials.get_tokens(timeout=30)


# Whatever is answered

quick = settings(deadline=None, max_examples=60)
TEXT = st.text(max_size=20)
LEAF = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | TEXT
    | st.sampled_from(["invalid_grant", "a b", "é"])
)
NAMES = st.sampled_from(
    [
        "access_token",
        "refresh_token",
        "expires_in",
        "error",
        "error_description",
        "error_uri",
        "token_type",
        "success",
        "customResult",
        "accessToken",
        "refreshToken",
    ]
)
VALUES = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXT, inner, max_size=5),
    max_leaves=12,
)
BODIES = st.one_of(
    st.binary(max_size=60),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(NAMES, LEAF, max_size=6).map(lambda value: json.dumps(value).encode()),
    st.sampled_from(
        [
            b"",
            b"null",
            b"[",
            b"{" * 3000,
            b"\xef\xbb\xbf{}",
            b'{"access_token": "new", "note": "\xe9"}',
            b"access_token=new&refresh_token=next&error=",
            b'{"access_token": "\\ud800"}',
            gzip.compress(b"{}"),
        ]
    ),
)
COOKIE_NAMES = st.sampled_from(
    [
        "access_token_cookie",
        "refresh_token_cookie",
        "csrf_access_token",
        "csrf_refresh_token",
        "other",
        "",
        '"',
    ]
)
ATTRIBUTES = st.sampled_from(
    [
        "Max-Age=0",
        "Max-Age=60",
        "max-age=-1",
        "max-age=--5",
        "Max-Age=" + "-" * 20 + "1",
        "Max-Age=" + "9" * 5000,
        "Max-Age=\u0665",
        "Max-Age",
        "Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        "Expires=Thu, 01-Jan-70 00:00:00 GMT",
        "Expires=Fri, 31 Dec 9999 23:59:59 -2359",
        "Expires=soon",
        "Expires=",
        "HttpOnly",
        "=",
        "",
    ]
)
COOKIES = st.builds(
    lambda name, value, attributes: "; ".join([f"{name}={value}", *attributes]),
    COOKIE_NAMES,
    st.sampled_from(["new", "", '"quoted"', "a b", "caf\u00e9", "\u20ac", "\x7f", "a,b", 'a"b'])
    | st.text(max_size=10),
    st.lists(ATTRIBUTES, max_size=3),
)


def encoded(text: str) -> bytes:
    """Return bytes that can stand in a header line."""
    return text.encode("utf-8", "replace").replace(b"\r", b"").replace(b"\n", b"").replace(b"\x00", b"")


HEADERS = st.lists(
    st.one_of(
        st.tuples(st.just(b"Set-Cookie"), (COOKIES | TEXT).map(encoded)),
        st.tuples(st.just(b"Retry-After"), st.sampled_from([b"2", b"-1", b"x" * 400, b"9" * 400, b"\xff"])),
        st.tuples(st.just(b"Date"), st.sampled_from([b"Tue, 14 Nov 2023 22:13:20 GMT", b"x", b"\xff"])),
        st.tuples(
            st.just(b"Location"), st.sampled_from([b"/", b"https://evil.example", b"http://[", b"\xff", b""])
        ),
        st.tuples(st.just(b"Content-Encoding"), st.sampled_from([b"gzip", b"deflate", b"identity", b"odd"])),
        st.tuples(
            st.just(b"Content-Type"),
            st.sampled_from(
                [
                    b"application/json; charset=odd",
                    b"application/x-www-form-urlencoded",
                    b"\xff",
                    b"",
                ]
            ),
        ),
        st.tuples(
            st.just(b"WWW-Authenticate"),
            st.sampled_from([b"Bearer", b"Basic", b'Bearer error="', b"\xff", b"", b"," * 50, b"DPoP algs="]),
        ),
        st.tuples(
            st.sampled_from([b"X-Access-Token", b"X-Refresh-Token", b"X-Expires-In"]), TEXT.map(encoded)
        ),
    ),
    max_size=5,
)
STATUSES = st.sampled_from([200, 201, 204, 302, 400, 401, 403, 422, 429, 500, 502, 503]) | st.integers(
    100, 999
)


@pytest.mark.parametrize("kind", GRANTS)
@quick
@given(status=STATUSES, headers=HEADERS, body=BODIES)
def test_whatever_is_answered_the_outcome_is_tokens_or_one_of_four_errors(
    kind: str, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    result = outcome(kind, answered(status, body, headers))

    assert isinstance(result, Tokens) or type(result) in MEANINGS, result
    if isinstance(result, Tokens):
        assert 200 <= status < 300
        assert result.refresh is not None or "function" in kind or kind == "client credentials"


@pytest.mark.parametrize("kind", ["oauth2", "json", "bearer", "house", "cookies"])
@LIBRARIES
@quick
@given(status=STATUSES, headers=HEADERS, body=BODIES)
def test_whatever_a_login_answers_read_returns_tokens_or_a_configuration_error(
    kind: str, lib: Any, adapter: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    grant: Any = GRANTS[kind](httpx2.AsyncClient)
    response = lib.Response(
        status, headers=[one for one in headers if one[0] != b"Content-Encoding"], content=body
    )

    try:
        tokens = grant.read(response)
    except ConfigurationError:
        return
    assert isinstance(tokens, Tokens)


# Adapters: whatever an API answers

PAIR_IN_HEADERS = {"access": "X-Access-Token", "refresh": "X-Refresh-Token", "expires_in": "X-Expires-In"}
PAIR_IN_BODY = {"access": "access_token", "refresh": "refresh_token", "expires_in": "expires_in"}
CARRIERS: dict[str, Callable[[], Carrier]] = {
    "bearer": Bearer,
    "bearer, pair in headers": lambda: Bearer(adopt=PAIR_IN_HEADERS),
    "bearer, pair in the body": lambda: Bearer(adopt=InBody(PAIR_IN_BODY)),
    "cookies": Cookies,
    "cookies, renewed by each answer": lambda: Cookies(renews=True),
}


def credentials_that_refresh(carrier: Carrier) -> keyturn.Credentials:
    """Return credentials with a valid pair, and a grant that always brings another."""
    numbers = itertools.count()

    async def refresh(tokens: Tokens, http: httpx2.AsyncClient) -> Tokens:
        return Tokens(f"new-{next(numbers)}", tokens.refresh, time.time() + 3600, 3600.0, tokens.extra)

    return keyturn.Credentials(
        grants.Call(refresh, http=lambda: httpx2.AsyncClient(transport=httpx2.MockTransport(silent))),
        tokens=Tokens("access", "refresh", time.time() + 3600, 3600.0, {"csrf_access_token": "ca"}),
        origins=["https://api.example"],
        carrier=carrier,
    )


def api_answers(lib: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> Any:
    """Return a transport that answers so each time."""
    return lib.MockTransport(lambda _: lib.Response(status, headers=headers, stream=lib.ByteStream(body)))


@LIBRARIES
@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@settings(deadline=None, max_examples=25)
@given(status=STATUSES, headers=HEADERS, body=BODIES)
@example(status=200, headers=[(b"Set-Cookie", b"access_token_cookie=new; Max-Age=--5")], body=b"")
@example(
    status=200,
    headers=[(b"Set-Cookie", b"access_token_cookie=new"), (b"Set-Cookie", b"csrf_access_token=caf\xe9")],
    body=b"",
)
def test_whatever_an_api_answers_is_handed_over_or_a_named_error(
    lib: Any,
    adapter: Any,
    carrier: str,
    asynchronous: bool,
    status: int,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
) -> None:
    credentials = credentials_that_refresh(CARRIERS[carrier]())
    inner = api_answers(lib, status, headers, body)

    def request() -> Any:
        return lib.Request("POST", "https://api.example/", content=b"body")

    async def twice() -> list[Any]:
        transport = adapter.AsyncTransport(credentials, inner)
        return [await transport.handle_async_request(request()) for _ in range(2)]

    try:
        if asynchronous:
            responses = asyncio.run(asyncio.wait_for(twice(), 30))
        else:
            transport = adapter.Transport(credentials, inner)
            responses = [transport.handle_request(request()) for _ in range(2)]
    except KeyturnError:
        return
    except lib.DecodingError:  # the library's own, for whoever reads such a body
        assert any(name == b"Content-Encoding" for name, _ in headers)
        return
    assert [response.status_code for response in responses] == [status, status]


@LIBRARIES
@settings(deadline=None, max_examples=25)
@given(status=STATUSES, headers=HEADERS, body=BODIES)
def test_auth_hands_over_what_the_api_answers(
    lib: Any, adapter: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    headers = [one for one in headers if one[0] not in (b"Location", b"Content-Encoding", b"Set-Cookie")]
    auth = adapter.Auth(credentials_that_refresh(Bearer()))

    with lib.Client(auth=auth, transport=api_answers(lib, status, headers, body)) as api:
        assert api.get("https://api.example/").status_code == status


@LIBRARIES
@pytest.mark.parametrize("value", [{}, "new", 5, True], ids=repr)
def test_an_adopt_callable_that_returns_no_tokens_is_told_by_name(lib: Any, adapter: Any, value: Any) -> None:
    credentials = credentials_that_refresh(Bearer(adopt=lambda answer, carried: value))
    transport = adapter.Transport(credentials, api_answers(lib, 200, [], b""))

    with pytest.raises(ConfigurationError, match="adopt"):
        transport.handle_request(lib.Request("GET", "https://api.example/"))


def test_a_refusal_that_asks_for_another_scheme_only_is_none_of_ours() -> None:
    carrier = Bearer()

    assert carrier.refused(401, {})
    assert carrier.refused(401, httpx2.Headers({"WWW-Authenticate": "Bearer"}))
    assert carrier.refused(
        401, httpx2.Headers([("WWW-Authenticate", "Basic"), ("WWW-Authenticate", "bearer")])
    )
    assert not carrier.refused(401, httpx2.Headers({"WWW-Authenticate": "Basic realm=x"}))
    assert not carrier.refused(403, {})


# Reading cookies and bodies


def test_an_answer_shows_neither_its_headers_nor_its_body() -> None:
    answer = Answer(200, {"X-Access-Token": "secret"}, 0.0, ("a=secret",), b'{"access_token": "secret"}')

    assert repr(answer) == "<Answer 200, 26 bytes>"
    assert repr(Reply(200, {}, 0.0, (), b"secret", secrets=("secret",))) == "<Reply 200, 6 bytes>"


@pytest.mark.parametrize(
    ("line", "cookies"),
    [
        ("a=b", {"a": "b"}),
        ("a=b; Path=/; HttpOnly", {"a": "b"}),
        (" a = b ;Path=/", {"a": "b"}),
        ('a="b"', {"a": "b"}),
        ("a=b=c", {"a": "b=c"}),
        ("a=", {"a": ""}),
        ("a", {}),
        ("=b", {}),
        ("", {}),
        (";", {}),
        ("a=b; Max-Age=60", {"a": "b"}),
        ("a=b; Max-Age=0", {"a": ""}),
        ("a=b; max-age=-1", {"a": ""}),
        ("a=b; max-age=--1", {"a": "b"}),  # RFC 6265 §5.2.2: not a number, so not there
        ("a=b; max-age=-", {"a": "b"}),
        ("a=b; max-age=1x", {"a": "b"}),
        ("a=b; max-age=\u0665", {"a": "b"}),
        ("a=b; Max-Age=" + "9" * 5000, {"a": "b"}),
        ("a=b; Max-Age=-" + "9" * 5000, {"a": ""}),
        ("a=b; Expires=Thu, 01 Jan 1970 00:00:00 GMT", {"a": ""}),
        ("a=b; Expires=Thu, 01-Jan-1970 00:00:00 GMT", {"a": ""}),
        ("a=b; Expires=Fri, 31 Dec 9999 23:59:59 GMT", {"a": "b"}),
        ("a=b; Expires=soon", {"a": "b"}),
        ("a=b; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT", {"a": "b"}),
        ("a=b; Max-Age=0; Expires=Fri, 31 Dec 9999 23:59:59 GMT", {"a": ""}),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_a_set_cookie_line_is_read_as_a_browser_does(line: str, cookies: dict[str, str]) -> None:
    assert Answer(200, {}, 0.0, (line,)).cookies() == cookies


@settings(deadline=None, max_examples=150)
@given(st.lists(COOKIES | st.text(max_size=40), max_size=4))
def test_any_set_cookie_lines_are_cookies_or_none(lines: list[str]) -> None:
    cookies = Answer(200, {}, 0.0, tuple(lines)).cookies()

    assert all(name and name == name.strip() for name in cookies)


@settings(deadline=None, max_examples=150)
@given(BODIES)
def test_any_body_is_a_json_object_or_none(body: bytes) -> None:
    value = Answer(200, {}, 0.0, (), body).json()

    assert value is None or isinstance(value, dict)


@LIBRARIES
def test_every_set_cookie_is_seen_whatever_the_library_calls_the_method(lib: Any, adapter: Any) -> None:
    class Getlist(dict[str, str]):
        def getlist(self, name: str) -> list[str]:
            return ["a=b", "c=d"]

    class Getall(dict[str, str]):
        def getall(self, name: str) -> list[str]:
            return ["a=b", "c=d"]

    many = lib.Headers([("Set-Cookie", "a=b"), ("set-cookie", "c=d")])
    assert set_cookies(many) == ("a=b", "c=d")
    assert (
        set_cookies(Getlist({"set-cookie": "x"}))
        == set_cookies(Getall({"set-cookie": "x"}))
        == ("a=b", "c=d")
    )
    assert set_cookies({"set-cookie": "a=b"}) == ("a=b",)
    assert set_cookies(lib.Headers()) == set_cookies({}) == set_cookies(Getall()) == ()


COOKIE = st.tuples(st.text("abc", min_size=1, max_size=2), st.text("xyz", max_size=2))


@quick
@given(
    st.lists(COOKIE, max_size=5),
    st.dictionaries(st.text("abc", min_size=1, max_size=2), st.text("xyz"), max_size=3),
)
def test_our_cookies_take_the_place_of_theirs_and_leave_the_others_alone(
    theirs: list[tuple[str, str]], ours: dict[str, str]
) -> None:
    header = "; ".join(f"{name}={value}" for name, value in theirs)

    merged = [one for one in merge_cookies(header, ours).split("; ") if one]

    kept = [f"{name}={value}" for name, value in theirs if name not in ours]
    assert merged == [*kept, *(f"{name}={value}" for name, value in ours.items())]


@quick
@given(
    st.text(max_size=40), st.dictionaries(st.text("abc", min_size=1), st.text("xyz"), min_size=1, max_size=3)
)
def test_ours_are_in_whatever_cookie_header_there_was(header: str, ours: dict[str, str]) -> None:
    assert merge_cookies(header, ours).endswith("; ".join(f"{name}={value}" for name, value in ours.items()))


# Arguments that cannot work are refused where they are written

ARGUMENTS: dict[str, Callable[[], object]] = {
    "url None": lambda: grants.OAuth2(None),  # type: ignore[arg-type]
    "url relative": lambda: grants.OAuth2("/token"),
    "url ftp": lambda: grants.JSON("ftp://id.example/token"),
    "url without host": lambda: grants.Cookies("https:///token"),
    "url with a bad port": lambda: grants.Cookies("https://id.example:x/token"),
    "client_secret alone": lambda: grants.OAuth2(URL, client_secret="word"),
    "client_id a number": lambda: grants.OAuth2(URL, client_id=5),  # type: ignore[arg-type]
    "client_secret bytes": lambda: grants.OAuth2(URL, client_id="a", client_secret=b"word"),  # type: ignore[arg-type]
    "scope a list": lambda: grants.OAuth2(URL, scope=["a"]),  # type: ignore[arg-type]
    "http a client": lambda: grants.OAuth2(URL, http=httpx2.URL(URL)),  # type: ignore[arg-type]
    "timeout a number": lambda: grants.OAuth2(URL, timeout=5),  # type: ignore[arg-type]
    "timeout zero": lambda: grants.OAuth2(URL, timeout=timedelta(0)),
    "window a number": lambda: grants.OAuth2(URL, replay_window=5),  # type: ignore[arg-type]
    "window negative": lambda: grants.OAuth2(URL, replay_window=timedelta(-1)),
    "send a number": lambda: grants.JSON(URL, send=5),  # type: ignore[arg-type]
    "receive a number": lambda: grants.JSON(URL, receive=5),  # type: ignore[arg-type]
    "receive a name": lambda: grants.JSON(URL, receive="access_token"),  # type: ignore[arg-type]
    "receive without access": lambda: grants.JSON(URL, receive={"refresh": "r"}),
    "receive with more": lambda: grants.JSON(URL, receive={"access": "a", "id_token": "i"}),
    "receive of numbers": lambda: grants.JSON(URL, receive={"access": 5}),  # type: ignore[dict-item]
    "ended a number": lambda: grants.JSON(URL, ended=5),  # type: ignore[arg-type]
    "names a mapping": lambda: grants.Cookies(URL, names={"access": "a"}),  # type: ignore[arg-type]
    "cookie names a mapping": lambda: Cookies({"access": "a"}),  # type: ignore[arg-type]
    "cookie name a number": lambda: CookieNames(access=5),  # type: ignore[arg-type]
    "cookie name empty": lambda: CookieNames(refresh=""),
    "cookie name with more": lambda: CookieNames(access="a=b; c"),
    "csrf header with more": lambda: CookieNames(header="X-CSRF\r\nX-Evil: 1"),
    "csrf header not ASCII": lambda: CookieNames(header="X-\u00e9"),
    "refusals a number": lambda: Bearer(refusals=401),  # type: ignore[arg-type]
    "refusals of texts": lambda: Cookies(refusals=["401"]),  # type: ignore[list-item]
    "adopt a name": lambda: Bearer(adopt="X-Access-Token"),  # type: ignore[arg-type]
    "adopt of numbers": lambda: Bearer(adopt={"access": 5}),  # type: ignore[dict-item]
    "adopt without access": lambda: Bearer(adopt=InBody({"refresh": "r"})),
    "function None": lambda: grants.Call(None),  # type: ignore[arg-type]
    "a class in place of a grant": lambda: grants.grant_of(grants.OAuth2),  # type: ignore[arg-type]
    "a text in place of a grant": lambda: grants.grant_of(URL),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("make", ARGUMENTS.values(), ids=ARGUMENTS)
def test_an_argument_that_cannot_work_is_refused_at_once(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError):
        make()


@pytest.mark.parametrize(
    "url", ["ftp://user:hunter2@id.example", "https://user:hunter2@", "https://u:hunter2/@id.example"]
)
def test_a_refused_end_point_does_not_quote_a_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        grants.OAuth2(url)

    assert "hunter2" not in f"{raised.value} {raised.value.__cause__}"


@LIBRARIES
def test_a_body_that_cannot_be_sent_again_is_the_callers_only_named_error_for_a_refusal(
    lib: Any, adapter: Any
) -> None:
    transport = adapter.Transport(credentials_that_refresh(Bearer()), api_answers(lib, 401, [], b""))

    with pytest.raises(NotReplayable):
        transport.handle_request(lib.Request("POST", "https://api.example/", content=iter([b"body"])))

"""How a new pair is bought, and what each answer means: every grant against answers made to measure."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import httpx2
import pytest

import keyturn
from keyturn.client import Bearer, Carrier, CookieNames, grants

URL = "https://id.example/token"
OLD = keyturn.Tokens("old-access", "old-refresh", extra={"csrf_refresh_token": "old-csrf"})
PAIR = {"access_token": "new-access", "refresh_token": "new-refresh", "expires_in": 60}
Handler = Callable[[httpx2.Request], httpx2.Response]


class Server:
    """Answers every request the same way and keeps what was asked; `http` and `sync_http` are for a grant."""

    def __init__(self, status: int = 200, body: object = None, **options: Any) -> None:
        self.requests: list[httpx2.Request] = []
        content = body if isinstance(body, bytes) else json.dumps(PAIR if body is None else body).encode()
        self._answer = functools.partial(httpx2.Response, status, content=content, **options)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        return self._answer()

    def http(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.MockTransport(self))

    def sync_http(self) -> httpx2.Client:
        return httpx2.Client(transport=httpx2.MockTransport(self))

    @property
    def request(self) -> httpx2.Request:
        (only,) = self.requests
        return only

    @property
    def form(self) -> dict[str, str]:
        return {name: value for name, (value,) in parse_qs(self.request.content.decode()).items()}


def buy(grant: grants.Grant | grants.Function, old: keyturn.Tokens = OLD) -> keyturn.Tokens:
    """Refresh as an application does, and return what it gets; the tokens that it had are refused ones."""
    with _credentials(grant, old) as credentials:
        return credentials.renew(credentials.get_tokens())


def _credentials(grant: grants.Grant | grants.Function, old: keyturn.Tokens = OLD) -> keyturn.Credentials:
    return keyturn.Credentials(grant, tokens=old, origins=["https://api.example"], retry_for=timedelta(0))


def jwt(**claims: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'HS256'})}.{part(claims)}.{part('mac')}"


# OAuth2


def test_a_public_client_names_itself_in_the_form() -> None:
    server = Server()

    pair = buy(grants.OAuth2(URL, client_id="dashboard", http=server.http))

    assert (pair.access, pair.refresh, pair.lifetime) == ("new-access", "new-refresh", 60)
    assert (server.request.method, str(server.request.url)) == ("POST", URL)
    assert server.form == {
        "grant_type": "refresh_token",
        "refresh_token": "old-refresh",
        "client_id": "dashboard",
    }
    assert "authorization" not in server.request.headers


def test_a_confidential_client_proves_itself_by_http_basic_and_not_in_the_form() -> None:
    server = Server()

    buy(grants.OAuth2(URL, client_id="a:b c", client_secret="s%ü&", scope="read write", http=server.http))

    scheme, _, value = server.request.headers["authorization"].partition(" ")
    assert (scheme, base64.b64decode(value)) == ("Basic", b"a%3Ab+c:s%25%C3%BC%26")  # RFC 6749 §2.3.1
    assert server.form == {
        "grant_type": "refresh_token",
        "refresh_token": "old-refresh",
        "scope": "read write",
    }


def test_a_client_that_says_nothing_of_itself_sends_the_token_alone() -> None:
    server = Server()

    buy(grants.OAuth2(URL, http=server.http))

    assert server.form == {"grant_type": "refresh_token", "refresh_token": "old-refresh"}


@pytest.mark.parametrize("said", [{}, {"refresh_token": None}, {"refresh_token": ""}])
def test_an_answer_without_a_refresh_token_keeps_the_old_one(said: Mapping[str, object]) -> None:
    body = {"access_token": "new-access", "expires_in": 60, **said}

    pair = buy(grants.OAuth2(URL, http=Server(body=body).http))

    assert (pair.access, pair.refresh) == ("new-access", "old-refresh")


@pytest.mark.parametrize("expires_in", [60, 60.0, "60", " 60 "], ids=repr)
def test_expires_in_may_be_a_number_or_a_string_of_one(expires_in: object) -> None:
    pair = buy(grants.OAuth2(URL, http=Server(body=PAIR | {"expires_in": expires_in}).http))

    assert pair.lifetime == 60
    assert pair.expires_at == pytest.approx(time.time() + 60, abs=5)


@pytest.mark.parametrize("expires_in", [None, "soon", True, [], "nan", {}], ids=repr)
def test_without_a_usable_expires_in_a_jwt_lives_for_exp_minus_iat_whatever_the_server_s_clock_says(
    expires_in: object,
) -> None:
    access = jwt(iat=1_000, exp=1_090)

    pair = buy(
        grants.OAuth2(URL, http=Server(body=PAIR | {"access_token": access, "expires_in": expires_in}).http)
    )

    assert pair.lifetime == 90
    assert pair.expires_at == pytest.approx(time.time() + 90, abs=5)


def test_an_opaque_token_without_expires_in_has_no_known_end() -> None:
    pair = buy(grants.OAuth2(URL, http=Server(body={"access_token": "opaque"}).http))

    assert pair.expires_at is None


def test_the_life_of_a_pair_counts_from_the_sending_of_its_request() -> None:
    now = [1_000.0]

    def slow(request: httpx2.Request) -> httpx2.Response:
        now[0] += 25.0
        return httpx2.Response(200, json=PAIR)

    grant = grants.OAuth2(URL, http=lambda: httpx2.AsyncClient(transport=httpx2.MockTransport(slow)))
    credentials = keyturn.Credentials(
        grant, tokens=OLD, origins=["https://api.example"], clock=lambda: now[0]
    )

    assert credentials.renew(credentials.get_tokens()).expires_at == 1_060.0


@pytest.mark.parametrize("status", [400, 401, 403, 200])
def test_invalid_grant_ends_the_session_whatever_the_status_it_comes_with(status: int) -> None:
    with pytest.raises(keyturn.SessionEnded) as caught:
        buy(grants.OAuth2(URL, http=Server(status, {"error": "invalid_grant"}).http))

    assert caught.value.reason == "refused"


@pytest.mark.parametrize("code", ["bad_refresh_token", "invalid_client", "unsupported_grant_type"])
def test_a_200_with_an_error_code_in_its_body_is_the_refusal_that_it_spells(code: str) -> None:
    with pytest.raises(keyturn.RefreshMisconfigured) as caught:
        buy(grants.OAuth2(URL, http=Server(200, {"error": code}).http))

    assert (caught.value.status, caught.value.error) == (200, code)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'"x"', b"{}", b'{"access_token": 7}', b"[" * 100_000]
)
def test_a_200_that_cannot_be_read_leaves_the_outcome_open(body: bytes) -> None:
    with pytest.raises(keyturn.OutcomeUnknown):
        buy(grants.OAuth2(URL, http=Server(200, body).http))


@pytest.mark.parametrize("access", ["", "two words", "line\nfeed", "tökén"])
def test_an_access_token_that_no_header_could_carry_leaves_the_outcome_open(access: str) -> None:
    with pytest.raises(keyturn.OutcomeUnknown):
        buy(grants.OAuth2(URL, http=Server(200, PAIR | {"access_token": access}).http))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_the_refresh_token_goes_nowhere_else(status: int) -> None:
    server = Server(status, headers={"Location": "https://elsewhere.example/token"})

    with pytest.raises(keyturn.RefreshMisconfigured) as caught:
        buy(grants.OAuth2(URL, http=server.http))

    assert caught.value.status == status
    assert "redirect" in str(caught.value)
    assert len(server.requests) == 1


def test_a_redirect_is_refused_though_the_client_that_was_given_would_follow_it() -> None:
    server = Server(307, headers={"Location": "https://elsewhere.example/token"})

    def http() -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.MockTransport(server), follow_redirects=True)

    with pytest.raises(keyturn.RefreshMisconfigured):
        buy(grants.OAuth2(URL, http=http))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, {"error": "invalid_client"}, "invalid_client"),
        (400, {"error": "invalid_request"}, "invalid_request"),
        (403, b"<html>blocked", None),
        (404, b"", None),
        (400, {"error": "a secret, by accident"}, None),
        (400, {"error": 7}, None),
    ],
)
def test_any_other_4xx_is_a_misconfiguration_that_names_the_code(
    status: int, body: object, error: str | None
) -> None:
    credentials = _credentials(grants.OAuth2(URL, http=Server(status, body).http))

    with pytest.raises(keyturn.RefreshMisconfigured) as caught:
        credentials.renew(credentials.get_tokens())

    assert (caught.value.status, caught.value.error) == (status, error)
    assert "secret" not in str(caught.value)
    assert credentials.tokens is not None


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_5xx_leaves_the_outcome_open_and_is_not_tried_again(status: int) -> None:
    server = Server(status, {"error": "invalid_grant"})

    with pytest.raises(keyturn.OutcomeUnknown):
        buy(grants.OAuth2(URL, http=server.http))

    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_an_overloaded_end_point_is_unavailable_and_the_time_that_it_names_is_told(status: int) -> None:
    with pytest.raises(keyturn.RefreshUnavailable) as caught:
        buy(grants.OAuth2(URL, http=Server(status, b"", headers={"Retry-After": "7"}).http))

    assert (caught.value.status, caught.value.retry_after) == (status, 7)


def test_the_pair_of_a_login_response_is_read() -> None:
    grant = grants.OAuth2(URL)

    tokens = grant.read(httpx2.Response(200, json=PAIR))

    assert (tokens.access, tokens.refresh, tokens.lifetime) == ("new-access", "new-refresh", 60)
    with pytest.raises(keyturn.ConfigurationError, match=r"401.*access_token"):
        grant.read(httpx2.Response(401, json={"error": "wrong password"}))


# JSON

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
    credentials = _credentials(grants.JSON(URL, receive=receive, http=server.http))
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


# Cookies


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


# Call


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


def test_a_refresh_that_cannot_be_built_was_not_sent_and_leaves_nothing_unknown() -> None:
    def broken(*_: object) -> Any:
        raise ZeroDivisionError

    for grant in (
        grants.JSON("https://id.example/refresh", send=broken),
        grants.OAuth2("https://id.example/token", http=broken),
    ):
        with pytest.raises(keyturn.RefreshMisconfigured, match="could not be prepared: ZeroDivisionError"):
            buy(grant)


@pytest.mark.parametrize("status", [429, 503])
def test_an_overloaded_end_point_ends_no_session_whatever_its_body_says(status: int) -> None:
    server = Server(status, {"error": "invalid_grant"})

    with pytest.raises(keyturn.RefreshUnavailable):
        buy(grants.OAuth2("https://id.example/token", http=server.http))


def test_a_fault_of_the_house_is_not_taken_for_the_end_that_its_envelope_spells() -> None:
    server = Server(500, {"success": False})
    grant = grants.JSON(
        "https://id.example/refresh",
        http=server.http,
        ended=lambda status, body: body.get("success") is False,
    )

    with pytest.raises(keyturn.OutcomeUnknown):
        buy(grant)


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

    with pytest.raises(keyturn.OutcomeUnknown, match=r"LookupError.*test_grants\.py") as caught:
        buy(fails)
    assert "old-refresh" not in str(caught.value)


def test_a_callable_needs_no_refresh_token() -> None:
    server = Server()

    assert buy(grants.Call(_async, http=server.http), keyturn.Tokens("old-access")).access == "new-access"


@pytest.mark.parametrize("make", [grants.OAuth2, grants.JSON, grants.Cookies])
def test_without_a_refresh_token_there_is_no_request(make: Any) -> None:
    server = Server()

    with pytest.raises(keyturn.NotSignedIn) as caught:
        buy(make(URL, http=server.http), keyturn.Tokens("old-access"))

    assert not isinstance(caught.value, keyturn.SessionEnded)
    assert not server.requests


def test_an_async_callable_that_fails_before_it_sends_has_spent_nothing() -> None:
    def refuses(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    def http() -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.MockTransport(refuses))

    with pytest.raises(keyturn.RefreshUnavailable):
        buy(grants.Call(_async, http=http))


# Arguments that cannot work

WRONG: list[tuple[str, Callable[[], object]]] = [
    ("full URL", lambda: grants.OAuth2("/token")),
    ("full URL", lambda: grants.OAuth2("ftp://id.example/token")),
    ("URL", lambda: grants.OAuth2(None)),  # type: ignore[arg-type]
    ("full URL", lambda: grants.Cookies("https://")),
    ("client_id", lambda: grants.OAuth2(URL, client_secret="s")),
    ("timedelta", lambda: grants.OAuth2(URL, timeout=5)),  # type: ignore[arg-type]
    ("timedelta", lambda: grants.JSON(URL, replay_window=10)),  # type: ignore[arg-type]
    ("timeout", lambda: grants.Cookies(URL, timeout=timedelta(0))),
    ("replay_window", lambda: grants.OAuth2(URL, replay_window=timedelta(seconds=-1))),
    ("CookieNames", lambda: grants.Cookies(URL, names={"access": "a"})),  # type: ignore[arg-type]
    ("access", lambda: grants.JSON(URL, receive={"refresh": "r"})),
    ("acess", lambda: grants.JSON(URL, receive={"acess": "a"})),
    ("receive", lambda: grants.JSON(URL, receive=["access"])),  # type: ignore[arg-type]
    ("receive", lambda: grants.JSON(URL, receive="access")),  # type: ignore[arg-type]
    ("access", lambda: grants.JSON(URL, receive={"access": None})),  # type: ignore[dict-item]
    ("send", lambda: grants.JSON(URL, send=7)),  # type: ignore[arg-type]
    ("ended", lambda: grants.JSON(URL, ended=True)),  # type: ignore[arg-type]
    ("http", lambda: grants.OAuth2(URL, http=httpx2.AsyncClient())),  # type: ignore[arg-type]
    ("http", lambda: grants.Call(_async, http="proxy")),  # type: ignore[arg-type]
    ("sync_http", lambda: grants.Call(_sync, sync_http="proxy")),  # type: ignore[arg-type]
    ("callable", lambda: grants.Call(7)),  # type: ignore[arg-type]
    ("callable", lambda: keyturn.Credentials("https://id.example", origins=["https://api.example"])),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(
    ("says", "make"), [pytest.param(*one, id=f"{i}-{one[0]}") for i, one in enumerate(WRONG)]
)
def test_an_argument_that_cannot_work_is_refused_at_once_and_named(
    says: str, make: Callable[[], object]
) -> None:
    with pytest.raises(keyturn.ConfigurationError, match=says):
        make()


@pytest.mark.parametrize(
    "grant",
    [grants.OAuth2(URL, client_id="c", client_secret="hush"), grants.JSON(URL), grants.Cookies(URL)],
    ids=repr,
)
def test_a_grant_shows_its_end_point_and_no_secret(grant: grants.OAuth2) -> None:
    assert repr(grant) == f"<{type(grant).__name__} {URL}>"


def test_a_time_out_lies_below_the_window_so_that_a_retry_still_falls_into_it() -> None:
    assert grants.OAuth2(URL, replay_window=timedelta(seconds=10)).timeout == 5.0
    assert grants.OAuth2(URL, replay_window=timedelta(seconds=60)).timeout == 10.0


class _Own:
    """A grant of the user's own that returns what its server sent."""

    rotates, replay_window, timeout, needs_refresh_token = True, 0.0, 5.0, True
    carrier: Carrier = Bearer()

    async def exchange(self, tokens: keyturn.Tokens, wire: grants.Wire) -> Any:
        wire.sent = True
        return {"access_token": "new-access"}


def test_a_grant_of_one_s_own_that_returns_no_tokens_is_told_so_and_nothing_of_it_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(keyturn.RefreshError, match=r"keyturn.Tokens, not dict"):
        buy(_Own())
    assert "new-access" not in caplog.text

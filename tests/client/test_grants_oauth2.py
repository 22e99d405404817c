"""OAuth2: what is sent to a token end point, and what each of its answers means."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping

import httpx2
import pytest

import keyturn
from keyturn.client import grants
from keyturn.testing import StrictServer

from .end_point import OLD, PAIR, URL, Server, buy, credentials_of, jwt


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
    credentials = credentials_of(grants.OAuth2(URL, http=Server(status, body).http))

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


# The wild


@pytest.mark.parametrize(
    ("expires_in", "lifetime"),
    [
        (-5, 0.0),
        ("-5", 0.0),
        (0, 0.0),
        (1e300, None),
        (10**400, None),
        ("1" * 400, None),
        ("infinity", None),
        (1_900_000_000, 1_900_000_000.0),
        ("3599.5", 3599.5),
        (False, None),
    ],
    ids=lambda value: repr(value)[:12],
)
def test_an_absurd_expires_in_is_bounded_or_counts_as_not_given(
    expires_in: object, lifetime: float | None
) -> None:
    pair = buy(grants.OAuth2(URL, http=Server(body=PAIR | {"expires_in": expires_in}).http))

    assert pair.access == "new-access"
    if isinstance(expires_in, float):
        assert pair.lifetime is not None
        assert pair.expires_at is not None
        assert pair.expires_at <= 1e11
    else:
        assert pair.lifetime == lifetime


def test_a_form_that_says_that_it_is_one_is_read_like_json() -> None:
    kind = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    body = b"access_token=new-access&expires_in=60&refresh_token=new-refresh&token_type=bearer"

    pair = buy(grants.OAuth2(URL, http=Server(200, body, headers=kind).http))

    assert (pair.access, pair.refresh, pair.lifetime) == ("new-access", "new-refresh", 60)
    login = httpx2.Response(200, content=body, headers=kind)
    assert grants.OAuth2(URL).read(login).access == "new-access"
    with pytest.raises(keyturn.SessionEnded):
        buy(grants.OAuth2(URL, http=Server(200, b"error=invalid_grant", headers=kind).http))


@pytest.mark.parametrize("body", [b"access_token=x&expires_in=60", b"<html>", b"&" * 100])
def test_a_success_that_is_neither_json_nor_said_to_be_a_form_is_told_as_such(body: bytes) -> None:
    with pytest.raises(keyturn.OutcomeUnknown, match="without an access_token, and not in JSON"):
        buy(grants.OAuth2(URL, http=Server(200, body).http))


BAD_REFRESH = {"error": "bad_refresh_token", "error_description": "incorrect or expired"}


@pytest.mark.parametrize(
    ("body", "ended"),
    [
        (BAD_REFRESH, lambda status, body: body.get("error") == "bad_refresh_token"),
        (
            {"ok": False, "error": "invalid_refresh_token"},
            lambda status, body: body.get("error") == "invalid_refresh_token",
        ),
    ],
)
def test_a_server_with_codes_of_its_own_ends_the_session_by_what_ended_says(
    body: object, ended: Callable[[int, Mapping[str, object]], bool]
) -> None:
    with pytest.raises(keyturn.SessionEnded) as caught:
        buy(grants.OAuth2(URL, ended=ended, http=Server(200, body).http))
    assert caught.value.error is not None
    with pytest.raises(keyturn.RefreshMisconfigured):
        buy(grants.OAuth2(URL, http=Server(200, body).http))


def test_ended_is_not_asked_of_a_fault_and_cannot_be_anything_but_a_callable() -> None:
    with pytest.raises(keyturn.OutcomeUnknown):
        buy(grants.OAuth2(URL, ended=lambda *_: True, http=Server(500, {}).http))
    with pytest.raises(keyturn.ConfigurationError, match="ended"):
        grants.OAuth2(URL, ended="bad_refresh_token")  # type: ignore[arg-type]


def test_a_token_that_needs_a_proof_costs_no_second_exchange_where_it_was_rotated_for() -> None:
    server = Server(body=PAIR | {"token_type": "DPoP"})
    credentials = credentials_of(grants.OAuth2(URL, http=server.http))

    for _ in range(2):
        with pytest.raises(keyturn.OutcomeUnknown, match="needs a proof"):
            credentials.renew(credentials.get_tokens())

    assert len(server.requests) == 1


@pytest.mark.parametrize("errors_in_200", [False, True])
def test_a_real_server_s_errors_mean_the_same_with_a_400_and_with_a_200(
    strict_server: StrictServer, errors_in_200: bool
) -> None:
    strict_server.configure(errors_in_200=errors_in_200)
    tokens = strict_server.sign_in()
    url = strict_server.url + "/token"

    with pytest.raises(keyturn.RefreshMisconfigured) as caught:
        buy(grants.OAuth2(url, client_id="unknown"), tokens)
    assert caught.value.error == "invalid_client"
    assert buy(grants.OAuth2(url, client_id="app"), tokens).refresh != tokens.refresh
    with pytest.raises(keyturn.SessionEnded):
        buy(grants.OAuth2(url, client_id="app"), tokens)

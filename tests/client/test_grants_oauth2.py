"""OAuth2: what is sent to a token end point, and what each of its answers means."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping

import httpx2
import pytest

import keyturn
from keyturn.client import grants

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

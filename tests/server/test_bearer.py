"""Bearer delivery: the pair in a body of the application's own shape."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from flask.testing import FlaskClient

from keyturn.errors import StoreUnavailable
from keyturn.server import Bearer, Issuer
from keyturn.server.session import JSON
from keyturn.server.session_stores.memory import MemoryStore

from .clock import Clock
from .web import application


def wrapped(fields: Mapping[str, JSON]) -> Mapping[str, JSON]:
    return {"success": True, "customResult": fields}


def failed(fields: Mapping[str, JSON]) -> Mapping[str, JSON]:
    return {"success": False, "message": fields["code"]}


HOUSE = Bearer(
    takes="refreshToken",
    access="accessToken",
    refresh="refreshToken",
    expires_in="expiresIn",
    token_type=None,
    envelope=wrapped,
    refusal_envelope=failed,
    refused_status=200,
)


@pytest.fixture
def client(issuer: Issuer) -> FlaskClient:
    return application(issuer, "bearer").test_client()


def signed_in(client: FlaskClient) -> dict[str, str]:
    body = client.post("/login").json
    assert body is not None
    return dict(body)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_the_body_is_rfc_6749s_unless_chosen_otherwise(client: FlaskClient) -> None:
    response = client.post("/login")
    assert response.json is not None
    assert set(response.json) == {"access_token", "refresh_token", "expires_in", "token_type", "name"}
    assert (response.json["expires_in"], response.json["token_type"]) == (900, "Bearer")
    assert response.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in response.headers


def test_the_access_token_opens_a_protected_view(client: FlaskClient) -> None:
    pair = signed_in(client)
    for scheme in ("Bearer", "bearer", "BEARER"):
        response = client.get("/me", headers={"Authorization": f"{scheme} {pair['access_token']}"})
        assert response.json == {"subject": "alice", "role": "admin"}


def test_a_refresh_takes_json_or_the_form_of_rfc_6749(client: FlaskClient) -> None:
    pair = signed_in(client)
    token = pair["refresh_token"]
    answers = [
        client.post("/auth/refresh", json={"refresh_token": token}),
        client.post("/auth/refresh", data={"grant_type": "refresh_token", "refresh_token": token}),
        client.post("/auth/refresh", json={"refresh_token": token, "more": {"is": ["allowed"]}}),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert len({answer.json["refresh_token"] for answer in answers if answer.json}) == 1


def test_a_house_envelope_wraps_answers_and_refusals(issuer: Issuer, clock: Clock) -> None:
    client = application(issuer, HOUSE, refresh_path="/token/refreshToken").test_client()
    body = client.post("/login").json
    assert body is not None
    assert body["success"] is True
    pair = body["customResult"]
    assert set(pair) == {"accessToken", "refreshToken", "expiresIn", "name"}
    assert client.get("/me", headers=bearer(pair["accessToken"])).status_code == 200
    renewed = client.post("/token/refreshToken", json={"refreshToken": pair["refreshToken"]}).json
    assert renewed is not None
    assert renewed["customResult"]["refreshToken"] != pair["refreshToken"]
    clock.forward(10)
    refused = client.post("/token/refreshToken", json={"refreshToken": pair["refreshToken"]})
    assert (refused.status_code, refused.json) == (200, {"success": False, "message": "token_reused"})
    assert client.get("/me").status_code == 401  # the chosen status is for refused refreshes


@pytest.mark.parametrize("path", ["/token/refresh", "/auth/refresh-token", "/token/refreshToken", "/a/b/c"])
def test_the_paths_are_the_applications(issuer: Issuer, path: str) -> None:
    client = application(issuer, "bearer", refresh_path=path, logout_path=None).test_client()
    token = signed_in(client)["refresh_token"]
    assert client.post(path, json={"refresh_token": token}).status_code == 200
    assert client.post("/auth/refresh", json={"refresh_token": token}).status_code == 404
    assert client.post("/auth/logout", json={"refresh_token": token}).status_code == 404
    assert client.get(path).status_code == 405


def test_a_refusal_says_it_in_the_words_of_its_rfc_and_in_ours(client: FlaskClient, clock: Clock) -> None:
    pair = signed_in(client)
    clock.forward(901)
    cases = [
        (client.get("/me", headers=bearer(pair["access_token"])), "invalid_token", "token_expired"),
        (client.get("/me", headers=bearer("x.y.z")), "invalid_token", "token_malformed"),
        (client.post("/auth/refresh", json={"refresh_token": "x"}), "invalid_grant", "token_malformed"),
    ]
    for response, error, code in cases:
        assert response.status_code == 401
        assert response.json is not None
        assert set(response.json) == {"error", "code", "error_description"}
        assert (response.json["error"], response.json["code"]) == (error, code)
        assert response.headers["WWW-Authenticate"] == f'Bearer error="{error}"'
        assert response.headers["Cache-Control"] == "no-store"


def test_who_shows_no_token_is_challenged_and_told_nothing_more(client: FlaskClient) -> None:
    for headers in ({}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer"}, {"Authorization": ""}):
        response = client.get("/me", headers=headers)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"


def test_a_sign_out_takes_a_refresh_token_or_an_access_token(client: FlaskClient, issuer: Issuer) -> None:
    by_refresh, by_access, by_view = (signed_in(client) for _ in range(3))
    assert client.post("/auth/logout", json={"refresh_token": by_refresh["refresh_token"]}).status_code == 200
    assert client.post("/auth/logout", headers=bearer(by_access["access_token"])).status_code == 200
    assert client.post("/sign-out", headers=bearer(by_view["access_token"])).status_code == 200
    assert list(issuer.sessions("alice")) == []


def test_a_sign_out_without_any_token_is_refused_rather_than_claimed(
    client: FlaskClient, issuer: Issuer
) -> None:
    signed_in(client)
    response = client.post("/auth/logout")
    assert response.json is not None
    assert (response.status_code, response.json["code"]) == (401, "token_missing")
    assert len(issuer.sessions("alice")) == 1


def test_a_sign_out_with_a_token_that_opens_nothing_is_no_error(client: FlaskClient) -> None:
    pair = signed_in(client)
    for token in (pair["refresh_token"], pair["refresh_token"], "x"):
        assert client.post("/auth/logout", json={"refresh_token": token}).status_code == 200


def test_a_client_that_a_session_is_bound_to_must_be_named(client: FlaskClient, issuer: Issuer) -> None:
    pair = issuer.sign_in("alice", client="app")
    for client_id, status in ((None, 401), ("other", 401), (7, 400), ("app", 200)):
        body: dict[str, object] = {"refresh_token": pair.refresh}
        if client_id is not None:
            body["client_id"] = client_id
        assert client.post("/auth/refresh", json=body).status_code == status


def test_a_store_that_is_down_is_a_503_with_a_time(
    client: FlaskClient, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = signed_in(client)

    def down(sid: str) -> None:
        raise StoreUnavailable("down")

    with monkeypatch.context() as patch:
        patch.setattr(store, "get", down)
        response = client.post("/auth/refresh", json={"refresh_token": pair["refresh_token"]})
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert client.get("/me", headers=bearer(pair["access_token"])).status_code == 200
    assert client.post("/auth/refresh", json={"refresh_token": pair["refresh_token"]}).status_code == 200

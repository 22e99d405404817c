"""Refresh at the strict server: RFC 6749 §6, with single-use refresh tokens."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode

import pytest

from keyturn.testing import StrictServer
from keyturn.tokens import jwt_claims

from .wire import call, in_background, refresh, results


def test_a_sign_in_gives_tokens_that_open_the_api(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in("bob")
    answer = call(strict_server, "/x", access=tokens.access)
    assert (answer.status, answer.json["subject"], answer.json["generation"]) == (200, "bob", 0)
    assert strict_server.alive(tokens)


def test_sign_in_is_a_post_to_login_with_an_oauth_shaped_answer(strict_server: StrictServer) -> None:
    answer = call(strict_server, "/login", method="POST", body=b'{"subject": "eve"}')
    assert answer.status == 200
    assert set(answer.json) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert (answer.json["token_type"], answer.json["expires_in"]) == ("Bearer", 60)
    assert [(one.method, one.path, one.status) for one in strict_server.seen] == [("POST", "/login", 200)]
    assert call(strict_server, "/login", method="POST", body=b"{}").status == 400
    assert call(strict_server, "/login").status == 405


def test_access_tokens_are_jwts_signed_with_hs256(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in("bob", ttl=7)
    claims = jwt_claims(tokens.access)
    assert set(claims) >= {"sub", "sid", "iat", "exp", "jti"}
    assert claims["sub"] == "bob"
    assert tokens.lifetime == 7
    head, _, mac = tokens.access.split(".")
    assert json.loads(urlsafe_b64decode(head + "==")) == {"alg": "HS256", "typ": "JWT"}
    assert len(urlsafe_b64decode(mac + "==")) == hmac.new(b"", b"", hashlib.sha256).digest_size


def test_a_refresh_gives_a_new_pair_that_must_not_be_stored(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()
    answer = refresh(strict_server, tokens.refresh)
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json["refresh_token"] != tokens.refresh
    assert call(strict_server, "/x", access=answer.json["access_token"]).json["generation"] == 1
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses, stats.sessions_live) == (1, 1, 0, 1)


def test_reuse_of_a_spent_refresh_token_ends_the_session(strict_server: StrictServer) -> None:
    tokens, other = strict_server.sign_in(), strict_server.sign_in()
    successor = refresh(strict_server, tokens.refresh).json
    reuse = refresh(strict_server, tokens.refresh)
    assert (reuse.status, reuse.json["error"]) == (400, "invalid_grant")
    assert refresh(strict_server, successor["refresh_token"]).json["error"] == "invalid_grant"
    assert call(strict_server, "/x", access=successor["access_token"]).status == 401
    assert not strict_server.alive(tokens)
    assert strict_server.alive(other)
    assert (strict_server.stats.reuses, strict_server.stats.sessions_live) == (1, 1)


def test_of_fifty_refreshes_at_once_one_rotates(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()
    strict_server.hold_refresh("before")
    with in_background(50) as pool:
        asked = [pool.submit(refresh, strict_server, tokens.refresh) for _ in range(50)]
        strict_server.wait_for(refreshes=50)
        strict_server.release()
        statuses = sorted(answer.status for answer in results(asked))
    assert statuses == [200] + [400] * 49
    stats = strict_server.stats
    assert (stats.rotations, stats.reuses, stats.most_refreshes_at_once) == (1, 49, 50)


def test_inside_the_window_the_predecessor_gets_the_same_successor(strict_server: StrictServer) -> None:
    strict_server.configure(window=3600)
    tokens = strict_server.sign_in()
    first, again = refresh(strict_server, tokens.refresh).json, refresh(strict_server, tokens.refresh).json
    assert first["refresh_token"] == again["refresh_token"]
    assert call(strict_server, "/x", access=again["access_token"]).json["generation"] == 1
    assert (strict_server.stats.rotations, strict_server.stats.replays) == (1, 1)

    strict_server.configure(window=0)
    assert refresh(strict_server, tokens.refresh).json["error"] == "invalid_grant"
    assert not strict_server.alive(tokens)


def test_inside_the_window_an_older_token_than_the_predecessor_is_reuse(strict_server: StrictServer) -> None:
    strict_server.configure(window=3600)
    tokens = strict_server.sign_in()
    refresh(strict_server, refresh(strict_server, tokens.refresh).json["refresh_token"])
    assert refresh(strict_server, tokens.refresh).status == 400
    assert strict_server.stats.reuses == 1


def test_a_server_that_does_not_rotate_gives_the_same_refresh_token_back(strict_server: StrictServer) -> None:
    strict_server.configure(rotates=False)
    tokens = strict_server.sign_in()
    for generation in (1, 2):
        answer = refresh(strict_server, tokens.refresh).json
        assert answer["refresh_token"] == tokens.refresh
        assert call(strict_server, "/x", access=answer["access_token"]).json["generation"] == generation
    assert strict_server.stats.rotations == 0


@pytest.mark.parametrize(("retires", "status"), [(False, 200), (True, 401)])
def test_a_refresh_leaves_older_access_tokens_to_their_exp_unless_it_retires_them(
    strict_server: StrictServer, retires: bool, status: int
) -> None:
    strict_server.configure(retires=retires)
    tokens = strict_server.sign_in()
    successor = refresh(strict_server, tokens.refresh).json
    assert call(strict_server, "/x", access=tokens.access).status == status
    assert call(strict_server, "/x", access=successor["access_token"]).status == 200


@pytest.mark.parametrize(
    ("body", "kind", "status", "error"),
    [
        ("grant_type=refresh_token&refresh_token=nobodys", "", 400, "invalid_grant"),
        ("grant_type=refresh_token", "", 400, "invalid_request"),
        ("refresh_token=x", "", 400, "invalid_request"),
        ("grant_type=refresh_token&refresh_token=x&refresh_token=y", "", 400, "invalid_request"),
        ("grant_type=password&username=x", "", 400, "unsupported_grant_type"),
        ("grant_type=refresh_token&refresh_token=x&client_id=unknown", "", 401, "invalid_client"),
        ('{"grant_type": "refresh_token"}', "application/json", 400, "invalid_request"),
    ],
)
def test_what_is_wrong_with_a_token_request_is_told_as_in_rfc_6749_5_2(
    strict_server: StrictServer, body: str, kind: str, status: int, error: str
) -> None:
    headers = {"Content-Type": kind or "application/x-www-form-urlencoded"}
    answer = call(strict_server, "/token", method="POST", headers=headers, body=body.encode())
    assert (answer.status, answer.json["error"]) == (status, error)
    assert answer.headers["Cache-Control"] == "no-store"


def test_an_unknown_client_spends_nothing(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()
    assert refresh(strict_server, tokens.refresh, client_id="unknown").status == 401
    assert refresh(strict_server, tokens.refresh, client_id="dashboard").status == 200


def test_the_house_envelope_succeeds_and_fails_with_status_200(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()
    body = json.dumps({"refreshToken": tokens.refresh}).encode()
    answer = call(strict_server, "/token/refreshToken", method="POST", body=body)
    result = answer.json["customResult"]
    assert (answer.status, answer.json["success"], result["expiresIn"]) == (200, True, 60)
    assert call(strict_server, "/x", access=result["accessToken"]).status == 200
    for spent in (body, b"{}", b"no json"):
        refusal = call(strict_server, "/token/refreshToken", method="POST", body=spent)
        assert (refusal.status, refusal.json["success"]) == (200, False)
        assert refusal.json["message"]
    assert not strict_server.alive(tokens)


def test_expire_refuses_every_access_token_issued_so_far(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()
    strict_server.expire()
    assert call(strict_server, "/x", access=tokens.access).status == 401
    successor = refresh(strict_server, tokens.refresh).json
    assert call(strict_server, "/x", access=successor["access_token"]).status == 200


def test_an_access_token_is_refused_from_its_exp_on(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in(ttl=0)
    answer = call(strict_server, "/x", access=tokens.access)
    assert (answer.status, answer.json["reason"]) == (401, "expired")
    assert refresh(strict_server, tokens.refresh).json["expires_in"] == 60


def test_revoke_ends_the_sessions_of_one_subject_or_of_all(strict_server: StrictServer) -> None:
    alice, bob = strict_server.sign_in("alice"), strict_server.sign_in("bob")
    strict_server.revoke("alice")
    assert call(strict_server, "/x", access=alice.access).status == 401
    assert refresh(strict_server, alice.refresh).json["error"] == "invalid_grant"
    assert strict_server.alive(bob)
    strict_server.revoke()
    assert strict_server.stats.sessions_live == 0
    assert strict_server.stats.reuses == 0


def test_settings_can_change_at_any_time_and_reset_brings_the_first_ones_back() -> None:
    with StrictServer(ttl=5.0, rotates=False) as server:
        server.configure(ttl=7.5)
        assert server.sign_in().lifetime == 7.5
        assert refresh(server, server.sign_in().refresh).json["expires_in"] == 7.5
        tokens = server.sign_in()
        server.reset()
        assert server.sign_in().lifetime == 5
        assert not server.alive(tokens)
        assert call(server, "/x", access=tokens.access).status == 401
        assert server.stats.sessions_live == 1
        assert [one.path for one in server.seen] == ["/x"]

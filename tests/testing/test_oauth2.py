"""The strict server's OAuth 2.0 beside the refresh: clients that prove themselves, revocation."""

from __future__ import annotations

import base64
import importlib.util
import json
import time
from urllib.parse import urlencode

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from keyturn.errors import ConfigurationError, MissingExtra
from keyturn.testing import StrictServer

from .wire import Reply, call, in_background, refresh, results

KEY = ECKey.generate_key("P-256")
OTHER_KEY = ECKey.generate_key("P-256")
SECRET = "hush: 100%"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def post(
    server: StrictServer, form: dict[str, str], basic: tuple[str, str] | None = None, path: str = "/token"
) -> Reply:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if basic is not None:
        quoted = ":".join(urlencode({"": part})[1:] for part in basic)
        headers["Authorization"] = "Basic " + base64.b64encode(quoted.encode()).decode()
    return call(server, path, method="POST", headers=headers, body=urlencode(form).encode())


def ask(server: StrictServer, form: dict[str, str], basic: tuple[str, str] | None = None) -> Reply:
    return post(server, {"grant_type": "client_credentials", **form}, basic)


def demand(server: StrictServer, method: str) -> None:
    public = json.dumps(KEY.as_dict(private=False))
    server.configure(client_auth=method, client_id="app", client_secret=SECRET, client_key=public)


def assertion(server: StrictServer, key: ECKey = KEY, **claims: object) -> dict[str, str]:
    now = int(time.time())
    said = {"iss": "app", "sub": "app", "aud": f"{server.url}/token", "jti": "1", "iat": now, "exp": now + 60}
    signed = jwt.encode({"alg": "ES256"}, said | claims, key)
    return {"client_assertion_type": ASSERTION, "client_assertion": signed}


POST = {"client_id": "app", "client_secret": SECRET}
METHODS = ["none", "client_secret_basic", "client_secret_post", "private_key_jwt"]


@pytest.mark.parametrize("wanted", METHODS)
@pytest.mark.parametrize("sent", METHODS)
def test_a_client_proves_itself_in_the_one_way_that_is_asked_for(
    strict_server: StrictServer, wanted: str, sent: str
) -> None:
    demand(strict_server, wanted)
    form = {
        "none": {"client_id": "app"},
        "client_secret_basic": {},
        "client_secret_post": POST,
        "private_key_jwt": assertion(strict_server),
    }[sent]

    answer = ask(strict_server, form, ("app", SECRET) if sent == "client_secret_basic" else None)

    if sent == wanted:
        assert answer.status == 200
    else:
        assert (answer.status, answer.json["error"]) == (401, "invalid_client")
        assert answer.headers["WWW-Authenticate"] == "Basic"
        assert sent in answer.json["error_description"]


def test_a_wrong_secret_or_another_client_is_refused(strict_server: StrictServer) -> None:
    demand(strict_server, "client_secret_basic")
    assert ask(strict_server, {}, ("app", "wrong")).status == 401
    assert ask(strict_server, {}, ("other", SECRET)).status == 401
    assert ask(strict_server, {"client_id": "other"}, ("app", SECRET)).status == 401
    assert ask(strict_server, {"client_id": "app"}, ("app", SECRET)).status == 200
    assert ask(strict_server, POST, ("app", SECRET)).json["error"] == "invalid_request"
    demand(strict_server, "client_secret_post")
    assert ask(strict_server, POST | {"client_secret": "wrong"}).status == 401


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "other"},
        {"sub": "other", "iss": "other"},
        {"aud": "https://elsewhere.example/token"},
        {"exp": 5},
        {"exp": int(time.time()) + 86_400},
        {"exp": None},
        {"jti": None},
        {"iat": int(time.time()) + 3600},
    ],
    ids=[
        "iss",
        "sub",
        "aud",
        "exp past",
        "exp far",
        "no exp",
        "no jti",
        "iat ahead",
    ],  # the same in every worker
)
def test_an_assertion_that_rfc_7523_3_forbids_is_refused(
    strict_server: StrictServer, claims: dict[str, object]
) -> None:
    demand(strict_server, "private_key_jwt")
    answer = ask(strict_server, assertion(strict_server, KEY, **claims))
    assert (answer.status, answer.json["error"]) == (401, "invalid_client")


def test_an_assertion_is_good_once_and_only_by_the_client_s_key(strict_server: StrictServer) -> None:
    demand(strict_server, "private_key_jwt")
    assert ask(strict_server, assertion(strict_server, OTHER_KEY)).status == 401
    form = assertion(strict_server)
    assert ask(strict_server, form).status == 200
    assert ask(strict_server, form).json["error_description"] == "the assertion was used before"
    assert ask(strict_server, form | {"client_assertion": "a.b.c"}).status == 401
    assert ask(strict_server, form | {"client_assertion_type": "saml"}).status == 401


def test_a_client_gets_a_token_of_its_own_and_no_refresh_token(strict_server: StrictServer) -> None:
    answer = ask(strict_server, {"client_id": "app"})

    assert set(answer.json) == {"access_token", "token_type", "expires_in"}
    assert call(strict_server, "/x", access=answer.json["access_token"]).json["subject"] == "app"
    stats = strict_server.stats
    assert (stats.refreshes, stats.issued, stats.rotations, stats.sessions_live) == (1, 1, 0, 0)
    assert ask(strict_server, {}).json["error"] == "invalid_client"


def test_resource_may_be_given_more_than_once_and_nothing_else(strict_server: StrictServer) -> None:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    start = "grant_type=client_credentials&client_id=app"

    def status(more: str) -> int:
        return call(
            strict_server, "/token", method="POST", headers=kind, body=f"{start}&{more}".encode()
        ).status

    assert status("resource=https%3A%2F%2Fa&resource=https%3A%2F%2Fb") == 200
    assert status("scope=a&scope=b") == 400


def test_a_refresh_too_is_for_clients_that_prove_themselves(strict_server: StrictServer) -> None:
    demand(strict_server, "client_secret_post")
    tokens = strict_server.sign_in()
    assert refresh(strict_server, tokens.refresh).status == 401
    assert refresh(strict_server, tokens.refresh, **POST).status == 200


def test_an_error_explains_itself_as_in_rfc_6749_5_2(strict_server: StrictServer) -> None:
    answer = refresh(strict_server, "nobodys")
    assert answer.json["error_description"] == "this refresh token opens nothing: unknown"
    assert answer.json["error_uri"].startswith("https://")


def test_errors_may_come_with_a_200(strict_server: StrictServer) -> None:
    strict_server.configure(errors_in_200=True)
    answer = refresh(strict_server, "nobodys")
    assert (answer.status, answer.json["error"]) == (200, "invalid_grant")
    assert ask(strict_server, {"client_id": "unknown"}).json["error"] == "invalid_client"


# Revocation


def revoke(server: StrictServer, token: str | None, **more: str) -> Reply:
    return post(server, {"token": token or "", **more}, path="/revoke")


def test_revoking_a_refresh_token_ends_its_session(strict_server: StrictServer) -> None:
    tokens, other = strict_server.sign_in(), strict_server.sign_in()
    answer = revoke(strict_server, tokens.refresh, token_type_hint="refresh_token")
    assert (answer.status, answer.body) == (200, b"")
    assert not strict_server.alive(tokens)
    assert strict_server.alive(other)
    assert call(strict_server, "/x", access=tokens.access).status == 401
    assert (strict_server.stats.revocations, strict_server.stats.refreshes) == (1, 0)


def test_revoking_an_access_token_ends_nothing_else(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()
    assert revoke(strict_server, tokens.access).status == 200
    assert call(strict_server, "/x", access=tokens.access).json["reason"] == "revoked"
    assert refresh(strict_server, tokens.refresh).status == 200


def test_revoking_what_nobody_knows_is_a_success_and_revoking_nothing_is_not(
    strict_server: StrictServer,
) -> None:
    for token in ("nobodys", "a.b.c"):
        assert revoke(strict_server, token).status == 200
    assert revoke(strict_server, None).json["error"] == "invalid_request"
    assert call(strict_server, "/revoke").status == 405


def test_only_a_client_that_proves_itself_revokes(strict_server: StrictServer) -> None:
    demand(strict_server, "client_secret_post")
    tokens = strict_server.sign_in()
    assert revoke(strict_server, tokens.refresh).json["error"] == "invalid_client"
    assert strict_server.alive(tokens)
    assert revoke(strict_server, tokens.refresh, **POST).status == 200


def test_a_revocation_fails_is_dropped_and_is_held_apart_from_refreshes(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()
    strict_server.fail_revocation(503, headers={"Retry-After": "2"})
    strict_server.drop_revocation()
    assert revoke(strict_server, tokens.refresh).headers["Retry-After"] == "2"
    with pytest.raises(ConnectionError):
        revoke(strict_server, tokens.refresh)
    assert strict_server.alive(tokens)
    strict_server.hold_revocation()
    with in_background(1) as pool:
        asked = pool.submit(revoke, strict_server, tokens.refresh)
        strict_server.wait_for(revocations=3)
        assert refresh(strict_server, tokens.refresh).status == 200
        strict_server.release()
        assert results([asked])[0].status == 200
    assert not strict_server.alive(tokens)


# The refresh token as a bearer token


def test_a_refresh_token_may_ride_as_a_bearer_token(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()
    answer = call(strict_server, "/token/bearer", method="POST", access=tokens.refresh)
    assert answer.json["refresh_token"] != tokens.refresh
    assert call(strict_server, "/token/bearer", method="POST", access=tokens.refresh).status == 401
    assert call(strict_server, "/token/bearer", method="POST", access="nobodys").status == 422
    assert call(strict_server, "/token/bearer", method="POST").status == 401


def test_without_rotation_its_answer_holds_no_refresh_token(strict_server: StrictServer) -> None:
    strict_server.configure(rotates=False)
    tokens = strict_server.sign_in()
    answer = call(strict_server, "/token/bearer", method="POST", access=tokens.refresh)
    assert set(answer.json) == {"access_token", "token_type", "expires_in"}


def test_a_client_auth_that_is_none_is_refused_and_one_that_lacks_its_extra_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigurationError, match="client_auth must be one of"):
        StrictServer(client_auth="tls")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install"):
        StrictServer(client_auth="private_key_jwt")

"""Cookie delivery: HttpOnly tokens, a double-submit value for each, and who may take them back."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import flask
import flask_jwt_extended
import pytest
from flask import Flask
from flask.testing import FlaskClient

from keyturn.errors import ConfigurationError, StoreUnavailable
from keyturn.server import Cookies, Issuer, Rotation
from keyturn.server.flask import Keyturn
from keyturn.server.session_stores.memory import MemoryStore

from .clock import Clock
from .conftest import MakeIssuer
from .web import application, cookie, cookies_set, csrf

ALL = {
    "access_token_cookie",
    "refresh_token_cookie",
    "csrf_access_token",
    "csrf_refresh_token",
    "access_token_expires",
}


@pytest.fixture
def client(issuer: Issuer) -> FlaskClient:
    return application(issuer, Cookies(secure=False)).test_client()


def test_a_sign_in_sets_the_tokens_out_of_a_scripts_reach_and_what_goes_with_them_in_it(
    issuer: Issuer,
) -> None:
    response = application(issuer, "cookies").test_client().post("/login")
    jar = cookies_set(response)
    assert set(jar) == ALL
    assert {name for name, morsel in jar.items() if morsel["httponly"]} == {
        "access_token_cookie",
        "refresh_token_cookie",
    }
    for morsel in jar.values():
        assert (morsel["secure"], morsel["samesite"], morsel["path"], morsel["domain"]) == (
            True,
            "Lax",
            "/",
            "",
        )
        assert morsel["max-age"] == str(30 * 86400)


def test_no_token_is_in_the_body_and_nobody_stores_the_answer(client: FlaskClient, clock: Clock) -> None:
    response = client.post("/login")
    assert response.json == {"name": "Alice", "expires_in": 900, "expires_at": int(clock.now) + 900}
    assert response.headers["Cache-Control"] == "no-store"


def test_the_readable_expiry_is_the_access_tokens(client: FlaskClient, clock: Clock) -> None:
    client.post("/login")
    assert cookie(client, "access_token_expires") == str(int(clock.now) + 900)


def test_the_names_and_checked_methods_are_flask_jwt_extendeds() -> None:
    app = Flask("reference")
    flask_jwt_extended.JWTManager(app)
    ours = Cookies()
    reference = {
        "JWT_ACCESS_COOKIE_NAME": ours.access,
        "JWT_REFRESH_COOKIE_NAME": ours.refresh,
        "JWT_ACCESS_CSRF_COOKIE_NAME": ours.access_csrf,
        "JWT_REFRESH_CSRF_COOKIE_NAME": ours.refresh_csrf,
        "JWT_ACCESS_CSRF_HEADER_NAME": ours.csrf_header,
        "JWT_REFRESH_CSRF_HEADER_NAME": ours.csrf_header,
        "JWT_ACCESS_COOKIE_PATH": ours.access_path,
        "JWT_REFRESH_COOKIE_PATH": ours.refresh_path,
    }
    assert {name: app.config[name] for name in reference} == reference
    assert set(app.config["JWT_CSRF_METHODS"]) == ours.checked


def test_reading_needs_the_cookie_and_changing_the_double_submit_value_too(client: FlaskClient) -> None:
    client.post("/login")
    assert client.get("/me").json == {"subject": "alice", "role": "admin"}
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        refused = client.open("/me", method=method)
        assert refused.status_code == 401
        assert refused.json is not None
        assert refused.json["code"] == "csrf_refused"
        assert client.open("/me", method=method, headers=csrf(client, "access")).status_code == 200


def test_a_refresh_needs_the_refresh_tokens_own_value(client: FlaskClient) -> None:
    client.post("/login")
    for headers in (
        {},
        csrf(client, "access"),
        {"X-CSRF-TOKEN": "x"},
        {"X-CSRF-TOKEN": ""},
        {"X-CSRF-TOKEN": "é"},
    ):
        refused = client.post("/auth/refresh", headers=headers)
        assert refused.status_code == 401
        assert refused.json is not None
        assert (refused.json["error"], refused.json["code"]) == ("invalid_request", "csrf_refused")
        assert not cookies_set(refused)
    assert client.post("/auth/refresh", headers=csrf(client, "refresh")).status_code == 200


def test_a_protected_view_does_not_take_the_refresh_tokens_value(client: FlaskClient) -> None:
    client.post("/login")
    assert client.post("/me", headers=csrf(client, "refresh")).status_code == 401


def test_a_planted_pair_of_cookie_and_header_is_refused(client: FlaskClient) -> None:
    """Double submit alone would accept any value that is in both places; this one is bound to the token."""
    client.post("/login")
    client.set_cookie("csrf_access_token", "planted")
    assert client.post("/me", headers={"X-CSRF-TOKEN": "planted"}).status_code == 401


def test_a_refresh_replaces_all_cookies_and_the_new_values_go_with_the_new_tokens(
    client: FlaskClient,
) -> None:
    client.post("/login")
    before = {name: cookie(client, name) for name in ALL}
    stale = csrf(client, "access")
    response = client.post("/auth/refresh", headers=csrf(client, "refresh"))
    assert set(cookies_set(response)) == ALL
    assert all(cookie(client, name) != before[name] for name in ALL - {"access_token_expires"})
    assert client.post("/me", headers=stale).status_code == 401
    assert client.post("/me", headers=csrf(client, "access")).status_code == 200


def test_a_sign_out_ends_the_session_and_takes_all_cookies_back(client: FlaskClient, issuer: Issuer) -> None:
    client.post("/login")
    response = client.post("/auth/logout", headers=csrf(client, "refresh"))
    assert response.status_code == 200
    jar = cookies_set(response)
    assert set(jar) == ALL
    assert all((morsel.value, morsel["max-age"], morsel["path"]) == ("", "0", "/") for morsel in jar.values())
    assert list(issuer.sessions("alice")) == []


def test_another_site_cannot_sign_out(client: FlaskClient, issuer: Issuer) -> None:
    client.post("/login")
    response = client.post("/auth/logout")
    assert response.status_code == 401
    assert not cookies_set(response)
    assert len(issuer.sessions("alice")) == 1


def test_who_has_no_cookies_is_signed_out_already(client: FlaskClient) -> None:
    response = client.post("/auth/logout")
    assert response.status_code == 200
    assert set(cookies_set(response)) == ALL


def test_a_view_can_sign_its_own_session_out(client: FlaskClient, issuer: Issuer) -> None:
    client.post("/login")
    response = client.post("/sign-out", headers=csrf(client, "access"))
    assert set(cookies_set(response)) == ALL
    assert list(issuer.sessions("alice")) == []


def test_a_session_that_is_really_over_takes_the_cookies_back(make_issuer: MakeIssuer, clock: Clock) -> None:
    for over in ("signed out", "expired", "idle", "purged", "reused"):
        issuer = make_issuer(session_lifetime=timedelta(hours=1), idle_limit=timedelta(minutes=30))
        client = application(issuer, Cookies(secure=False)).test_client()
        client.post("/login")
        sid = issuer.verify(cookie(client, "access_token_cookie")).sid
        header = csrf(client, "refresh")
        if over == "signed out":
            issuer.sign_out(sid)
        elif over == "expired":
            clock.forward(3600)
        elif over == "idle":
            clock.forward(1800)
        elif over == "purged":
            clock.forward(3600)
            issuer.purge()
        else:
            old = cookie(client, "refresh_token_cookie")
            client.post("/auth/refresh", headers=header)
            client.set_cookie("refresh_token_cookie", old)
            clock.forward(10)
        response = client.post("/auth/refresh", headers=header)
        assert response.status_code == 401
        assert response.json is not None
        assert response.json["error"] == "invalid_grant"
        assert set(cookies_set(response)) == ALL, over


def test_the_loser_of_a_race_keeps_its_cookies(make_issuer: MakeIssuer) -> None:
    """Within the window a loser is answered with the winner's successor, and nothing is taken back."""
    client = application(make_issuer(), Cookies(secure=False)).test_client()
    client.post("/login")
    old, header = cookie(client, "refresh_token_cookie"), csrf(client, "refresh")
    client.post("/auth/refresh", headers=header)
    winner = cookie(client, "refresh_token_cookie")
    client.set_cookie("refresh_token_cookie", old)
    late = client.post("/auth/refresh", headers=header)
    assert late.status_code == 200
    assert cookies_set(late)["refresh_token_cookie"].value == winner


@pytest.mark.parametrize("token", ["", "x", "kt1.AAAAAAAA.AAAAAAAAAAAAAAAAAAAAAA.0." + "A" * 43])
def test_a_refusal_that_ends_no_session_takes_nothing_back(
    client: FlaskClient, token: str, issuer: Issuer
) -> None:
    client.set_cookie("refresh_token_cookie", token)
    response = client.post("/auth/refresh", headers={"X-CSRF-TOKEN": issuer.csrf.value(token)})
    assert response.status_code == 401
    assert not cookies_set(response)


def test_a_token_far_ahead_of_the_store_takes_nothing_back(
    make_issuer: MakeIssuer, store: MemoryStore
) -> None:
    issuer = make_issuer(rotation=Rotation(window=timedelta(0), max_ahead=0))
    client = application(issuer, Cookies(secure=False)).test_client()
    client.post("/login")
    before = dict(store._rows)
    client.post("/auth/refresh", headers=csrf(client, "refresh"))
    store._rows.update(before)
    response = client.post("/auth/refresh", headers=csrf(client, "refresh"))
    assert response.json is not None
    assert response.json["code"] == "counter_too_far_ahead"
    assert not cookies_set(response)


def test_a_store_that_is_down_is_a_503_and_signs_nobody_out(
    client: FlaskClient, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.post("/login")

    def down(*_: object, **__: object) -> None:
        raise StoreUnavailable("down", retry_after=2.4)

    with monkeypatch.context() as patch:
        for method in ("get", "create"):
            patch.setattr(store, method, down)
        for path in ("/auth/refresh", "/auth/logout", "/login"):
            response = client.post(path, headers=csrf(client, "refresh"))
            assert (response.status_code, response.headers["Retry-After"]) == (503, "3")
            assert response.json is not None
            assert response.json["code"] == "store_unavailable"
            assert not cookies_set(response)
    assert client.post("/auth/refresh", headers=csrf(client, "refresh")).status_code == 200


def test_a_cookie_that_is_there_twice_is_refused_by_name(issuer: Issuer) -> None:
    """A sibling domain can plant a second one, and servers differ in which one they read."""
    client = application(issuer, "cookies").test_client(use_cookies=False)
    mine, other = (issuer.sign_in(name, claims={"role": "x"}) for name in ("alice", "mallory"))
    for path, name, one, two in (
        ("/me", "access_token_cookie", mine.access, other.access),
        ("/auth/refresh", "refresh_token_cookie", mine.refresh, other.refresh),
    ):
        for first, second in ((one, two), (two, one)):
            response = client.open(
                path,
                method="GET" if path == "/me" else "POST",
                headers={
                    "Cookie": f"{name}={first}; {name}={second}",
                    "X-CSRF-TOKEN": issuer.csrf.value(first),
                },
            )
            assert response.status_code == 400
            assert response.json is not None
            assert response.json["code"] == "invalid_request"
        twice = {"Cookie": f"{name}={one}; {name}={one}", "X-CSRF-TOKEN": issuer.csrf.value(one)}
        assert client.open(path, method="GET" if path == "/me" else "POST", headers=twice).status_code == 200


def test_an_expired_access_token_says_so_before_its_double_submit_value(
    client: FlaskClient, clock: Clock
) -> None:
    client.post("/login")
    clock.forward(901)
    for response in (client.get("/me"), client.post("/me", headers=csrf(client, "access"))):
        assert response.status_code == 401
        assert response.json is not None
        assert (response.json["error"], response.json["code"]) == ("invalid_token", "token_expired")
        assert "WWW-Authenticate" not in response.headers


def test_no_cookie_is_a_token_missing(client: FlaskClient) -> None:
    response = client.get("/me")
    assert response.json is not None
    assert (response.status_code, response.json["code"]) == (401, "token_missing")


def test_with_host_prefix_every_name_has_it(issuer: Issuer) -> None:
    client = application(issuer, Cookies(host_prefix=True)).test_client()
    jar = cookies_set(client.post("/login", base_url="https://localhost"))
    assert set(jar) == {f"__Host-{name}" for name in ALL}
    header = {"X-CSRF-TOKEN": jar["__Host-csrf_refresh_token"].value}
    assert client.post("/auth/refresh", headers=header, base_url="https://localhost").status_code == 200


def test_without_persistent_the_cookies_go_with_the_browser(issuer: Issuer) -> None:
    response = application(issuer, Cookies(persistent=False)).test_client().post("/login")
    assert all(morsel["max-age"] == "" for morsel in cookies_set(response).values())


def test_the_refresh_cookie_can_be_kept_to_its_path(issuer: Issuer) -> None:
    client = application(issuer, Cookies(secure=False, refresh_path="/auth", expires=None)).test_client()
    jar = cookies_set(client.post("/login"))
    assert jar["refresh_token_cookie"]["path"] == "/auth"
    assert jar["csrf_refresh_token"]["path"] == "/"
    assert "access_token_expires" not in jar
    header = {"X-CSRF-TOKEN": jar["csrf_refresh_token"].value}
    assert client.post("/auth/refresh", headers=header).status_code == 200
    gone = cookies_set(client.post("/auth/logout", headers=csrf(client, "refresh")))
    assert gone["refresh_token_cookie"]["path"] == "/auth"


@pytest.mark.parametrize(
    "arguments",
    [
        {"access": "same", "refresh": "same"},
        {"access": "a b"},
        {"access": ""},
        {"access": "a;b"},
        {"domain": "x;y"},
        {"refresh_path": "/a\n"},
        {"samesite": "None", "secure": False},
        {"host_prefix": True, "secure": False},
        {"host_prefix": True, "domain": "example.org"},
        {"host_prefix": True, "refresh_path": "/auth"},
    ],
    ids=range(10),
)
def test_cookies_that_no_browser_would_take_are_refused_when_they_are_made(
    arguments: dict[str, object],
) -> None:
    with pytest.raises(ConfigurationError):
        Cookies(**arguments)  # type: ignore[arg-type]


def test_a_token_too_large_for_a_cookie_is_an_error_and_leaves_no_session(issuer: Issuer) -> None:
    """A browser would drop it without a word, and the user would be signed out for no visible reason."""
    auth = Keyturn(issuer, "cookies")
    with flask.Flask("x").test_request_context(), pytest.raises(ConfigurationError, match="fewer claims"):
        auth.sign_in("alice", claims={"x": "y" * 4000})
    assert list(issuer.sessions("alice")) == []


def test_two_servers_on_one_file_take_each_others_cookies(make_issuer: MakeIssuer, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/sessions.db"
    first, second = make_issuer(store=url), make_issuer(store=url)
    client, other = (application(issuer, Cookies(secure=False)).test_client() for issuer in (first, second))
    client.post("/login")
    for name in ALL:
        other.set_cookie(name, cookie(client, name))
    assert other.post("/auth/refresh", headers=csrf(other, "refresh")).status_code == 200
    for issuer in (first, second):
        issuer.store.close()

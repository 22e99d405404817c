"""Scenario 10: redirects keep, lose and regain tokens as their origins say, and a POST runs once."""

from __future__ import annotations

from urllib.parse import quote

import pytest

import keyturn
from keyturn.client import events
from keyturn.testing import Seen, StrictServer
from tests.kit import Log
from tests.scenarios.callers import HTTPX, WAYS, Caller, Way, api_requests, in_turn

TOKENS = ("authorization", "cookie", "x-csrf-token")

every_way = pytest.mark.parametrize("way", WAYS, ids=str)


def _to(url: str, status: str = "307") -> str:
    """Return the path that redirects to `url`."""
    return f"/redirect/{status}?to={quote(url, safe='')}"


def _caller(way: Way, server: StrictServer, credentials: keyturn.Credentials) -> Caller:
    return Caller(way, server, credentials, redirects=True)


def _secrets(request: Seen, *tokens: keyturn.Tokens) -> list[str]:
    """Return the names of the headers that hold anything of `tokens`."""
    values = [
        value for pair in tokens for value in (pair.access, pair.refresh, *pair.extra.values()) if value
    ]
    return [name for name, content in request.headers.items() if any(value in content for value in values)]


def _journeys(server: StrictServer) -> list[tuple[str, str, int | None]]:
    return [(one.method, one.path, one.status) for one in api_requests(server)]


@pytest.mark.parametrize(("status", "way"), in_turn(["307", "308"], WAYS))
def test_a_redirect_within_the_origin_arrives_with_its_token_and_its_body(
    strict_server: StrictServer, way: Way, status: str
) -> None:
    credentials = way.credentials(strict_server)

    with _caller(way, strict_server, credentials) as api:
        answer = api.send("POST", _to("/orders", status), json={"a": 1})

    assert answer.json()["subject"] == "alice"
    first, second = api_requests(strict_server)
    assert (second.path, second.status, second.body) == ("/orders", 200, first.body)
    assert strict_server.stats.refreshes == 0


@pytest.mark.parametrize(("status", "way"), in_turn(["308", "307"], WAYS))
def test_a_refusal_after_a_redirect_is_renewed_where_it_was_refused(
    strict_server: StrictServer, way: Way, status: str
) -> None:
    credentials = way.credentials(strict_server)
    strict_server.expire()

    with _caller(way, strict_server, credentials) as api:
        assert api.send("POST", _to("/orders", status), json={"a": 1}).status_code == 200

    assert _journeys(strict_server) == [
        ("POST", f"/redirect/{status}", int(status)),
        ("POST", "/orders", 401),
        ("POST", "/orders", 200),
    ]
    assert api_requests(strict_server)[1].body == api_requests(strict_server)[2].body == b'{"a":1}'
    assert strict_server.stats.refreshes == 1


@pytest.mark.parametrize(("status", "way"), in_turn(["302", "303"], WAYS))
def test_a_post_that_ends_in_a_refused_get_runs_once(
    strict_server: StrictServer, way: Way, status: str
) -> None:
    credentials = way.credentials(strict_server)
    strict_server.expire()

    with _caller(way, strict_server, credentials) as api:
        assert api.send("POST", _to("/orders/1", status), json={"a": 1}).status_code == 200

    assert _journeys(strict_server) == [
        ("POST", f"/redirect/{status}", int(status)),
        ("GET", "/orders/1", 401),
        ("GET", "/orders/1", 200),
    ]
    assert [one.body for one in api_requests(strict_server)[1:]] == [b"", b""]
    assert strict_server.stats.refreshes == 1


@every_way
def test_a_one_shot_body_that_a_redirect_dropped_does_not_keep_the_get_from_being_replayed(
    strict_server: StrictServer, way: Way
) -> None:
    credentials = way.credentials(strict_server)
    strict_server.expire()

    with _caller(way, strict_server, credentials) as api:
        answer = api.send("POST", _to("/orders/1", "303"), content=way.generator([b"a", b"b"]))
        assert answer.status_code == 200

    posted, *_ = api_requests(strict_server)
    assert posted.body == b"ab"
    assert [journey[0] for journey in _journeys(strict_server)] == ["POST", "GET", "GET"]


@every_way
def test_another_origin_gets_nothing_of_ours_by_a_redirect(
    strict_server: StrictServer, other_server: StrictServer, way: Way
) -> None:
    tokens = way.sign_in(strict_server)
    credentials = way.credentials(strict_server, tokens=tokens)

    with _caller(way, strict_server, credentials) as api:
        for status in ("302", "303", "307", "308"):
            answer = api.send("POST", _to(other_server.url + "/public/there", status), json={"a": 1})
            assert answer.status_code == 200

    assert len(other_server.seen) == 4
    for request in other_server.seen:
        assert [name for name in TOKENS if name in request.headers] == []
        assert _secrets(request, tokens) == []


@every_way
def test_another_origin_gets_nothing_of_ours_when_it_is_asked_directly(
    strict_server: StrictServer, other_server: StrictServer, way: Way
) -> None:
    tokens = way.sign_in(strict_server)
    credentials = way.credentials(strict_server, tokens=tokens)

    with _caller(way, strict_server, credentials) as api:
        assert api.send("POST", other_server.url + "/public/there").status_code == 200
        assert api.send("GET", other_server.url + "/statistics").status_code == 401

    assert all(_secrets(request, tokens) == [] for request in other_server.seen)
    assert all([name for name in TOKENS if name in request.headers] == [] for request in other_server.seen)
    assert strict_server.seen == []


@every_way
def test_the_refusal_of_another_origin_starts_nothing_and_is_handed_over(
    strict_server: StrictServer, other_server: StrictServer, way: Way
) -> None:
    log = Log()
    credentials = way.credentials(strict_server, on_event=log)
    held = credentials.tokens
    strict_server.expire()

    with _caller(way, strict_server, credentials) as api:
        there = other_server.url + "/statistics"
        for path, content in ((_to(there), b"bytes"), (there, way.generator([b"once"]))):
            answer = api.send("POST", path, content=content)
            assert answer.status_code == 401
            assert answer.json()["reason"] in {"missing", "unknown"}
            assert answer.url == there

    assert (strict_server.stats.refreshes, other_server.stats.refreshes) == (0, 0)
    assert credentials.tokens is held
    assert log.events == []


@every_way
def test_a_request_that_comes_back_regains_its_token_without_a_refresh(
    strict_server: StrictServer, other_server: StrictServer, way: Way
) -> None:
    tokens = way.sign_in(strict_server)
    credentials = way.credentials(strict_server, tokens=tokens)
    back = _to(strict_server.url + "/orders")
    there_and_back = _to(other_server.url + back)

    with _caller(way, strict_server, credentials) as api:
        answer = api.send("POST", there_and_back, json={"a": 1})

    assert answer.json()["subject"] == "alice"
    assert strict_server.stats.refreshes == 0
    assert [journey[2] for journey in _journeys(strict_server)].count(200) == 1
    assert api_requests(strict_server)[-1].body == b'{"a":1}'
    (there,) = other_server.seen
    assert _secrets(there, tokens) == []


@every_way
def test_a_request_that_comes_back_with_a_dead_token_is_renewed_once(
    strict_server: StrictServer, other_server: StrictServer, way: Way
) -> None:
    tokens = way.sign_in(strict_server)
    credentials = way.credentials(strict_server, tokens=tokens)
    there_and_back = _to(other_server.url + _to(strict_server.url + "/orders"))
    strict_server.expire()

    with _caller(way, strict_server, credentials) as api:
        assert api.send("POST", there_and_back, json={"a": 1}).status_code == 200

    assert strict_server.stats.refreshes == 1
    assert [one.status for one in other_server.seen] == [307]
    assert _secrets(other_server.seen[0], tokens) == []


@every_way
def test_a_pair_that_another_origin_answers_with_is_not_adopted(
    strict_server: StrictServer, other_server: StrictServer, way: Way
) -> None:
    log = Log()
    theirs = way.sign_in(other_server, "mallory")
    credentials = way.credentials(strict_server, carrier=way.renewing(), on_event=log)
    bearer = {
        "X-Access-Token": theirs.access,
        "X-Refresh-Token": str(theirs.refresh),
        "X-Expires-In": "99999",
    }
    cookies = {"Set-Cookie": f"access_token_cookie={theirs.access}; Path=/"}
    other_server.fail_api(200, headers=bearer if way.carrier == "bearer" else cookies, times=2)

    with _caller(way, strict_server, credentials) as api:
        assert api.send("GET", _to(other_server.url + "/there")).status_code == 200
        assert api.send("GET", other_server.url + "/there").status_code == 200
        assert api.send("GET", "/statistics").json()["subject"] == "alice"

    assert credentials.tokens is not None
    assert credentials.tokens.access != theirs.access
    assert log.of(events.Adopted) == []


@every_way
def test_a_newer_pair_that_came_with_an_answer_is_kept_from_another_origin_too(
    strict_server: StrictServer, other_server: StrictServer, way: Way
) -> None:
    strict_server.configure(renews=True)
    tokens = way.sign_in(strict_server)
    credentials = way.credentials(strict_server, tokens=tokens, carrier=way.renewing())

    with _caller(way, strict_server, credentials) as api:
        assert api.send_many(3) == [200] * 3
        newer = credentials.tokens
        assert newer is not None
        assert newer.access != tokens.access
        assert api.send("POST", other_server.url + "/public/there").status_code == 200
        assert api.send("POST", _to(other_server.url + "/public/there")).status_code == 200

    assert all(_secrets(request, tokens, newer) == [] for request in other_server.seen)
    assert all([name for name in TOKENS if name in request.headers] == [] for request in other_server.seen)


@pytest.mark.parametrize("way", [way for way in HTTPX if way.driver.adapter == "transport"], ids=str)
def test_a_transport_leaves_no_token_in_the_callers_request(strict_server: StrictServer, way: Way) -> None:
    tokens = way.sign_in(strict_server)
    credentials = way.credentials(strict_server, tokens=tokens)
    own = {"Cookie": "theme=dark", "X-CSRF-TOKEN": "mine"}

    with _caller(way, strict_server, credentials) as api:
        sent = api.client.post(strict_server.url + "/orders", headers=own)
        answer = api.run(sent).result(30) if way.is_async else sent

    assert answer.status_code == 200
    assert {name: answer.request.headers.get(name) for name in own} == own
    assert "authorization" not in answer.request.headers
    (seen,) = api_requests(strict_server)
    if way.carrier == "cookies":
        assert seen.headers["cookie"].startswith("theme=dark; access_token_cookie=")
        assert seen.headers["x-csrf-token"] == tokens.extra["csrf_access_token"]

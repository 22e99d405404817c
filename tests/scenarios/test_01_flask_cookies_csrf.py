"""Scenario 1: Flask, HttpOnly cookies, double-submit CSRF; A, B and C start with an expired access cookie."""

from __future__ import annotations

import base64
import json
import secrets
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from typing import Any

import httpx
import httpx2
import pytest

import keyturn
from keyturn.client import events, grants
from tests.kit import Log

from .service import Arrived, Service
from .ways import TLS, WITH_TRANSPORT, Request, Way, announced, statuses

ABC = [
    Request("/protected/a"),
    Request("/protected/b", "POST", {"b": "b" * 100}),
    Request("/protected/c", "PUT", {"c": "c" * 100}),
]
MINUTE_LATER = 61.0


@pytest.fixture(scope="module")
def keyturn_process() -> Iterator[Service]:
    with Service("keyturn_cookies") as service:
        yield service


@pytest.fixture(scope="module")
def jwt_extended_process() -> Iterator[Service]:
    with Service("jwt_extended_cookies") as service:
        yield service


class Scene:
    """An application that alice has signed in to, with an access cookie that it takes for expired."""

    def __init__(self, service: Service, login: str, late: float, rotates: bool) -> None:
        self.service, self._late, self.rotates = service, late, rotates
        self.log = Log()
        self.grant = grants.Cookies(service.url + "/token/refresh", rotates=rotates)
        with httpx2.Client(verify=TLS, trust_env=False) as browser:
            self.signed_in = self.grant.read(browser.post(service.url + login))

    def credentials(self, *, knows: bool) -> keyturn.Credentials:
        """Credentials that know that the cookie has expired, or whose clock is slow."""
        service = self.service
        late = self._late if knows else self._late - 120.0
        return keyturn.Credentials(
            self.grant,
            tokens=self.signed_in,
            origins=[service.url],
            on_event=self.log,
            clock=lambda: time.time() + late,
        )


@pytest.fixture(params=["keyturn", "flask-jwt-extended", "flask-jwt-extended-rotating"])
def scene(request: pytest.FixtureRequest) -> Scene:
    if request.param == "keyturn":
        service: Service = request.getfixturevalue("keyturn_process")
        service.reset()
        signed_in = Scene(service, "/login", MINUTE_LATER, True)
        service.ahead(MINUTE_LATER)
        return signed_in
    service = request.getfixturevalue("jwt_extended_process")
    service.reset()
    rotates = request.param.endswith("rotating")
    service.switch(rotates=rotates)
    return Scene(service, f"/login?expired=1&family={secrets.token_hex(8)}", 0.0, rotates)


@pytest.mark.parametrize("way", WITH_TRANSPORT, ids=str)
def test_three_refused_requests_cost_one_refresh_and_each_is_replayed_with_the_new_csrf_value(
    scene: Scene, way: Way
) -> None:
    service = scene.service
    credentials = scene.credentials(knows=False)
    service.hold(3)  # all three are on their way before the first is refused

    answers = way.send(credentials, service.url, ABC)

    assert statuses(answers) == [200, 200, 200]
    assert [answer.json()["name"] for answer in answers] == ["a", "b", "c"]
    _one_refresh_with_its_own_csrf_value(scene)
    new = credentials.tokens
    assert new is not None
    assert new.access != scene.signed_in.access
    assert (new.refresh != scene.signed_in.refresh) == scene.rotates
    for name in "abc":
        first, replay = service.at(f"/protected/{name}")
        _carried(first, scene.signed_in, 401)
        _carried(replay, new, 200)
        assert (first.method, first.body) == (replay.method, replay.body)
    announced()
    assert len(scene.log.of(events.Refreshed)) == 1


@pytest.mark.parametrize("way", WITH_TRANSPORT, ids=str)
def test_three_requests_with_a_cookie_known_to_have_expired_wait_for_one_refresh_and_are_sent_once(
    scene: Scene, way: Way
) -> None:
    credentials = scene.credentials(knows=True)

    answers = way.send(credentials, scene.service.url, ABC)

    assert statuses(answers) == [200, 200, 200]
    _one_refresh_with_its_own_csrf_value(scene)
    assert credentials.tokens is not None
    for name in "abc":
        (only,) = scene.service.at(f"/protected/{name}")
        _carried(only, credentials.tokens, 200)


@pytest.mark.parametrize("way", WITH_TRANSPORT, ids=str)
def test_cookies_of_the_application_travel_along_an_old_token_gives_way_and_the_refresh_token_stays_behind(
    scene: Scene, way: Way
) -> None:
    stale = {"theme": "dark", "access_token_cookie": "stale", "csrf_access_token": "stale"}
    credentials = scene.credentials(knows=False)
    scene.service.hold(3)

    answers = way.send(credentials, scene.service.url, ABC, cookies=stale)

    assert statuses(answers) == [200, 200, 200]
    new = credentials.tokens
    assert new is not None
    arrived = scene.service.at("/protected")
    assert {one.cookies["theme"] for one in arrived} == {"dark"}
    assert {one.cookies["access_token_cookie"] for one in arrived} == {scene.signed_in.access, new.access}
    assert all(one.csrf == one.cookies["csrf_access_token"] for one in arrived)
    assert not any("refresh_token_cookie" in one.cookies for one in arrived)


@pytest.mark.parametrize("way", WITH_TRANSPORT[:1], ids=str)
def test_the_pair_that_was_bought_buys_the_next_one(scene: Scene, way: Way) -> None:
    credentials = scene.credentials(knows=False)
    way.send(credentials, scene.service.url, ABC[:1])
    for _ in range(3):
        bought = credentials.tokens
        assert bought is not None
        credentials.renew(bought)

    assert statuses(way.send(credentials, scene.service.url, ABC)) == [200, 200, 200]
    assert [one.status for one in scene.service.at("/token/refresh")] == [200] * 4


@pytest.mark.parametrize("way", WITH_TRANSPORT, ids=str)
def test_a_refresh_cookie_that_the_server_refuses_ends_the_session_for_all_three(
    scene: Scene, way: Way
) -> None:
    scene.signed_in = keyturn.Tokens(
        scene.signed_in.access, "forged", scene.signed_in.expires_at, extra=scene.signed_in.extra
    )
    credentials = scene.credentials(knows=False)
    scene.service.hold(3)

    with pytest.raises(keyturn.SessionEnded):
        way.send(credentials, scene.service.url, ABC)

    assert credentials.tokens is None
    assert len(scene.service.at("/token/refresh")) == 1
    announced()
    assert len(scene.log.of(events.Ended)) == 1


# The login response, whichever library it came with


class RequestsLike:
    """A response as requests has it: the values of a header joined to one, the raw ones behind `raw`."""

    def __init__(self, status: int, message: Message, content: bytes) -> None:
        self.status_code, self.content = status, content
        self.headers = {name.lower(): ", ".join(message.get_all(name, [])) for name in message}
        self.raw = _Raw(message)


class _Raw:
    def __init__(self, message: Message[str, str]) -> None:
        self.headers = _RawHeaders(message)


class _RawHeaders(Mapping[str, str]):
    """urllib3's HTTPHeaderDict, as far as it goes."""

    def __init__(self, message: Message[str, str]) -> None:
        self._message = message

    def __getitem__(self, name: str) -> str:
        return ", ".join(self.getlist(name))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._message

    def __iter__(self) -> Iterator[str]:
        return iter(self._message)

    def __len__(self) -> int:
        return len(self._message)

    def getlist(self, name: str) -> list[str]:
        return list(self._message.get_all(name, []))


def _by_httpx2(url: str) -> Any:
    with httpx2.Client(verify=TLS, trust_env=False) as client:
        return client.post(url)


def _by_httpx(url: str) -> Any:
    with httpx.Client(verify=TLS, trust_env=False) as client:
        return client.post(url)


def _by_requests(url: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=30) as answer:
        return RequestsLike(answer.status, answer.headers, answer.read())


@pytest.mark.parametrize("post", [_by_httpx2, _by_httpx, _by_requests])
@pytest.mark.parametrize("process", ["keyturn_process", "jwt_extended_process"])
def test_a_login_response_of_any_library_gives_the_pair_with_both_csrf_values(
    request: pytest.FixtureRequest, process: str, post: Callable[[str], Any]
) -> None:
    service: Service = request.getfixturevalue(process)
    service.reset()
    response = post(service.url + "/login?family=of-the-login")

    tokens = grants.Cookies(service.url + "/token/refresh").read(response)

    assert tokens.refresh is not None
    assert set(tokens.extra) == {"csrf_access_token", "csrf_refresh_token"}
    assert tokens.lifetime == pytest.approx(60, abs=1)
    assert tokens.expires_at == pytest.approx(time.time() + 60, abs=5)
    credentials = keyturn.Credentials(
        grants.Cookies(service.url + "/token/refresh"), tokens=tokens, origins=[service.url]
    )
    way = WITH_TRANSPORT[0]
    assert statuses(way.send(credentials, service.url, ABC)) == [200, 200, 200]
    credentials.renew(credentials.get_tokens())
    assert statuses(way.send(credentials, service.url, ABC)) == [200, 200, 200]


# What arrived


def _one_refresh_with_its_own_csrf_value(scene: Scene) -> None:
    (refresh,) = scene.service.at("/token/refresh")
    signed_in = scene.signed_in
    assert (refresh.method, refresh.status) == ("POST", 200)
    assert refresh.cookies["refresh_token_cookie"] == signed_in.refresh
    assert refresh.csrf == signed_in.extra["csrf_refresh_token"]
    assert "access_token_cookie" not in refresh.cookies
    if signed_in.refresh.count(".") == 2:  # flask-jwt-extended's
        assert refresh.csrf == _claims(signed_in.refresh)["csrf"]


def _carried(arrived: Arrived, tokens: keyturn.Tokens, status: int) -> None:
    assert arrived.status == status
    assert arrived.cookies["access_token_cookie"] == tokens.access
    assert arrived.csrf == arrived.cookies["csrf_access_token"] == tokens.extra["csrf_access_token"]
    claims = _claims(tokens.access)
    assert claims.get("csrf", arrived.csrf) == arrived.csrf  # flask-jwt-extended writes it into the token


def _claims(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims

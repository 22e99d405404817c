"""Scenario 3: every answer of the API carries a new pair, and the old one is dead at once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest

import keyturn
from keyturn.client import Bearer, Carrier, Cookies, InBody, events, grants
from keyturn.testing import StrictServer
from tests.kit import Log, credentials_for

from .callers import until, waiting
from .orders import RefusalsFirst
from .ways import ALL, TLS, WITH_AUTH, WITH_TRANSPORT, Request, Way, beside, statuses

FOUR = [
    Request("/statistics"),
    Request("/other-statistics"),
    Request("/orders", "POST", {"order": "x" * 2000}),
    Request("/orders/7", "PUT", {"order": "y" * 3000}),
]
IN_HEADERS = {"access": "X-Access-Token", "refresh": "X-Refresh-Token", "expires_in": "X-Expires-In"}
IN_BODY = {
    "access": "tokens.access_token",
    "refresh": "tokens.refresh_token",
    "expires_in": "tokens.expires_in",
}
CARRIERS: dict[str, Callable[[], Carrier]] = {
    "headers": lambda: Bearer(adopt=IN_HEADERS),
    "body": lambda: Bearer(adopt=InBody(IN_BODY)),
    "cookies": lambda: Cookies(renews=True),
}
EVERY = [
    pytest.param(way, kind, id=f"{way}-{kind}")
    for kind in CARRIERS
    for way in (WITH_TRANSPORT if kind == "cookies" else ALL)
]


@pytest.fixture
def server(strict_server: StrictServer) -> StrictServer:
    strict_server.configure(renews=True, ttl=60.0)
    return strict_server


def _credentials(
    server: StrictServer, kind: str = "headers", ttl: float | None = None, **options: Any
) -> keyturn.Credentials:
    options["carrier"] = CARRIERS[kind]()
    if kind == "cookies":
        grant = grants.Cookies(server.url + "/token/refresh")
        return credentials_for(server, server.sign_in_cookies(ttl=ttl), grant=grant, **options)
    return credentials_for(server, server.sign_in(ttl=ttl), **options)


def _all_answered(server: StrictServer, answers: Iterable[Any], requests: Iterable[Request]) -> None:
    """Each was answered, by the request that the same caller sent, with its whole body."""
    for answer, request in zip(answers, requests, strict=True):
        assert answer.status_code == 200
        receipt = answer.json()
        assert (receipt["path"], receipt["method"]) == (request.path, request.method)
        assert receipt["sha256"] == hashlib.sha256(answer.request.content).hexdigest()
        if request.json is not None:
            assert json.loads(answer.request.content) == request.json
            assert receipt["length"] > 10


def _nothing_lost(server: StrictServer, credentials: keyturn.Credentials, renewals: int) -> None:
    """Every answer brought a pair, no refresh was made, and the newest pair is the one at hand."""
    stats = server.stats
    assert (stats.refreshes, stats.reuses, stats.sessions_live) == (0, 0, 1)
    assert (stats.answered, stats.renewals) == (renewals, renewals)
    _still_signed_in(server, credentials)


def _still_signed_in(server: StrictServer, credentials: keyturn.Credentials) -> None:
    tokens = credentials.tokens
    assert tokens is not None
    assert server.alive(tokens)
    refreshes = server.stats.refreshes
    credentials.renew(tokens)  # the refresh token at hand is the newest one, or this would end the session
    assert server.stats.refreshes == refreshes + 1
    assert server.stats.sessions_live == 1


@pytest.mark.parametrize(("way", "kind"), EVERY)
def test_four_calls_with_one_token_are_all_answered_without_a_refresh(
    server: StrictServer, way: Way, kind: str
) -> None:
    log = Log()
    credentials = _credentials(server, kind, on_event=log)
    server.hold_api(4)

    answers = way.send(credentials, server.url, FOUR)

    _all_answered(server, answers, FOUR)
    assert len(log.of(events.Adopted)) == 4
    assert not log.of(events.Refreshed)
    _nothing_lost(server, credentials, 4)


@pytest.mark.parametrize(("way", "kind"), EVERY)
def test_four_calls_are_all_answered_though_every_refusal_arrives_before_the_success(
    server: StrictServer, way: Way, kind: str
) -> None:
    credentials = _credentials(server, kind)
    order = RefusalsFirst(server, 4, 3, 2)

    answers = way.send(credentials, server.url, FOUR, wrap=partial(order.around, way.host.lib))

    _all_answered(server, answers, FOUR)
    assert server.stats.refused == 3 + 2 + 1
    _nothing_lost(server, credentials, 4)


@pytest.mark.parametrize("way", WITH_AUTH, ids=str)
def test_twenty_calls_are_all_answered_though_every_refusal_arrives_before_the_success(
    server: StrictServer, way: Way
) -> None:
    requests = [Request(f"/{i}", "POST", {"i": i, "pad": "z" * 500}) for i in range(20)]
    credentials = _credentials(server)
    order = RefusalsFirst(server, 20, 19, 18)

    answers = way.send(credentials, server.url, requests, wrap=partial(order.around, way.host.lib))

    _all_answered(server, answers, requests)
    assert server.stats.refused == 19 + 18 + 17  # then one at a time, and nobody is refused any more
    _nothing_lost(server, credentials, 20)


@pytest.mark.parametrize("way", WITH_AUTH, ids=str)
def test_twenty_callers_with_five_calls_each_are_all_answered_in_waves_that_run_into_each_other(
    server: StrictServer, way: Way
) -> None:
    callers = [
        [
            Request(f"/{i}/{k}", "POST" if k % 2 else "GET", {"i": i, "k": k} if k % 2 else None)
            for k in range(5)
        ]
        for i in range(20)
    ]
    credentials = _credentials(server)
    server.hold_api(20)

    answers = way.send(credentials, server.url, callers)

    _all_answered(server, answers, [request for own in callers for request in own])
    _nothing_lost(server, credentials, 100)


@pytest.mark.parametrize(("way", "kind"), EVERY)
def test_a_token_known_to_have_expired_costs_one_refresh_and_then_none(
    server: StrictServer, way: Way, kind: str
) -> None:
    credentials = _credentials(server, kind, ttl=0.0)
    order = RefusalsFirst(server, 4, 3, 2)

    answers = way.send(credentials, server.url, FOUR, wrap=partial(order.around, way.host.lib))

    _all_answered(server, answers, FOUR)
    assert (server.stats.refreshes, server.stats.reuses) == (1, 0)
    _still_signed_in(server, credentials)


@pytest.mark.parametrize("way", WITH_AUTH, ids=str)
def test_a_token_that_only_the_server_knows_to_have_expired_costs_one_refresh_and_then_none(
    server: StrictServer, way: Way
) -> None:
    credentials = _credentials(server)
    server.expire()
    server.hold_api(4)

    answers = way.send(credentials, server.url, FOUR)

    _all_answered(server, answers, FOUR)
    assert (server.stats.refreshes, server.stats.reuses) == (1, 0)
    _still_signed_in(server, credentials)


@pytest.mark.parametrize("way", WITH_AUTH, ids=str)
def test_a_call_soon_before_the_token_expires_starts_no_refresh_beside_itself(
    server: StrictServer, way: Way
) -> None:
    """The answer of the call brings the new pair: a refresh beside it would send a spent token."""
    credentials = _credentials(server, clock=lambda: time.time() + 50.0)
    server.hold_refresh()

    def main() -> None:
        until(lambda: server.stats.answered == 1)
        server.release()

    answers = beside(main, lambda: way.send(credentials, server.url, FOUR[:1]))

    _all_answered(server, answers, FOUR[:1])
    _nothing_lost(server, credentials, 1)


@pytest.mark.parametrize("way", WITH_AUTH, ids=str)
def test_a_refresh_waits_for_the_answers_that_may_bring_the_new_pair(server: StrictServer, way: Way) -> None:
    credentials = _credentials(server)
    carried = credentials.get_tokens()
    server.hold_api(2)

    def renew() -> keyturn.Tokens:
        server.wait_for(api=1)
        return credentials.renew(carried)

    def release() -> None:
        until(lambda: waiting(credentials) == 1)
        server.release()

    def send() -> list[Any]:
        return beside(release, lambda: way.send(credentials, server.url, FOUR[2:3]))

    renewed: list[keyturn.Tokens] = []
    answers = beside(lambda: renewed.append(renew()), send)

    _all_answered(server, answers, FOUR[2:3])
    assert renewed == [credentials.tokens]
    _nothing_lost(server, credentials, 1)


@pytest.mark.parametrize("way", WITH_AUTH, ids=str)
def test_a_call_that_comes_while_a_refresh_is_on_its_way_waits_for_it(server: StrictServer, way: Way) -> None:
    credentials = _credentials(server)
    carried = credentials.get_tokens()
    server.hold_refresh()

    def renew() -> None:
        credentials.renew(carried)

    def release() -> None:
        until(lambda: waiting(credentials) == 2 or server.stats.api > 0)
        server.release()

    def send() -> list[Any]:
        server.wait_for(refreshes=1)
        return beside(release, lambda: way.send(credentials, server.url, FOUR[2:3]))

    answers = beside(renew, send)

    _all_answered(server, answers, FOUR[2:3])
    stats = server.stats
    assert (stats.refreshes, stats.reuses, stats.refused) == (1, 0, 0)
    _still_signed_in(server, credentials)


Break = Callable[[StrictServer], None]


@pytest.mark.parametrize("break_", [lambda s: s.drop_api(), lambda s: s.fail_api(500)], ids=["drop", "500"])
@pytest.mark.parametrize("way", WITH_AUTH, ids=str)
def test_a_call_that_fails_without_a_pair_holds_nobody_up(
    server: StrictServer, way: Way, break_: Break
) -> None:
    credentials = _credentials(server)
    break_(server)
    with contextlib.suppress(way.host.lib.TransportError):
        assert statuses(way.send(credentials, server.url, FOUR[:1])) == [500]

    server.hold_api(4)
    _all_answered(server, way.send(credentials, server.url, FOUR), FOUR)
    _nothing_lost(server, credentials, 4)


@pytest.mark.parametrize("way", WITH_AUTH, ids=str)
def test_a_body_that_can_be_sent_once_is_refused_whole_and_starts_no_refresh_beside_an_answer_on_its_way(
    server: StrictServer, way: Way
) -> None:
    credentials = _credentials(server)
    adapter, lib = way.host.adapter, way.host.lib

    def once() -> Iterator[bytes]:
        yield b"only once"

    def upload() -> None:
        server.wait_for(answered=1)  # the pair at hand is dead, and its successor is on its way
        with (
            lib.Client(auth=adapter.Auth(credentials), verify=TLS, trust_env=False) as api,
            pytest.raises(keyturn.NotReplayable),
        ):
            api.post(server.url + "/upload", content=once())

    answers = beside(upload, lambda: way.send(credentials, server.url, [Request("/slow?delay=0.3")]))

    assert statuses(answers) == [200]
    assert [one.body for one in server.seen if one.path == "/upload"] == [b"only once"]
    _nothing_lost(server, credentials, 1)


@pytest.mark.parametrize("way", WITH_AUTH, ids=str)
def test_an_ended_session_is_one_end_for_all_who_were_refused(server: StrictServer, way: Way) -> None:
    log = Log()
    credentials = _credentials(server, on_event=log)
    server.revoke()
    server.hold_api(4)

    with pytest.raises(keyturn.SessionEnded):
        way.send(credentials, server.url, FOUR)

    assert credentials.tokens is None
    assert server.stats.refreshes == 1


@pytest.mark.parametrize("way", WITH_AUTH, ids=str)
def test_a_pair_that_arrives_after_a_new_sign_in_is_not_adopted(server: StrictServer, way: Way) -> None:
    credentials = _credentials(server)
    bob = server.sign_in("bob")
    server.hold_api(2)

    def main() -> None:
        server.wait_for(api=1)
        credentials.sign_in(bob)
        server.release()

    answers = beside(main, lambda: way.send(credentials, server.url, FOUR[:1]))

    assert statuses(answers) == [200]
    assert answers[0].json()["subject"] == "alice"
    assert credentials.tokens is not None
    assert credentials.tokens.access == bob.access

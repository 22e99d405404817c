"""Scenario 11: a sign-in as somebody else, or a sign-out, while calls of the first are on their way."""

from __future__ import annotations

from typing import Any

import pytest

import keyturn
from keyturn.client import events
from keyturn.client.flight import Flight
from keyturn.testing import StrictServer
from tests.kit import Log
from tests.scenarios.callers import WAYS, Caller, Way, api_requests, results, until, waiting

every_way = pytest.mark.parametrize("way", WAYS, ids=str)
COUNT = 10


def _bodies(server: StrictServer) -> list[bytes]:
    return sorted(one.body for one in api_requests(server) if one.body)


def _reasons(told: list[Any]) -> set[object]:
    return {getattr(error, "reason", error) for error in told}


def _post(api: Caller, who: str) -> list[Any]:
    return [api.start("POST", "/orders", content=f"{who}-{i}".encode()) for i in range(COUNT)]


def _posted(who: str) -> list[bytes]:
    return sorted(f"{who}-{i}".encode() for i in range(COUNT))


def _flight(credentials: keyturn.Credentials) -> Flight:
    with credentials._lock:  # held until whoever started the flight has noted it
        flight = credentials._flight
    assert flight is not None
    return flight


@every_way
def test_a_refused_call_of_the_first_is_not_replayed_as_the_second(
    strict_server: StrictServer, way: Way
) -> None:
    alice = way.sign_in(strict_server, "alice")
    credentials = way.credentials(strict_server, tokens=alice)
    strict_server.expire()
    bob = way.sign_in(strict_server, "bob")
    strict_server.hold_api(COUNT + 1)

    with Caller(way, strict_server, credentials) as api:
        calls = _post(api, "alice")
        strict_server.wait_for(api=COUNT)
        credentials.sign_in(bob)
        strict_server.release()
        assert _reasons(results(calls)) == {"replaced"}
        assert api.send("POST", "/orders", content=b"bob").json()["subject"] == "bob"

    assert _bodies(strict_server) == sorted([*_posted("alice"), b"bob"])
    for request in api_requests(strict_server):
        carried = request.headers["authorization" if way.carrier == "bearer" else "cookie"]
        assert ((alice if request.body != b"bob" else bob).access in carried) is True
    assert strict_server.stats.refreshes == 0


@every_way
def test_a_call_of_the_first_that_the_server_takes_is_answered_as_the_first(
    strict_server: StrictServer, way: Way
) -> None:
    credentials = way.credentials(strict_server)
    strict_server.hold_api(COUNT + 1)

    with Caller(way, strict_server, credentials) as api:
        calls = _post(api, "alice")
        strict_server.wait_for(api=COUNT)
        credentials.sign_in(way.sign_in(strict_server, "bob"))
        strict_server.release()
        assert {call.result(30).json()["subject"] for call in calls} == {"alice"}

    assert _bodies(strict_server) == _posted("alice")


@every_way
def test_a_call_that_waits_for_the_first_ones_refresh_is_never_sent_as_the_second(
    strict_server: StrictServer, way: Way
) -> None:
    log = Log()
    credentials = way.credentials(strict_server, ttl=-1.0, on_event=log)
    strict_server.hold_refresh("after")

    with Caller(way, strict_server, credentials) as api:
        calls = _post(api, "alice")
        strict_server.wait_for(rotations=1)
        until(lambda: waiting(credentials) == COUNT)
        flight = _flight(credentials)
        credentials.sign_in(way.sign_in(strict_server, "bob"))
        bob = credentials.tokens
        assert _reasons(results(calls)) == {"replaced"}  # at once, not when the refresh is over

        strict_server.release()
        assert flight.settle(10.0)
        assert credentials.tokens is bob  # the late refresh of the first changed nothing
        assert api.send("POST", "/orders", content=b"bob").json()["subject"] == "bob"

    assert _bodies(strict_server) == [b"bob"]
    assert [type(event) for event in log.of(events.Landing)] == [events.Overtaken]


@every_way
def test_a_refused_call_that_waits_for_a_refresh_is_not_replayed_as_the_second(
    strict_server: StrictServer, way: Way
) -> None:
    credentials = way.credentials(strict_server)
    strict_server.expire()
    strict_server.hold_refresh("after")

    with Caller(way, strict_server, credentials) as api:
        calls = _post(api, "alice")
        until(lambda: waiting(credentials) == COUNT)
        credentials.sign_in(way.sign_in(strict_server, "bob"))
        assert _reasons(results(calls)) == {"replaced"}
        strict_server.release()

    assert _bodies(strict_server) == _posted("alice")


@every_way
def test_the_late_end_of_the_first_does_not_end_the_second(strict_server: StrictServer, way: Way) -> None:
    log = Log()
    credentials = way.credentials(strict_server, ttl=-1.0, on_event=log)
    strict_server.hold_refresh("before")
    strict_server.fail_refresh(400 if way.carrier == "bearer" else 401, body={"error": "invalid_grant"})

    with Caller(way, strict_server, credentials) as api:
        call = api.start("GET", "/statistics")
        strict_server.wait_for(refreshes=1)
        flight = _flight(credentials)
        credentials.sign_in(way.sign_in(strict_server, "bob"))
        strict_server.release()
        assert flight.settle(10.0)
        assert _reasons(results([call])) == {"replaced"}
        assert api.send("GET", "/statistics").json()["subject"] == "bob"

    assert log.of(events.Ended) == []


@every_way
def test_the_second_refreshes_while_the_refresh_of_the_first_is_still_on_its_way(
    strict_server: StrictServer, way: Way
) -> None:
    credentials = way.credentials(strict_server, ttl=-1.0)
    strict_server.hold_refresh("before")

    with Caller(way, strict_server, credentials) as api:
        first = api.start("GET", "/statistics")
        strict_server.wait_for(refreshes=1)
        credentials.sign_in(way.sign_in(strict_server, "bob", ttl=-1.0))
        second = api.start("GET", "/statistics")
        strict_server.wait_for(refreshes=2)
        strict_server.release()
        assert _reasons(results([first])) == {"replaced"}
        assert second.result(30).json()["subject"] == "bob"

    assert (strict_server.stats.rotations, strict_server.stats.reuses) == (2, 0)


@every_way
def test_a_sign_out_ends_the_waiting_and_a_late_refresh_does_not_undo_it(
    strict_server: StrictServer, way: Way
) -> None:
    log = Log()
    credentials = way.credentials(strict_server, ttl=-1.0, on_event=log)
    strict_server.hold_refresh("after")

    with Caller(way, strict_server, credentials) as api:
        calls = _post(api, "alice")
        strict_server.wait_for(rotations=1)
        until(lambda: waiting(credentials) == COUNT)
        flight = _flight(credentials)
        credentials.sign_out()
        assert _reasons(results(calls)) == {"signed_out"}
        strict_server.release()
        assert flight.settle(10.0)
        assert credentials.tokens is None
        assert _reasons(api.send_many(3)) == {"signed_out"}

    assert api_requests(strict_server) == []
    assert [type(event) for event in log.of(events.Landing)] == [events.Overtaken]


@every_way
def test_a_call_that_is_refused_after_a_sign_out_is_not_sent_again(
    strict_server: StrictServer, way: Way
) -> None:
    credentials = way.credentials(strict_server)
    strict_server.expire()
    strict_server.hold_api(COUNT + 1)

    with Caller(way, strict_server, credentials) as api:
        calls = _post(api, "alice")
        strict_server.wait_for(api=COUNT)
        credentials.sign_out()
        strict_server.release()
        assert _reasons(results(calls)) == {"signed_out"}

    assert _bodies(strict_server) == _posted("alice")
    assert strict_server.stats.refreshes == 0


@every_way
def test_a_newer_pair_in_an_answer_to_the_first_is_not_adopted_for_the_second(
    strict_server: StrictServer, way: Way
) -> None:
    strict_server.configure(renews=True)
    log = Log()
    credentials = way.credentials(strict_server, carrier=way.renewing(), on_event=log)
    carried = credentials.tokens
    assert carried is not None
    strict_server.hold_api(2)

    with Caller(way, strict_server, credentials) as api:
        call = api.start("GET", "/statistics")
        strict_server.wait_for(api=1)
        credentials.sign_in(way.sign_in(strict_server, "bob"))
        bob = credentials.tokens
        strict_server.release()
        assert call.result(30).json()["subject"] == "alice"
        assert credentials.tokens is bob
        assert not credentials.adopt(way.sign_in(strict_server, "alice"), carried)
        assert credentials.tokens is bob
        assert api.send("GET", "/statistics").json()["subject"] == "bob"

    assert strict_server.stats.refreshes == 0
    assert len(log.of(events.Adopted)) == 1  # bob's own


@every_way
def test_a_redirect_of_the_first_is_not_followed_as_the_second(strict_server: StrictServer, way: Way) -> None:
    credentials = way.credentials(strict_server)
    others = [way.sign_in(strict_server, "bob")]

    def between_hops(status: int) -> None:
        if status == 307 and others:
            credentials.sign_in(others.pop())

    with Caller(way, strict_server, credentials, redirects=True, watch=between_hops) as api:
        call = api.start("POST", "/redirect/307?to=/orders", content=b"alice")
        error = call.exception(30)
        if error is None:
            assert call.result().json()["subject"] == "alice"
        else:
            assert isinstance(error, keyturn.SessionEnded)
            assert error.reason == "replaced"
            assert [one.path for one in api_requests(strict_server)] == ["/redirect/307"]

        assert api.send("GET", "/statistics").json()["subject"] == "bob"
        assert api.send("GET", "/redirect/307?to=/statistics").json()["subject"] == "bob"

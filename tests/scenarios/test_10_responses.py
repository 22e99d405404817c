"""Scenario 10: what is a refusal, what is not, and which response the caller gets."""

from __future__ import annotations

import pytest

import keyturn
from keyturn.client import carriers, grants
from keyturn.testing import StrictServer
from tests.kit import HOSTS, Host
from tests.scenarios.callers import WAYS, Caller, Way, api_requests

every_way = pytest.mark.parametrize("way", WAYS, ids=str)
bearers = pytest.mark.parametrize("way", [way for way in WAYS if way.carrier == "bearer"], ids=str)
LARGE = 3_000_000


@every_way
@pytest.mark.parametrize("refused", [False, True], ids=["answered", "replayed"])
def test_a_streamed_response_reaches_the_caller_unread(
    strict_server: StrictServer, way: Way, refused: bool
) -> None:
    credentials = way.credentials(strict_server)
    if refused:
        strict_server.expire()

    with Caller(way, strict_server, credentials) as api:
        streamed = api.stream(f"/export?size={LARGE}")

    assert (streamed.status_code, streamed.unread) == (200, True)
    assert streamed.size >= LARGE
    assert strict_server.stats.refreshes == int(refused)


@bearers
def test_a_request_for_another_scheme_is_not_a_refusal_of_the_token(
    strict_server: StrictServer, way: Way
) -> None:
    credentials = way.credentials(strict_server)
    strict_server.fail_api(401, headers={"WWW-Authenticate": 'Basic realm="files"'}, body="theirs")

    with Caller(way, strict_server, credentials) as api:
        answer = api.send("GET", "/files")

    assert (answer.status_code, answer.text) == (401, "theirs")
    assert strict_server.stats.refreshes == 0
    assert len(api_requests(strict_server)) == 1


@bearers
@pytest.mark.parametrize("challenge", [None, "Bearer", 'Basic realm="x", Bearer error="invalid_token"'])
def test_a_401_without_a_challenge_or_with_ours_is_a_refusal(
    strict_server: StrictServer, way: Way, challenge: str | None
) -> None:
    credentials = way.credentials(strict_server)
    strict_server.fail_api(401, headers={} if challenge is None else {"WWW-Authenticate": challenge})

    with Caller(way, strict_server, credentials) as api:
        assert api.send("GET", "/files").status_code == 200

    assert strict_server.stats.refreshes == 1


@every_way
def test_a_refused_replay_goes_to_the_caller_as_the_response_that_it_is(
    strict_server: StrictServer, way: Way
) -> None:
    credentials = way.credentials(strict_server)
    strict_server.fail_api(401, body="first", path="/closed")
    strict_server.fail_api(401, body="second", times=1000, path="/closed")

    with Caller(way, strict_server, credentials) as api:
        answer = api.send("POST", "/closed", json={"a": 1})
        assert (answer.status_code, answer.text) == (401, "second")
        assert strict_server.stats.refreshes == 1
        assert [one.body for one in api_requests(strict_server)] == [b'{"a":1}'] * 2

        assert api.send("GET", "/open").status_code == 200
    assert strict_server.stats.refreshes == 1
    assert credentials.tokens is not None


@every_way
def test_an_answer_that_is_no_refusal_starts_nothing(strict_server: StrictServer, way: Way) -> None:
    credentials = way.credentials(strict_server)
    statuses = [400, 403, 404, 500, 503]
    for status in statuses:
        strict_server.fail_api(status, body=f"{status} as it is")

    with Caller(way, strict_server, credentials) as api:
        answers = [api.send("GET", "/statistics") for _ in statuses]

    assert [answer.status_code for answer in answers] == statuses
    assert [answer.text for answer in answers] == [f"{status} as it is" for status in statuses]
    assert len(strict_server.seen) == len(statuses)


@pytest.mark.parametrize("way", [way for way in WAYS if way.driver.adapter != "transport"], ids=str)
def test_a_request_that_opts_out_is_left_alone(strict_server: StrictServer, way: Way) -> None:
    credentials = way.credentials(strict_server, ttl=-1.0)

    with Caller(way, strict_server, credentials) as api:
        assert api.send("GET", "/statistics", bare=True).status_code == 401

    (seen,) = strict_server.seen
    assert not {"authorization", "cookie", "x-csrf-token"} & set(seen.headers)


@pytest.mark.parametrize("host", HOSTS, ids=str)
def test_auth_refuses_a_carrier_that_a_redirect_would_take_to_another_origin(host: Host) -> None:
    url = "https://api.example"
    by_grant = keyturn.Credentials(grants.Cookies(url + "/token/refresh"), origins=[url])
    by_carrier = keyturn.Credentials(grants.OAuth2(url + "/token"), carrier=carriers.Cookies(), origins=[url])

    for credentials in (by_grant, by_carrier):
        with pytest.raises(keyturn.ConfigurationError, match="Transport"):
            host.adapter.Auth(credentials)


@pytest.mark.parametrize("host", HOSTS, ids=str)
def test_auth_takes_nothing_but_credentials(host: Host) -> None:
    with pytest.raises(keyturn.ConfigurationError, match="Credentials"):
        host.adapter.Auth("token")

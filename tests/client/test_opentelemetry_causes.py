"""Why a refresh brought nothing, as metrics and spans tell it: one series a cause, and nothing unbounded."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from opentelemetry.trace import StatusCode

import keyturn
from keyturn.client import grants
from keyturn.testing import Clock, StrictServer
from tests.client.recorder import Recorder
from tests.kit import credentials_for, in_threads
from tests.waiting import WITHIN, aboard, patient_oauth2, start, until

Arrange = Callable[[StrictServer], object]
Attributes = dict[str, Any]


def answers(status: int, body: dict[str, str] | None = None) -> Arrange:
    """Have the token end point answer this and rotate nothing."""
    return lambda server: server.fail_refresh(status, body=body, times=10)


CAUSES: list[tuple[str, Arrange, Attributes]] = [
    (
        "a dead refresh token",
        lambda server: server.revoke(),
        {"error.type": "SessionEnded", "keyturn.oauth.error": "invalid_grant"},
    ),
    (
        "a client that it does not know",
        answers(401, {"error": "invalid_client"}),
        {
            "error.type": "RefreshMisconfigured",
            "keyturn.oauth.error": "invalid_client",
            "http.response.status_code": 401,
        },
    ),
    (
        "a word that no standard knows",
        answers(400, {"error": "out_of_order"}),
        {
            "error.type": "RefreshMisconfigured",
            "keyturn.oauth.error": "_OTHER",
            "http.response.status_code": 400,
        },
    ),
    (
        "a firewall",
        answers(403),
        {"error.type": "RefreshMisconfigured", "http.response.status_code": 403},
    ),
    ("an overload", answers(503), {"error.type": "RefreshUnavailable", "http.response.status_code": 503}),
    ("a fault", answers(500), {"error.type": "OutcomeUnknown", "http.response.status_code": 500}),
    ("a lost answer", lambda server: server.drop_refresh(), {"error.type": "OutcomeUnknown"}),
]


@pytest.mark.parametrize(
    ("arrange", "told"), [(a, t) for _, a, t in CAUSES], ids=[name for name, *_ in CAUSES]
)
def test_a_failure_is_counted_once_by_its_cause_and_every_waiter_by_the_error_that_he_got(
    strict_server: StrictServer, arrange: Arrange, told: Attributes
) -> None:
    recorder = Recorder()
    tokens = strict_server.sign_in(ttl=-1.0)
    arrange(strict_server)
    strict_server.hold_refresh()
    credentials = credentials_for(
        strict_server,
        tokens,
        grant=patient_oauth2(strict_server),
        retry_for=timedelta(0),
        on_event=recorder.telemetry,
    )
    raised = [start(lambda: credentials.get_tokens(timeout=WITHIN)) for _ in range(5)]
    until(lambda: aboard(credentials) == 5)
    strict_server.release()
    assert {type(one.exception(WITHIN)).__name__ for one in raised} == {told["error.type"]}

    refresh = recorder.refresh()
    assert refresh.status.status_code is StatusCode.ERROR
    assert refresh.status.description is None
    result = "ended" if told["error.type"] == "SessionEnded" else "failed"
    assert told.items() <= dict(refresh.attributes or {}).items()
    assert (refresh.attributes or {})["keyturn.result"] == result
    assert [(attributes, point.value) for attributes, point in recorder.points("failures")] == [(told, 1)]
    assert [(attributes, point.count) for attributes, point in recorder.points("wait.duration")] == [
        ({"keyturn.wait.result": "failed", "error.type": told["error.type"]}, 5)
    ]
    assert recorder.points("refreshes") == []


def test_an_end_point_that_is_not_there_is_unavailable_without_a_status() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    recorder = Recorder()
    credentials = keyturn.Credentials(
        grants.OAuth2(f"http://127.0.0.1:{port}/token"),
        tokens=keyturn.Tokens("old", "refresh", 1.0),
        origins=["https://api.example"],
        retry_for=timedelta(0),
        on_event=recorder.telemetry,
    )
    with pytest.raises(keyturn.RefreshUnavailable):
        credentials.get_tokens(timeout=WITHIN)

    recorder.refresh()
    assert [told for told, _ in recorder.points("failures")] == [{"error.type": "RefreshUnavailable"}]


class OfMyOwn(keyturn.RefreshError):
    """What a user's grant raises."""


def test_an_error_that_a_user_has_derived_goes_by_the_name_that_keyturn_knows() -> None:
    async def grant(tokens: keyturn.Tokens, http: httpx2.AsyncClient) -> keyturn.Tokens:
        raise OfMyOwn("of which nobody shall read", status=12345)

    recorder = Recorder()
    credentials = keyturn.Credentials(
        grant,
        tokens=keyturn.Tokens("old", "refresh", 1.0),
        origins=["https://api.example"],
        on_event=recorder.telemetry,
    )
    with pytest.raises(OfMyOwn):
        credentials.get_tokens(timeout=WITHIN)

    recorder.refresh()
    assert [told for told, _ in recorder.points("failures")] == [{"error.type": "RefreshError"}]


def test_a_caller_who_goes_on_with_a_token_that_is_still_valid_has_not_failed(
    strict_server: StrictServer,
) -> None:
    recorder, clock = Recorder(), Clock()
    strict_server.fail_refresh(503, times=10)
    credentials = credentials_for(
        strict_server,
        keyturn.Tokens("old", strict_server.sign_in().refresh, clock() + 60.0, 60.0),
        retry_for=timedelta(0),
        clock=clock,
        on_event=recorder.telemetry,
    )
    clock.advance(59.0)
    held = credentials.tokens
    assert in_threads(3, lambda _: credentials.get_tokens(timeout=WITHIN)) == [held] * 3

    assert (recorder.refresh().attributes or {})["error.type"] == "RefreshUnavailable"
    assert {told["keyturn.wait.result"] for told, _ in recorder.points("wait.duration")} == {"kept"}
    assert all("error.type" not in told for told, _ in recorder.points("wait.duration"))
    assert recorder.count("failures") == 1


def test_a_refresh_that_a_sign_in_overtakes_is_neither_a_success_nor_a_failure(
    strict_server: StrictServer,
) -> None:
    recorder = Recorder()
    strict_server.hold_refresh("after")
    credentials = credentials_for(
        strict_server,
        strict_server.sign_in(ttl=-1.0),
        grant=patient_oauth2(strict_server),
        on_event=recorder.telemetry,
    )
    waiting = start(lambda: credentials.get_tokens(timeout=WITHIN))
    strict_server.wait_for(rotations=1)
    until(lambda: aboard(credentials) == 1)
    credentials.sign_in(strict_server.sign_in("bob"))
    assert isinstance(waiting.exception(WITHIN), keyturn.SessionEnded)
    assert recorder.named("keyturn refresh") == [], "it is in the air still"
    strict_server.release()

    refresh = recorder.refresh()
    assert (refresh.attributes or {})["keyturn.result"] == "overtaken"
    assert refresh.status.status_code is StatusCode.UNSET
    assert (recorder.points("refreshes"), recorder.points("failures")) == ([], [])
    assert recorder.count("wait.duration", error__type="SessionEnded") == 1


@pytest.mark.parametrize("found", [True, False])
def test_a_first_use_that_loads_the_tokens_is_no_refresh(found: bool) -> None:
    recorder = Recorder()
    credentials = keyturn.Credentials(
        grants.OAuth2("https://id.example/token"),
        tokens=lambda: keyturn.Tokens("kept") if found else None,
        origins=["https://api.example"],
        on_event=recorder.telemetry,
    )
    assert (start(lambda: credentials.get_tokens(timeout=WITHIN)).exception(WITHIN) is None) is found

    assert (recorder.refresh().attributes or {})["keyturn.result"] == ("loaded" if found else "absent")
    assert (recorder.points("refreshes"), recorder.points("failures")) == ([], [])


def test_a_retry_that_succeeds_is_one_refresh_of_two_attempts(strict_server: StrictServer) -> None:
    recorder = Recorder()
    tokens = strict_server.sign_in(ttl=-1.0)
    strict_server.fail_refresh(503)
    credentials_for(strict_server, tokens, on_event=recorder.telemetry).get_tokens(timeout=WITHIN)

    assert (recorder.refresh().attributes or {})["keyturn.attempts"] == 2
    assert (recorder.count("refreshes"), recorder.points("failures")) == (1, [])

"""No secret in telemetry: all that an exporter gets, after storms, refusals and answers made to leak."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import httpx2
import pytest

import keyturn
from keyturn.client import grants
from keyturn.testing import StrictServer
from tests.client.recorder import Recorder
from tests.kit import HOSTS, Host, credentials_for, in_threads, storm_of_tasks
from tests.waiting import WITHIN, until

MARKER = "quietplease"  # letters only: what would pass for an error code, too
ACCESS, REFRESH = f"acc.{MARKER}.1", f"ref.{MARKER}.2"
NEW_ACCESS, NEW_REFRESH = f"acc.{MARKER}.3", f"ref.{MARKER}.4"
HUSH = f"hush.{MARKER}.5"

LEAKS = {
    "error": MARKER,
    "error_description": f"the token {REFRESH} of {ACCESS} is {MARKER}",
    "error_uri": f"https://id.example/{MARKER}",
    "access_token": NEW_ACCESS,
    "refresh_token": NEW_REFRESH,
}
Answer = Callable[[httpx2.Request], httpx2.Response]


def fails(kind: type[Exception]) -> Answer:
    """Return an end point that is not reached, or breaks off, with a secret in the error's text."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        raise kind(f"{MARKER} in {request.content!r}")

    return answer


ANSWERS: dict[str, Answer] = {
    "a-pair": lambda _: httpx2.Response(200, json=LEAKS | {"expires_in": 600, "error": None}),
    "no-pair": lambda _: httpx2.Response(200, json={"nothing": MARKER}),
    "no-json": lambda request: httpx2.Response(200, content=MARKER.encode() + request.content),
    "refused": lambda _: httpx2.Response(400, json=LEAKS),
    "ended": lambda _: httpx2.Response(400, json=LEAKS | {"error": "invalid_grant"}),
    "not-this-client": lambda _: httpx2.Response(401, json=LEAKS | {"error": "invalid_client"}),
    "elsewhere": lambda _: httpx2.Response(302, headers={"Location": f"https://id.example/{MARKER}"}),
    "overloaded": lambda _: httpx2.Response(503, json=LEAKS, headers={"Retry-After": MARKER}),
    "broken": lambda _: httpx2.Response(500, json=LEAKS),
    "not-there": fails(httpx2.ConnectError),
    "broken-off": fails(httpx2.ReadError),
    "a-bug": fails(ValueError),
}


def credentials(recorder: Recorder, answer: Answer) -> keyturn.Credentials:
    """Return credentials, every part of which is a secret, whose tokens have expired."""
    return keyturn.Credentials(
        grants.OAuth2(
            f"https://user:{HUSH}@id.example/token?of={HUSH}",
            client_id="dashboard",
            client_secret=HUSH,
            http=lambda: httpx2.AsyncClient(transport=httpx2.MockTransport(answer)),
        ),
        tokens=keyturn.Tokens(ACCESS, REFRESH, time.time() - 60.0, 3600.0, {"csrf": HUSH}),
        origins=["https://api.example"],
        name="dashboard",
        retry_for=timedelta(0),
        on_event=recorder.telemetry,
    )


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=list(ANSWERS))
def test_what_an_end_point_answers_reaches_no_attribute(answer: Answer) -> None:
    recorder = Recorder(names=True)
    held = credentials(recorder, answer)

    def call(_: int) -> None:
        with recorder.span(), contextlib.suppress(keyturn.KeyturnError):
            held.get_tokens(timeout=WITHIN)

    in_threads(5, call)
    until(lambda: bool(recorder.named("keyturn refresh")) and recorder.telemetry._flights == {})
    told = recorder.everything()
    assert "dashboard" in told
    assert MARKER not in told


def outrageous(error: Exception) -> Iterator[grants.Function]:
    """Yield grants that raise an error of the user's own making."""

    async def awaited(tokens: keyturn.Tokens, http: httpx2.AsyncClient) -> keyturn.Tokens:
        raise error

    def plain(tokens: keyturn.Tokens, http: httpx2.Client) -> keyturn.Tokens:
        raise error

    yield from (awaited, plain)


@pytest.mark.parametrize(
    "error",
    [
        ValueError(MARKER),
        keyturn.SessionEnded(MARKER, error=MARKER, error_description=MARKER),
        keyturn.RefreshMisconfigured(MARKER, status=400, error=MARKER, error_description=MARKER),
        keyturn.RefreshUnavailable(MARKER),
        type(MARKER, (keyturn.OutcomeUnknown,), {})(MARKER),
    ],
    ids=["a-bug", "ended", "misconfigured", "unavailable", "of-a-secret-name"],
)
def test_what_a_users_own_grant_raises_reaches_no_attribute(error: Exception) -> None:
    recorder = Recorder(names=True)
    for number, grant in enumerate(outrageous(error)):
        held = keyturn.Credentials(
            grant,
            tokens=keyturn.Tokens(ACCESS, REFRESH, 1.0),
            origins=["https://api.example"],
            retry_for=timedelta(0),
            on_event=recorder.telemetry,
        )
        with recorder.span("outer"), pytest.raises(keyturn.KeyturnError):
            held.get_tokens(timeout=WITHIN)
        recorder.refreshes(number + 1)

    told = recorder.everything()
    assert told.count("error.type") >= 4
    assert MARKER not in told


def errors_of_threads(host: Host, server: StrictServer, held: keyturn.Credentials, count: int) -> list[str]:
    """Send requests from threads; return the names of the errors that they get, or their statuses."""

    def get(i: int) -> str:
        with host.client(server, held) as api:
            try:
                return str(api.get(f"/{i}").status_code)
            except keyturn.KeyturnError as error:
                return type(error).__name__

    return in_threads(count, get)


@pytest.mark.parametrize("host", HOSTS, ids=str)
def test_after_a_storm_no_token_that_the_server_saw_is_in_anything_that_was_exported(
    strict_server: StrictServer, host: Host
) -> None:
    recorder = Recorder(names=True)
    held = credentials_for(strict_server, name="dashboard", on_event=recorder.telemetry)
    with recorder.span():
        strict_server.expire()
        assert storm_of_tasks(host, strict_server, held, 30) == [200] * 30
        strict_server.revoke()
        assert set(errors_of_threads(host, strict_server, held, 10)) == {"SessionEnded"}

    recorder.refreshes(2)
    told, secrets = recorder.everything(), set[str]()
    for seen in strict_server.seen:
        secrets.add(seen.headers.get("authorization", "").removeprefix("Bearer "))
        secrets.update(part.partition("=")[2] for part in seen.body.decode().split("&") if "token=" in part)
    secrets -= {"", "refresh_token"}
    assert len(secrets) >= 4
    assert [secret for secret in secrets if secret in told] == []

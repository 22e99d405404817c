"""The legs of a journey: a request whose library sends it by itself, and says nothing when that fails."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import keyturn
from keyturn.client import grants
from keyturn.client.carriers import Bearer
from keyturn.client.legs import Embarked, embark, land
from keyturn.client.requests_call import PreparedCall
from keyturn.client.requests_family import run
from tests.client.requests_kit import LIBRARIES
from tests.kit import in_threads

URL = "https://api.example"
RENEWING = {"access": "X-Access-Token", "refresh": "X-Refresh-Token"}


@pytest.fixture
def credentials() -> keyturn.Credentials:
    return keyturn.Credentials(
        grants.OAuth2(URL + "/token", client_id="tests"),
        tokens=keyturn.Tokens(access="access", refresh="refresh"),
        origins=[URL],
        carrier=Bearer(adopt=RENEWING),
    )


def _call() -> Any:
    request = LIBRARIES[0].lib.Request("GET", URL + "/a").prepare()
    return PreparedCall(request, Bearer(), sent=False)


def _leave(credentials: keyturn.Credentials) -> Embarked:
    embarked: list[Embarked] = []

    def leg() -> Any:
        embarked.append((yield from embark(credentials, _call())))

    run(leg())
    return embarked[0]


def _under_way(credentials: keyturn.Credentials) -> bool:
    assert credentials.tokens is not None
    return credentials.on_their_way(credentials.tokens) is not None


def test_a_request_is_on_its_way_until_it_lands(credentials: keyturn.Credentials) -> None:
    response: Any = LIBRARIES[0].lib.Response()
    response.status_code = 200
    embarked = _leave(credentials)
    assert _under_way(credentials)

    run(land(credentials, _call(), embarked, response))

    assert not _under_way(credentials)


def test_a_request_of_a_thread_that_sends_another_has_failed(credentials: keyturn.Credentials) -> None:
    _leave(credentials)
    second = _leave(credentials)
    assert _under_way(credentials)
    assert second.departure is not None

    second.departure.arrive()
    second.departure.arrive()  # once is enough

    assert not _under_way(credentials)


def test_a_request_of_a_thread_that_has_ended_has_failed(credentials: keyturn.Credentials) -> None:
    in_threads(3, lambda _: _leave(credentials))
    assert _under_way(credentials)

    embarked = _leave(credentials)
    assert embarked.departure is not None
    embarked.departure.arrive()

    assert not _under_way(credentials)


def test_a_request_of_a_thread_that_goes_on_is_waited_for(credentials: keyturn.Credentials) -> None:
    left, over = threading.Event(), threading.Event()

    def other() -> None:
        _leave(credentials)
        left.set()
        over.wait(30)

    thread = threading.Thread(target=other)
    thread.start()
    left.wait(30)
    embarked = _leave(credentials)
    assert embarked.departure is not None
    embarked.departure.arrive()
    assert _under_way(credentials)

    over.set()
    thread.join(30)
    _leave(credentials)
    assert _under_way(credentials)


def test_a_request_of_a_task_that_has_ended_has_failed(credentials: keyturn.Credentials) -> None:
    async def main() -> None:
        async def send() -> None:
            _leave(credentials)

        await asyncio.gather(send(), send())
        assert _under_way(credentials)
        embarked = _leave(credentials)
        assert embarked.departure is not None
        embarked.departure.arrive()

    asyncio.run(main())

    assert not _under_way(credentials)


def test_a_place_in_the_turnstile_is_not_held_while_a_request_is_away(
    credentials: keyturn.Credentials,
) -> None:
    before = credentials.turnstile.enter()
    left = threading.Thread(target=lambda: _leave(credentials))
    left.start()
    while len(credentials.turnstile._queue) < 2:
        pass
    credentials.turnstile.leave(before)
    left.join(30)

    assert not credentials.turnstile.crowded

"""respx and responses: what they mock, what they leave alone, and what happens without `mock_exchange`."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import httpx
import pytest
import requests
import responses
import respx

import keyturn
import keyturn.client.httpx
import keyturn.client.requests
from keyturn.client import grants
from keyturn.testing import MockTransport, StrictServer
from tests.kit import in_threads

API = "https://api.example"
NOBODY = "http://127.0.0.1:1/token"  # a port where nobody listens


def _credentials(tokens: keyturn.Tokens, grant: grants.Grant, origin: str = API) -> keyturn.Credentials:
    return keyturn.Credentials(
        grant, tokens=tokens, origins=[origin], retry_for=timedelta(seconds=0), name="alice"
    )


def _visitors(router: respx.MockRouter, mock: MockTransport) -> respx.Route:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200 if mock.accepts(request.headers.get("Authorization")) else 401)

    return router.get(f"{API}/visitors").mock(side_effect=answer)


def test_a_storm_of_tasks_on_an_api_that_respx_mocks_costs_one_refresh(
    respx_mock: respx.MockRouter, mock_exchange: MockTransport
) -> None:
    _visitors(respx_mock, mock_exchange)
    mock_exchange.configure(refresh_delay=0.05)
    grant = grants.OAuth2("https://id.example/token", http=mock_exchange.client)
    credentials = _credentials(mock_exchange.sign_in(), grant)
    mock_exchange.expire()

    async def main() -> list[int]:
        async with httpx.AsyncClient(auth=keyturn.client.httpx.Auth(credentials)) as api:
            answers = await asyncio.gather(*(api.get(f"{API}/visitors") for _ in range(50)))
            return [answer.status_code for answer in answers]

    assert asyncio.run(main()) == [200] * 50
    assert mock_exchange.stats.refreshes == 1


@pytest.mark.respx(assert_all_called=False)
def test_respx_does_not_see_the_exchange_so_that_a_route_for_it_is_never_called(
    respx_mock: respx.MockRouter, mock_exchange: MockTransport
) -> None:
    route = respx_mock.post(NOBODY).mock(return_value=httpx.Response(200, json={"access_token": "a"}))
    _visitors(respx_mock, mock_exchange)
    credentials = _credentials(mock_exchange.sign_in(), grants.OAuth2(NOBODY))
    mock_exchange.expire()

    auth = keyturn.client.httpx.Auth(credentials)
    with httpx.Client(auth=auth) as api, pytest.raises(keyturn.RefreshUnavailable):
        api.get(f"{API}/visitors")
    assert not route.called


def test_respx_lets_the_exchange_through_to_a_strict_server(
    respx_mock: respx.MockRouter, strict_server: StrictServer
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200 if strict_server.accepts(request.headers["Authorization"]) else 401)

    respx_mock.get(f"{API}/visitors").mock(side_effect=answer)
    credentials = _credentials(strict_server.sign_in(), grants.OAuth2(strict_server.url + "/token"))
    strict_server.expire()

    with httpx.Client(auth=keyturn.client.httpx.Auth(credentials)) as api:
        assert api.get(f"{API}/visitors").status_code == 200
    assert strict_server.stats.refreshes == 1


def _mock_visitors(api: responses.RequestsMock, mock: MockTransport) -> None:
    def answer(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        return (200 if mock.accepts(request.headers.get("Authorization")) else 401), {}, ""

    api.add_callback(responses.GET, f"{API}/visitors", callback=answer)


def test_a_storm_of_threads_on_an_api_that_responses_mocks_costs_one_refresh(
    mock_exchange: MockTransport,
) -> None:
    mock_exchange.configure(refresh_delay=0.05)
    grant = grants.OAuth2("https://id.example/token", http=mock_exchange.client)
    credentials = _credentials(mock_exchange.sign_in(), grant)
    mock_exchange.expire()

    def call(_: int) -> int:
        with requests.Session() as session:
            session.auth = keyturn.client.requests.Auth(credentials)
            return session.get(f"{API}/visitors").status_code

    with responses.RequestsMock() as api:
        _mock_visitors(api, mock_exchange)
        assert in_threads(20, call) == [200] * 20
    assert mock_exchange.stats.refreshes == 1


def test_responses_does_not_see_the_exchange_so_that_an_answer_for_it_is_never_given(
    mock_exchange: MockTransport,
) -> None:
    credentials = _credentials(mock_exchange.sign_in(), grants.OAuth2(NOBODY))
    mock_exchange.expire()

    with responses.RequestsMock(assert_all_requests_are_fired=False) as api, requests.Session() as session:
        exchange = api.post(NOBODY, json={"access_token": "a"})
        _mock_visitors(api, mock_exchange)
        session.auth = keyturn.client.requests.Auth(credentials)
        with pytest.raises(keyturn.RefreshUnavailable):
            session.get(f"{API}/visitors")
        assert exchange.call_count == 0


@pytest.mark.parametrize("status", [400, 401])
def test_a_session_that_is_over_is_told_beside_them_too(
    respx_mock: respx.MockRouter, mock_exchange: MockTransport, status: int
) -> None:
    _visitors(respx_mock, mock_exchange)
    grant = grants.OAuth2("https://id.example/token", http=mock_exchange.client)
    credentials = _credentials(mock_exchange.sign_in(), grant)
    mock_exchange.expire()
    mock_exchange.fail_refresh(status, body={"error": "invalid_grant"})

    with httpx.Client(auth=keyturn.client.httpx.Auth(credentials)) as api:
        for _ in range(2):
            with pytest.raises(keyturn.SessionEnded):
                api.get(f"{API}/visitors")
    assert mock_exchange.stats.refreshes == 1

"""Scenario 12: flask-jwt-extended in its headers mode; the refresh token is a bearer token, too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx2
import pytest

import keyturn
from keyturn.client import grants
from keyturn.client.httpx2 import Auth
from tests.kit import run_in_loop

from .service import Service
from .ways import TLS

CALLS = 20


@pytest.fixture(scope="module")
def process() -> Iterator[Service]:
    with Service("jwt_extended_headers") as service:
        yield service


@pytest.fixture
def service(process: Service) -> Service:
    process.reset()
    return process


def grant_for(service: Service) -> grants.BearerRefresh:
    return grants.BearerRefresh(
        service.url + "/token/refresh", rotates=False, revoke_url=service.url + "/auth/logout"
    )


def credentials_for(service: Service, *, expired: bool = True) -> keyturn.Credentials:
    """Return the credentials of somebody who has just logged in, with an access token that has expired."""
    grant = grant_for(service)
    with httpx2.Client(verify=TLS, trust_env=False) as browser:
        login = browser.post(service.url + "/login", params={"expired": "1"} if expired else {})
    return keyturn.Credentials(grant, tokens=grant.read(login), origins=[service.url])


def test_calls_that_are_refused_together_cost_one_refresh_and_keep_the_refresh_token(
    service: Service,
) -> None:
    credentials = credentials_for(service)
    before = credentials.tokens
    service.hold(CALLS)

    async def storm() -> list[int]:
        async with httpx2.AsyncClient(
            base_url=service.url, auth=Auth(credentials), verify=TLS, trust_env=False, timeout=60
        ) as api:
            answers = await asyncio.gather(*(api.get(f"/protected/{i}") for i in range(CALLS)))
        return [answer.status_code for answer in answers]

    # Nobody tells the client that the token has expired but the server: the clock of the client is slow.
    assert before is not None
    credentials.sign_in(keyturn.Tokens(before.access, before.refresh, expires_at=1e11))
    assert run_in_loop(storm) == [200] * CALLS
    (refresh,) = service.at("/token/refresh")
    assert (refresh.authorization, refresh.body) == (f"Bearer {before.refresh}", "")
    assert credentials.tokens is not None
    assert credentials.tokens.refresh == before.refresh


def test_a_refresh_token_on_the_blocklist_ends_the_session(service: Service) -> None:
    credentials = credentials_for(service)
    assert credentials.tokens is not None

    asyncio.run(grant_for(service).revoke(credentials.tokens))

    with pytest.raises(keyturn.SessionEnded):
        credentials.get_tokens()
    assert [one.status for one in service.at("/auth/logout")] == [200]
    assert [one.status for one in service.at("/token/refresh")] == [401]


def test_what_is_no_refresh_token_ends_the_session_by_the_422_of_flask_jwt_extended(service: Service) -> None:
    access = credentials_for(service, expired=False).get_tokens().access
    grant = grant_for(service)

    for wrong in (access, "a.b.c"):
        credentials = keyturn.Credentials(
            grant, tokens=keyturn.Tokens("old", wrong, expires_at=1.0), origins=[service.url]
        )
        with pytest.raises(keyturn.SessionEnded):
            credentials.get_tokens()
    assert [one.status for one in service.at("/token/refresh")] == [422, 422]

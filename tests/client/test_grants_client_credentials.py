"""ClientCredentials: a token for the client itself, asked for anew each time (RFC 6749 §4.4)."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import httpx2
import pytest

import keyturn
from keyturn.client import grants
from keyturn.testing import StrictServer

from .end_point import PAIR, URL, Server, buy, credentials_of

PLACEHOLDER = keyturn.Tokens("nothing", expires_at=0.0)


def client_credentials(server: Server, **options: object) -> grants.ClientCredentials:
    return grants.ClientCredentials(URL, client_id="app", client_secret="hush", http=server.http, **options)  # type: ignore[arg-type]


def test_it_asks_for_a_token_and_sends_nothing_of_the_tokens_that_it_is_given() -> None:
    server = Server()

    pair = buy(client_credentials(server, scope="read"), keyturn.Tokens("old-access", "old-refresh"))

    assert server.form == {"grant_type": "client_credentials", "scope": "read"}
    assert "old-" not in f"{server.request.content!r} {server.request.headers.raw}"
    assert (pair.access, pair.lifetime) == ("new-access", 60)


def test_a_refresh_token_in_the_answer_is_ignored() -> None:
    assert "refresh_token" in PAIR

    assert buy(client_credentials(Server()), PLACEHOLDER).refresh is None


def test_it_needs_no_refresh_token_and_spends_none() -> None:
    grant = client_credentials(Server())

    assert (grant.needs_refresh_token, grant.rotates, grant.replay_window) == (False, False, 0.0)


@pytest.mark.parametrize(
    "code", ["invalid_grant", "invalid_client", "unauthorized_client", "invalid_scope", "access_denied"]
)
@pytest.mark.parametrize("status", [200, 400, 401])
def test_no_answer_ends_what_nobody_could_sign_in_to_again(status: int, code: str) -> None:
    credentials = credentials_of(client_credentials(Server(status, {"error": code})), PLACEHOLDER)

    with pytest.raises(keyturn.RefreshMisconfigured) as caught:
        credentials.get_tokens()

    assert (caught.value.status, caught.value.error) == (status, code)


def test_a_request_whose_answer_was_lost_is_sent_again_since_nothing_was_spent() -> None:
    server = Server()
    lost = [httpx2.ReadError("reset"), httpx2.ReadTimeout("silence")]

    def answer(request: httpx2.Request) -> httpx2.Response:
        if lost:
            raise lost.pop()
        return server(request)

    grant = grants.ClientCredentials(
        URL,
        client_id="app",
        client_secret="hush",
        http=lambda: httpx2.AsyncClient(transport=httpx2.MockTransport(answer)),
    )
    credentials = keyturn.Credentials(
        grant, tokens=PLACEHOLDER, origins=["https://api.example"], retry_for=timedelta(seconds=30)
    )

    assert credentials.get_tokens().access == "new-access"


def test_a_real_server_issues_a_token_that_opens_its_api(strict_server: StrictServer) -> None:
    grant = grants.ClientCredentials(strict_server.url + "/token", client_id="app", client_secret="hush")

    tokens = asyncio.run(grant.exchange(PLACEHOLDER, grants.Wire()))

    with httpx2.Client() as api:
        answer = api.get(strict_server.url + "/x", headers={"Authorization": f"Bearer {tokens.access}"})
    assert answer.json()["subject"] == "app"
    assert (strict_server.stats.issued, strict_server.stats.sessions_live) == (1, 0)


def test_a_sign_out_gives_the_access_token_up(strict_server: StrictServer) -> None:
    grant = grants.ClientCredentials(
        strict_server.url + "/token",
        client_id="app",
        client_secret="hush",
        revoke_url=strict_server.url + "/revoke",
    )
    tokens = asyncio.run(grant.exchange(PLACEHOLDER, grants.Wire()))

    asyncio.run(grant.revoke(tokens))

    assert b"token_type_hint=access_token" in strict_server.seen[-1].body
    with httpx2.Client() as api:
        headers = {"Authorization": f"Bearer {tokens.access}"}
        assert api.get(strict_server.url + "/x", headers=headers).json()["reason"] == "revoked"

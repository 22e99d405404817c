"""A refusal that is overtaken by newer tokens while its response is released is no refresh of its own."""

from __future__ import annotations

import httpx2
import pytest

import keyturn
from keyturn.client import Snapshot
from keyturn.client.httpx2 import Auth
from keyturn.client.ticket import Ticket
from keyturn.testing import StrictServer
from tests.kit import credentials_for


def test_tokens_that_came_between_the_verdict_and_the_refresh_may_be_refused_as_well(
    strict_server: StrictServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = strict_server.sign_in()
    strict_server.expire()
    credentials = credentials_for(strict_server, tokens)
    ask = credentials.refusal_ticket
    came: list[bool] = []

    def overtaken(rejected: Snapshot) -> Ticket:
        if not came:
            came.append(credentials.adopt(keyturn.Tokens("refused-too", tokens.refresh), rejected))
        return ask(rejected)

    monkeypatch.setattr(credentials, "refusal_ticket", overtaken)
    with httpx2.Client(base_url=strict_server.url, auth=Auth(credentials), trust_env=False) as api:
        assert api.get("/statistics").status_code == 200

    assert came == [True]
    assert strict_server.stats.refreshes == 1
    credentials.close()

"""Signing out where the server is told: the newest tokens are revoked, and nothing undoes the sign-out."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest

import keyturn
from keyturn.client import events, grants
from keyturn.testing import Seen, StrictServer
from tests.kit import run_in_loop
from tests.waiting import WITHIN, start, until


def _credentials(
    server: StrictServer, tokens: keyturn.Tokens | None = None, **options: Any
) -> keyturn.Credentials:
    grant = grants.OAuth2(
        server.url + "/token",
        client_id="tests",
        revoke_url=server.url + "/revoke",
        timeout=options.pop("timeout", timedelta(seconds=10)),
    )
    return keyturn.Credentials(
        grant, tokens=server.sign_in() if tokens is None else tokens, origins=[server.url], **options
    )


def _revoked(server: StrictServer) -> list[str]:
    return [parse_qs(one.body.decode())["token"][0] for one in _revocations(server)]


def _revocations(server: StrictServer) -> list[Seen]:
    return [one for one in server.seen if one.path == "/revoke"]


def test_a_sign_out_revokes_the_refresh_token_at_the_server(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()
    credentials = _credentials(strict_server, tokens)

    credentials.sign_out()

    assert _revoked(strict_server) == [tokens.refresh]
    assert not strict_server.alive(tokens)
    with pytest.raises(keyturn.SessionEnded) as raised:
        credentials.get_tokens()
    assert raised.value.reason == "signed_out"


def test_a_sign_out_may_be_awaited(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()

    async def main() -> None:
        await _credentials(strict_server, tokens).asign_out()
        assert _revoked(strict_server) == [tokens.refresh]

    run_in_loop(main)


def test_without_a_revoke_url_nothing_is_sent(strict_server: StrictServer) -> None:
    grant = grants.OAuth2(strict_server.url + "/token", client_id="tests")
    credentials = keyturn.Credentials(grant, tokens=strict_server.sign_in(), origins=[strict_server.url])

    credentials.sign_out()

    assert strict_server.seen == []


def test_who_is_not_signed_in_has_nothing_to_revoke(strict_server: StrictServer) -> None:
    credentials = _credentials(strict_server)
    credentials.sign_out()
    credentials.sign_out()
    credentials.close()
    credentials.sign_out()

    assert len(_revoked(strict_server)) == 1


@pytest.mark.parametrize("stage", ["before", "after"])
def test_what_a_refresh_on_its_way_brings_is_what_is_revoked(strict_server: StrictServer, stage: Any) -> None:
    old = strict_server.sign_in(ttl=-1.0)
    credentials = _credentials(strict_server, old)
    strict_server.hold_refresh(stage)
    caller = start(lambda: credentials.get_tokens(timeout=WITHIN))
    strict_server.wait_for(WITHIN, refreshes=1)

    leaving = start(credentials.sign_out)
    with pytest.raises(keyturn.SessionEnded):  # at once, though the server has not answered yet
        caller.result(WITHIN)
    strict_server.release()
    leaving.result(WITHIN)

    (revoked,) = _revoked(strict_server)
    assert revoked != old.refresh
    assert strict_server.stats.sessions_live == 0
    assert strict_server.stats.reuses == 0


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_a_server_that_does_not_revoke_keeps_nobody_signed_in_here(
    strict_server: StrictServer, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = strict_server.sign_in()
    credentials = _credentials(strict_server, tokens, name="alice")
    strict_server.fail_revocation(status, body={"error": "unsupported_token_type"})

    with caplog.at_level(logging.WARNING, events.logger.name):
        credentials.sign_out()

    assert credentials.tokens is None
    (record,) = caplog.records
    assert "alice signed out here, but not at the server" in record.message
    assert str(tokens.refresh) not in record.message


def test_a_revocation_that_is_not_answered_is_waited_for_no_longer_than_the_grants_time_out(
    strict_server: StrictServer,
) -> None:
    credentials = _credentials(strict_server, timeout=timedelta(seconds=0.3))
    strict_server.hold_revocation()
    began = time.monotonic()

    credentials.sign_out()

    assert time.monotonic() - began < 5.0
    strict_server.release()


def test_who_cannot_wait_leaves_the_revocation_under_way(strict_server: StrictServer) -> None:
    credentials = _credentials(strict_server)
    strict_server.hold_revocation()

    credentials.sign_out(timeout=0.0)

    assert credentials.tokens is None
    strict_server.wait_for(WITHIN, revocations=1)
    strict_server.release()
    until(lambda: strict_server.stats.sessions_live == 0)


def test_a_callback_on_keyturns_thread_may_sign_out_without_waiting_for_itself(
    strict_server: StrictServer,
) -> None:
    credentials: keyturn.Credentials

    def leave(event: events.Event) -> None:
        if isinstance(event, events.Refreshed):
            credentials.sign_out()

    credentials = _credentials(strict_server, strict_server.sign_in(ttl=-1.0), on_event=leave)
    credentials.get_tokens(timeout=WITHIN)

    until(lambda: strict_server.stats.sessions_live == 0)
    assert credentials.tokens is None


def test_a_grant_that_signs_out_of_what_it_refreshes_does_not_wait_for_itself(
    strict_server: StrictServer,
) -> None:
    class Leaving(grants.OAuth2):
        async def exchange(self, tokens: keyturn.Tokens, wire: grants.Wire) -> keyturn.Tokens:
            await asyncio.wait_for(credentials.asign_out(), 5.0)
            return await super().exchange(tokens, wire)

    grant = Leaving(strict_server.url + "/token", client_id="tests", revoke_url=strict_server.url + "/revoke")
    credentials = keyturn.Credentials(
        grant, tokens=strict_server.sign_in(ttl=-1.0), origins=[strict_server.url]
    )

    with pytest.raises(keyturn.SessionEnded):
        credentials.get_tokens(timeout=WITHIN)

    until(lambda: strict_server.stats.sessions_live == 0)


def test_client_credentials_give_their_access_token_up(strict_server: StrictServer) -> None:
    grant = grants.ClientCredentials(
        strict_server.url + "/token",
        client_id="tests",
        client_secret="a secret of the tests",
        revoke_url=strict_server.url + "/revoke",
    )
    credentials = keyturn.Credentials(grant, origins=[strict_server.url])
    tokens = credentials.get_tokens(timeout=WITHIN)

    credentials.sign_out()

    assert _revoked(strict_server) == [tokens.access]

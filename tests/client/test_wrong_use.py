"""Wrong use is answered at once, by an error or a warning that says what to do."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import httpx2
import pytest

import keyturn
from keyturn.client import grants
from keyturn.client.httpx2 import Auth
from keyturn.errors import ConfigurationError
from keyturn.testing import StrictServer
from tests.kit import credentials_for

TOKENS = keyturn.Tokens("access", "refresh")
ORIGINS = ["https://api.example", "http://localhost:5000"]


def test_a_request_to_an_origin_that_is_not_named_is_warned_of_once(
    strict_server: StrictServer, caplog: pytest.LogCaptureFixture
) -> None:
    credentials = credentials_for(strict_server, origins=ORIGINS)
    with (
        caplog.at_level(logging.WARNING, "keyturn"),
        httpx2.Client(base_url=strict_server.url, auth=Auth(credentials), trust_env=False) as api,
    ):
        assert [api.get("/statistics").status_code for _ in range(3)] == [401] * 3

    assert caplog.messages == [f"keyturn: no token goes to {strict_server.url}: origins={sorted(ORIGINS)}"]


@pytest.mark.parametrize(
    "function", [lambda: TOKENS, lambda tokens: TOKENS, lambda a, b, c: TOKENS], ids=["none", "one", "three"]
)
def test_a_callable_of_another_arity_is_refused_when_the_credentials_are_made(function: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"\(tokens, http\)"):
        keyturn.Credentials(function, origins=ORIGINS)


def test_a_callable_that_takes_more_by_default_is_taken() -> None:
    def buy(tokens: keyturn.Tokens, http: object, *, scope: str = "") -> keyturn.Tokens:
        return tokens

    assert "buy" in repr(keyturn.Credentials(buy, origins=ORIGINS))


@pytest.mark.parametrize("timeout", [timedelta(seconds=1), "1", True])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(timeout: Any) -> None:
    credentials = keyturn.Credentials(grants.OAuth2("https://id.example"), tokens=TOKENS, origins=ORIGINS)

    with pytest.raises(ConfigurationError, match="seconds"):
        credentials.get_tokens(timeout=timeout)


def test_the_end_point_is_named_with_its_port_and_without_what_may_be_secret() -> None:
    grant = grants.OAuth2("http://user:word@127.0.0.1:8080/token?key=value")

    assert repr(grant) == "<OAuth2 http://127.0.0.1:8080/token>"


def test_a_failed_refresh_says_which_end_point_it_was(strict_server: StrictServer) -> None:
    strict_server.fail_refresh(403)
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=-1.0))

    with pytest.raises(keyturn.RefreshMisconfigured) as failed:
        credentials.get_tokens()

    assert failed.value.__notes__ == [f"keyturn: refreshing by <OAuth2 {strict_server.url}/token>"]


def test_a_callable_ends_the_session_by_a_session_ended_of_its_own() -> None:
    assert keyturn.SessionEnded("the account is closed").reason == "refused"

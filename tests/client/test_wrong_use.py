"""Wrong use is answered at once, by an error or a warning that says what to do."""

from __future__ import annotations

import logging
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

import keyturn
from keyturn.client import grants
from keyturn.client.httpx2 import Auth
from keyturn.errors import ConfigurationError
from keyturn.testing import StrictServer
from tests.kit import credentials_for
from tests.scenarios.callers import WAYS, Caller, Way
from tests.scenarios.http2 import Front
from tests.waiting import until

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


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_redirect_that_leaves_the_origins_and_is_refused_there_is_warned_of(
    strict_server: StrictServer, other_server: StrictServer, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    credentials = way.credentials(strict_server)
    path = f"/redirect/307?to={other_server.url}/statistics"

    with (
        caplog.at_level(logging.WARNING, "keyturn"),
        Caller(way, strict_server, credentials, redirects=True) as api,
    ):
        assert api.send("GET", path).status_code == 401

    assert [message for message in caplog.messages if "no token goes to" in message] == [
        f"keyturn: no token goes to {other_server.url}: origins={[strict_server.url]}"
    ]


async def _never_awaited(event: object) -> None:
    raise AssertionError(event)


@pytest.mark.parametrize(
    "callback", ["x", [print], logging.Handler, _never_awaited], ids=["text", "list", "class", "async"]
)
def test_a_callback_that_cannot_be_called_with_an_event_is_refused(callback: Any) -> None:
    with pytest.raises(ConfigurationError, match="on_event"):
        keyturn.Credentials(grants.OAuth2("https://id.example"), origins=ORIGINS, on_event=callback)


def test_the_class_of_a_carrier_is_no_carrier() -> None:
    carrier: Any = keyturn.client.Bearer
    with pytest.raises(ConfigurationError, match="carrier"):
        keyturn.Credentials(grants.OAuth2("https://id.example"), origins=ORIGINS, carrier=carrier)


@pytest.mark.parametrize("tokens", [lambda name: TOKENS, keyturn.Tokens, 7], ids=["arity", "class", "number"])
def test_what_cannot_load_tokens_is_refused_when_the_credentials_are_made(tokens: Any) -> None:
    with pytest.raises(ConfigurationError, match="tokens"):
        keyturn.Credentials(grants.OAuth2("https://id.example"), origins=ORIGINS, tokens=tokens)


@pytest.mark.parametrize("tokens", [lambda: TOKENS, keyturn.Tokens], ids=["arity", "class"])
def test_what_cannot_load_tokens_by_name_is_refused_when_the_pool_is_made(tokens: Any) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        keyturn.CredentialsPool(grants.OAuth2("https://id.example"), origins=ORIGINS, tokens=tokens)


def test_a_pool_is_not_for_iterating() -> None:
    pool: Any = keyturn.CredentialsPool(grants.OAuth2("https://id.example"), origins=ORIGINS)
    with pytest.raises(TypeError):
        list(pool)
    with pytest.raises(TypeError):
        assert "alice" in pool


@pytest.mark.parametrize(
    "error", [KeyError("refresh-7"), AttributeError("refresh-7")], ids=["key", "attribute"]
)
def test_a_mistake_in_what_loads_tokens_is_told_at_once(error: Exception) -> None:
    def load() -> keyturn.Tokens:
        raise error

    credentials = keyturn.Credentials(grants.OAuth2("https://id.example"), tokens=load, origins=ORIGINS)
    with pytest.raises(
        keyturn.RefreshMisconfigured, match=f"tokens= fails: {type(error).__name__} at"
    ) as raised:
        credentials.get_tokens(timeout=30.0)
    assert __file__ in str(raised.value)
    assert "refresh-7" not in str(raised.value)


@pytest.mark.parametrize("body", [{"access_token": "a"}, b"{}", None], ids=["dict", "bytes", "none"])
def test_read_takes_the_response_not_its_body(body: Any) -> None:
    with pytest.raises(ConfigurationError, match="read takes a response"):
        grants.OAuth2("https://id.example").read(body)


def test_a_factory_of_the_wrong_client_is_told(strict_server: StrictServer) -> None:
    wrong: Any = httpx2.Client
    grant = grants.OAuth2(strict_server.url + "/token", http=wrong)

    with pytest.raises(keyturn.RefreshMisconfigured, match="AsyncClient, not Client"):
        keyturn.Credentials(grant, tokens=strict_server.sign_in(ttl=-1.0), origins=ORIGINS).get_tokens()


def test_a_factory_that_makes_one_client_for_all_is_told(strict_server: StrictServer) -> None:
    shared = httpx2.AsyncClient(trust_env=False)
    grant = grants.OAuth2(strict_server.url + "/token", http=lambda: shared)
    credentials = keyturn.Credentials(grant, tokens=strict_server.sign_in(ttl=-1.0), origins=ORIGINS)
    current = credentials.get_tokens()

    with pytest.raises(keyturn.RefreshMisconfigured, match="new client each time"):
        credentials.renew(current)


def test_an_end_point_that_is_not_there_is_named_with_the_cause(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:  # and nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/token"
        credentials = keyturn.Credentials(
            grants.OAuth2(url),
            tokens=keyturn.Tokens("a", "b", expires_at=1.0),
            origins=ORIGINS,
            retry_for=timedelta(0),
        )
        with (
            caplog.at_level(logging.WARNING, "keyturn"),
            pytest.raises(keyturn.RefreshUnavailable, match="ConnectionRefusedError") as raised,
        ):
            credentials.get_tokens()

    assert url in raised.value.__notes__[0]
    until(lambda: any(url in message for message in caplog.messages))


def test_a_certificate_that_nobody_vouches_for_is_not_tried_again(tmp_path: Path) -> None:
    with Front("http://127.0.0.1:9", tmp_path) as front:
        credentials = keyturn.Credentials(
            grants.OAuth2(front.url + "/token"),
            tokens=keyturn.Tokens("a", "b", expires_at=1.0),
            origins=ORIGINS,
        )
        with pytest.raises(keyturn.RefreshMisconfigured, match="certificate is not trusted"):
            credentials.get_tokens()


def test_an_unknown_outcome_says_what_the_ways_out_are(strict_server: StrictServer) -> None:
    strict_server.fail_refresh(502)
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=-1.0))

    for _ in range(2):
        with pytest.raises(keyturn.OutcomeUnknown, match=r"\(502\); .* sign in, or retry_unknown\(\)"):
            credentials.get_tokens()

    assert strict_server.stats.refreshes == 1

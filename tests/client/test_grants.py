"""What all grants have in common: arguments that cannot work, what they show, what none of them does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest

import keyturn
from keyturn.client import Bearer, Carrier, grants

from .end_point import URL, Server, buy

# Arguments that cannot work


def _call(tokens: keyturn.Tokens, http: httpx2.Client) -> keyturn.Tokens:
    return tokens


WRONG: list[tuple[str, Callable[[], object]]] = [
    ("full URL", lambda: grants.OAuth2("/token")),
    ("full URL", lambda: grants.OAuth2("ftp://id.example/token")),
    ("URL", lambda: grants.OAuth2(None)),  # type: ignore[arg-type]
    ("full URL", lambda: grants.Cookies("https://")),
    ("client_id", lambda: grants.OAuth2(URL, client_secret="s")),
    ("timedelta", lambda: grants.OAuth2(URL, timeout=5)),  # type: ignore[arg-type]
    ("timedelta", lambda: grants.JSON(URL, replay_window=10)),  # type: ignore[arg-type]
    ("timeout", lambda: grants.Cookies(URL, timeout=timedelta(0))),
    ("replay_window", lambda: grants.OAuth2(URL, replay_window=timedelta(seconds=-1))),
    ("CookieNames", lambda: grants.Cookies(URL, names={"access": "a"})),  # type: ignore[arg-type]
    ("access", lambda: grants.JSON(URL, receive={"refresh": "r"})),
    ("acess", lambda: grants.JSON(URL, receive={"acess": "a"})),
    ("receive", lambda: grants.JSON(URL, receive=["access"])),  # type: ignore[arg-type]
    ("receive", lambda: grants.JSON(URL, receive="access")),  # type: ignore[arg-type]
    ("access", lambda: grants.JSON(URL, receive={"access": None})),  # type: ignore[dict-item]
    ("send", lambda: grants.JSON(URL, send=7)),  # type: ignore[arg-type]
    ("ended", lambda: grants.JSON(URL, ended=True)),  # type: ignore[arg-type]
    ("http", lambda: grants.OAuth2(URL, http=httpx2.AsyncClient())),  # type: ignore[arg-type]
    ("http", lambda: grants.Call(_call, http="proxy")),  # type: ignore[arg-type]
    ("sync_http", lambda: grants.Call(_call, sync_http="proxy")),  # type: ignore[arg-type]
    ("callable", lambda: grants.Call(7)),  # type: ignore[arg-type]
    ("callable", lambda: keyturn.Credentials("https://id.example", origins=["https://api.example"])),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(
    ("says", "make"), [pytest.param(*one, id=f"{i}-{one[0]}") for i, one in enumerate(WRONG)]
)
def test_an_argument_that_cannot_work_is_refused_at_once_and_named(
    says: str, make: Callable[[], object]
) -> None:
    with pytest.raises(keyturn.ConfigurationError, match=says):
        make()


@pytest.mark.parametrize(
    "grant",
    [grants.OAuth2(URL, client_id="c", client_secret="hush"), grants.JSON(URL), grants.Cookies(URL)],
    ids=repr,
)
def test_a_grant_shows_its_end_point_and_no_secret(grant: grants.OAuth2) -> None:
    assert repr(grant) == f"<{type(grant).__name__} {URL}>"


def test_a_time_out_lies_below_the_window_so_that_a_retry_still_falls_into_it() -> None:
    assert grants.OAuth2(URL, replay_window=timedelta(seconds=10)).timeout == 5.0
    assert grants.OAuth2(URL, replay_window=timedelta(seconds=60)).timeout == 10.0


class _Own:
    """A grant of the user's own that returns what its server sent."""

    rotates, replay_window, timeout, needs_refresh_token = True, 0.0, 5.0, True
    carrier: Carrier = Bearer()

    async def exchange(self, tokens: keyturn.Tokens, wire: grants.Wire) -> Any:
        wire.sent = True
        return {"access_token": "new-access"}


def test_a_grant_of_one_s_own_that_returns_no_tokens_is_told_so_and_nothing_of_it_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(keyturn.RefreshError, match=r"keyturn.Tokens, not dict"):
        buy(_Own())
    assert "new-access" not in caplog.text


# Requests that are not sent, and answers that mean the same to all


def test_a_refresh_that_cannot_be_built_was_not_sent_and_leaves_nothing_unknown() -> None:
    def broken(*_: object) -> Any:
        raise ZeroDivisionError

    for grant in (
        grants.JSON("https://id.example/refresh", send=broken),
        grants.OAuth2("https://id.example/token", http=broken),
    ):
        with pytest.raises(keyturn.RefreshMisconfigured, match="could not be prepared: ZeroDivisionError"):
            buy(grant)


@pytest.mark.parametrize("status", [429, 503])
def test_an_overloaded_end_point_ends_no_session_whatever_its_body_says(status: int) -> None:
    server = Server(status, {"error": "invalid_grant"})

    with pytest.raises(keyturn.RefreshUnavailable):
        buy(grants.OAuth2("https://id.example/token", http=server.http))


@pytest.mark.parametrize("make", [grants.OAuth2, grants.JSON, grants.Cookies])
def test_without_a_refresh_token_there_is_no_request(make: Any) -> None:
    server = Server()

    with pytest.raises(keyturn.NotSignedIn) as caught:
        buy(make(URL, http=server.http), keyturn.Tokens("old-access"))

    assert not isinstance(caught.value, keyturn.SessionEnded)
    assert not server.requests

"""RFC 6749 §5.2 as evidence: what a server says of an error is kept, and nothing that was sent is in it."""

from __future__ import annotations

import json
import pickle
import re
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import keyturn
from keyturn.client import grants
from keyturn.client.grants.reply import Reply
from keyturn.testing import StrictServer

from .end_point import URL, Server, buy, credentials_of

ACCESS = "acc.R7tKq2Vw9ZpXb4Nd6Hs8Jf3Lm"
REFRESH = "ref~W3nYc8Qs5VtGk7Rz2Bx9Dp4Fh"
CSRF = "csrf-r-L9hWn5Jc3KfVa8Gt2Zo7Ri"
SECRET = "hush/Q4yB+w7D=xN2m%9KtE6s"
OLD = keyturn.Tokens(ACCESS, REFRESH, extra={"csrf_refresh_token": CSRF})
PAGE = "https://id.example/errors#1"
SAID = {"error": "invalid_client", "error_description": "no such client", "error_uri": PAGE}


def refused(grant: grants.Grant) -> keyturn.RefreshMisconfigured | keyturn.SessionEnded:
    try:
        buy(grant, OLD)
    except (keyturn.RefreshMisconfigured, keyturn.SessionEnded) as error:
        return error
    pytest.fail("this was not refused")


def oauth2(server: Server, **options: Any) -> grants.OAuth2:
    return grants.OAuth2(URL, client_id="app", client_secret=SECRET, http=server.http, **options)


def description(text: object, grant: Any = oauth2, **options: Any) -> str | None:
    body = {"error": "invalid_client", "error_description": text}
    return refused(grant(Server(400, body), **options)).error_description


@pytest.mark.parametrize("status", [200, 400, 401])
def test_what_the_server_says_of_a_misconfiguration_is_on_the_error(status: int) -> None:
    error = refused(oauth2(Server(status, SAID)))

    assert isinstance(error, keyturn.RefreshMisconfigured)
    assert (error.status, error.error) == (status, "invalid_client")
    assert (error.error_description, error.error_uri) == ("no such client", PAGE)


@pytest.mark.parametrize("status", [200, 400])
def test_what_the_server_says_of_the_end_is_on_the_error_of_everyone_who_hears_of_it(status: int) -> None:
    credentials = credentials_of(oauth2(Server(status, SAID | {"error": "invalid_grant"})), OLD)

    errors = []
    for _ in range(2):
        with pytest.raises(keyturn.SessionEnded) as caught:
            credentials.renew(credentials.tokens) if credentials.tokens else credentials.get_tokens()
        errors.append(caught.value)

    for error in [*errors, pickle.loads(pickle.dumps(errors[0]))]:  # noqa: S301 - our own
        assert (error.reason, error.error) == ("refused", "invalid_grant")
        assert (error.error_description, error.error_uri) == ("no such client", PAGE)


def test_a_description_stands_in_no_message_and_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    error = refused(oauth2(Server(400, SAID)))

    assert "no such client" not in f"{error} {error!r} {getattr(error, '__notes__', '')}"
    assert "no such client" not in caplog.text
    assert PAGE not in f"{error} {caplog.text}"


def test_an_error_without_a_body_has_none_of_it() -> None:
    error = refused(oauth2(Server(403, b"<html>")))

    assert (error.error, error.error_description, error.error_uri) == (None, None, None)


def test_a_real_server_s_words_arrive(strict_server: StrictServer) -> None:
    grant = grants.OAuth2(strict_server.url + "/token", client_id="app")
    tokens = strict_server.sign_in()
    strict_server.revoke()

    with pytest.raises(keyturn.SessionEnded) as caught:
        buy(grant, tokens)

    assert caught.value.error_description == "this refresh token opens nothing: revoked"
    assert caught.value.error_uri == "https://www.rfc-editor.org/rfc/rfc6749#section-5.2"


# What is kept of a description


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("AADSTS70008: it has expired.\r\nTrace ID: 1", "AADSTS70008: it has expired. Trace ID: 1"),
        ('the grant "x" is \\ wrong', "the grant  x  is   wrong"),
        ("schl\u00fcssel", "schl ssel"),
        ("\u4e2d\u6587", None),
        ("", None),
        ("   ", None),
        ("x" * 600, "x" * 512),
        ("x" * 5000, None),
        (None, None),
        (["a", "list"], None),
        (7, None),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_description_is_kept_in_the_characters_of_rfc_6749_5_2_and_no_longer_than_512(
    said: object, kept: str | None
) -> None:
    assert description(said) == kept


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("https://id.example/errors?e=1#a", True),
        ("http://id.example/", True),
        ("javascript:alert(1)", False),
        ("/errors", False),
        ("https://id.example/a b", False),
        ('https://id.example/"', False),
        ("https://id.example/\u00e9", False),
        (f"https://id.example/{'x' * 600}", False),
        (f"https://id.example/?token={REFRESH}", False),
        (7, False),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_an_error_uri_is_kept_where_a_browser_may_be_pointed_to_it(said: object, kept: bool) -> None:
    error = refused(oauth2(Server(400, {"error": "invalid_client", "error_uri": said})))

    assert error.error_uri == (said if kept else None)


# Whatever quotes a secret is not kept


@pytest.mark.parametrize(
    "quoted",
    [
        REFRESH,
        ACCESS,
        CSRF,
        SECRET,
        quote(SECRET, safe=""),
        quote(CSRF[:20], safe="").replace("-", "%2D"),
        REFRESH.upper(),
        REFRESH[:15] + "...",
        REFRESH[-13:],
        "YXBwOmh1c2glMkZRNHlCJTJCdzdEJTNEeE4ybSUyNTlLdEU2cw==",
    ],
)
def test_a_description_that_quotes_what_was_sent_is_not_kept(quoted: str) -> None:
    assert description(f"the credential {quoted} is not known here") is None
    assert description(f"the credential (it is '{quoted}')") is None


def test_the_same_holds_for_a_secret_in_the_form_for_params_and_for_an_assertion() -> None:
    assert description(f"no: {SECRET}", client_auth="client_secret_post") is None
    assert description("no: pin 12", params={"pin": "12"}) is None
    assert description("no: pin 13", params={"pin": "12"}) == "no: pin 13"


@pytest.mark.parametrize("make", [grants.JSON, grants.BearerRefresh, grants.Cookies])
def test_the_same_holds_for_a_house(make: Any) -> None:
    for text, kept in ((f"no: {REFRESH}", None), (f"no: {CSRF}", None), ("no", "no")):
        assert description(text, lambda server: make(URL, http=server.http)) == kept


def test_where_nobody_can_tell_what_was_sent_only_the_code_is_kept() -> None:
    async def call(tokens: keyturn.Tokens, http: Any) -> keyturn.Tokens:
        (await http.post(URL, json={"key": "an API key of somebody's"})).raise_for_status()
        return tokens

    server = Server(400, SAID)
    for grant in (
        grants.Call(call, http=server.http),
        grants.JSON(URL, send=lambda tokens: {"key": "an API key of somebody's"}, http=server.http),
    ):
        error = refused(grant)
        assert (error.error, error.error_description, error.error_uri) == ("invalid_client", None, None)


def test_a_token_that_stands_in_place_of_the_code_is_not_kept_either() -> None:
    words = keyturn.Tokens("only-words-and-hyphens", "another-of-words-only")

    with pytest.raises(keyturn.RefreshMisconfigured) as caught:
        buy(oauth2(Server(400, {"error": "another-of-words-only"})), words)

    assert caught.value.error is None
    assert "another" not in str(caught.value)


TEXT = st.text(st.characters(max_codepoint=0x2FF), max_size=60)
TOKEN = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)


def evidence(said: object, *secrets: str) -> Any:
    body = json.dumps({"error": "invalid_client", "error_description": said, "error_uri": said}).encode()
    return Reply(400, {}, 0.0, (), body, secrets=secrets).evidence()


@settings(deadline=None, max_examples=300)
@given(before=TEXT, token=TOKEN, after=TEXT, encoded=st.booleans())
@example(before="", token="%41", after="", encoded=False)
@example(before="%", token="41", after="", encoded=False)
def test_whatever_stands_around_a_secret_it_is_never_kept(
    before: str, token: str, after: str, encoded: bool
) -> None:
    said = before + (quote(token, safe="") if encoded else token) + after

    kept = evidence(said, token)

    assert kept["error_description"] is None
    assert kept["error_uri"] is None


@settings(deadline=None, max_examples=300)
@given(said=TEXT | st.text(max_size=600), token=TOKEN)
def test_whatever_is_said_what_is_kept_is_printable_bounded_and_free_of_secrets(
    said: str, token: str
) -> None:
    kept = evidence(said, token)["error_description"]

    if kept is not None:
        assert re.fullmatch(r"[\x20\x21\x23-\x5b\x5d-\x7e]{1,512}", kept)
        assert token.lower() not in kept.lower()
        assert not any(token[at : at + 12] in kept for at in range(len(token) - 11))

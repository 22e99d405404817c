"""Whatever somebody sends: a named error with a 4xx, never a 500, and no store is touched for a forgery."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Sequence

import flask
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder, TestResponse, run_wsgi_app

from keyturn import errors
from keyturn.server import Bearer, Cookies, Issuer
from keyturn.server.access_tokens import AccessTokens
from keyturn.server.bodies import LARGEST, fields
from keyturn.server.keys import Keys
from keyturn.server.messages import Request
from keyturn.server.refresh_tokens import RefreshTokens
from keyturn.server.session import EndedWhy, Session

from .conftest import SECRET
from .web import application

SID = "AAAAAAAAAAAAAAAAAAAAAA"
NAMED = {
    "token_missing",
    "token_malformed",
    "token_forged",
    "token_expired",
    "csrf_refused",
    "invalid_request",
}  # fmt: skip


class Untouchable:
    """A store that fails the test when anything of it is used."""

    def _fail(self) -> AssertionError:
        return AssertionError("the session store was touched")

    def now(self) -> float:
        raise self._fail()

    def create(self, session: Session) -> None:
        raise self._fail()

    def get(self, sid: str) -> Session | None:
        raise self._fail()

    def advance(self, sid: str, *, read: int, to: int) -> bool:
        raise self._fail()

    def end(self, sid: str, why: EndedWhy) -> bool:
        raise self._fail()

    def end_all(self, subject: str, why: EndedWhy) -> Sequence[Session]:
        raise self._fail()

    def list(self, subject: str) -> Sequence[Session]:
        raise self._fail()

    def mark_seen(self, sid: str, generation: int) -> None:
        raise self._fail()

    def purge(self) -> int:
        raise self._fail()

    def close(self) -> None:
        raise self._fail()


ISSUER = Issuer(secret=SECRET, store=Untouchable())
BEARER = application(ISSUER, Bearer(), live=True)
COOKIES = application(ISSUER, Cookies(secure=False), live=True)

KEYS = Keys(SECRET, issuer="keyturn")
REFRESH = RefreshTokens(KEYS, issuer="keyturn").make(SID, 7)
ACCESS = AccessTokens(KEYS, issuer="keyturn", audience="keyturn").make(
    Session(sid=SID, subject="alice", started_at=0, expires_at=1),
    issued_at=int(time.time()),
    expires_at=int(time.time()) + 3600,
)
OTHER_KEYS = Keys("another secret, which is as long as it must be", issuer="keyturn")
FORGED_REFRESH = RefreshTokens(OTHER_KEYS, issuer="keyturn").make(SID, 7)
FORGED_SAME_KID = ".".join([*REFRESH.split(".")[:4], FORGED_REFRESH.split(".")[4]])


def changed(token: str) -> st.SearchStrategy[str]:
    """Tokens that are almost `token`: cut, doubled, re-encoded, with a part or a character exchanged."""
    parts = token.split(".")
    near = st.one_of(
        st.integers(0, len(token) - 1).map(lambda n: token[:n]),
        st.integers(1, len(token)).map(lambda n: token[n:]),
        st.integers(1, 300).map(lambda n: token + "A" * n),
        st.sampled_from(
            [token + "=", token + ".", "." + token, token.swapcase(), token * 2, token.replace(".", "..")]
        ),
        st.sampled_from(
            [token + "\n", token + "\0", "\0" + token, " ".join(token), token.replace(".", "%2E")]
        ),
        st.sampled_from(
            [base64.urlsafe_b64encode(token.encode()).decode(), token.encode().hex(), json.dumps(token)]
        ),
        st.permutations(parts).map(".".join),
        st.tuples(st.integers(0, len(parts) - 1), st.text(max_size=60)).map(
            lambda change: ".".join([*parts[: change[0]], change[1], *parts[change[0] + 1 :]])
        ),
        st.tuples(st.integers(0, len(token) - 1), st.characters()).map(
            lambda change: token[: change[0]] + change[1] + token[change[0] + 1 :]
        ),
    )
    return near.filter(lambda near: near.strip() != token)


anything = st.one_of(
    st.text(max_size=200),
    changed(REFRESH),
    changed(ACCESS),
    st.sampled_from([FORGED_REFRESH, FORGED_SAME_KID, "A" * 100_000, "." * 10_000, "\ud800", "\0"]),
)
many = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


def named(response: TestResponse) -> str:
    assert 400 <= response.status_code < 500, response.text
    assert response.json is not None
    assert set(response.json) == {"error", "code", "error_description"}
    code = response.json["code"]
    assert code in NAMED, code
    assert response.headers["Cache-Control"] == "no-store"
    return str(code)


def sent(app: flask.Flask, method: str, path: str, body: bytes = b"", **headers: str) -> TestResponse:
    """Send it as a server would hand it over: header values are any latin-1 text without line ends."""
    builder = EnvironBuilder(path=path, method=method, input_stream=io.BytesIO(body))
    environ = builder.get_environ()
    environ["CONTENT_LENGTH"] = str(len(body))
    for name, value in headers.items():
        key = name.upper() if name == "content_type" else f"HTTP_{name.upper()}"
        environ[key] = (
            value.encode("latin-1", "replace").decode("latin-1").replace("\r", "").replace("\n", "")
        )
    result = run_wsgi_app(app.wsgi_app, environ, buffered=True)
    return TestResponse(*result, request=builder.get_request())


@many
@given(token=anything)
def test_any_refresh_token_that_was_not_made_here_is_refused_untouched(token: str) -> None:
    for raises in (ISSUER.refresh, ISSUER.sign_out_token):
        with pytest.raises((errors.TokenMalformed, errors.TokenForged)):
            raises(token)


@many
@given(token=anything)
def test_any_access_token_that_was_not_made_here_is_refused_untouched(token: str) -> None:
    with pytest.raises((errors.TokenMalformed, errors.TokenForged)):
        ISSUER.verify(token, live=True)


@many
@given(token=anything)
def test_any_token_in_a_body_is_answered_by_name(token: str) -> None:
    body = json.dumps({"refresh_token": token}).encode()
    assert named(sent(BEARER, "POST", "/auth/refresh", body, content_type="application/json")) in {
        "token_missing",
        "token_malformed",
        "token_forged",
        "invalid_request",
    }


@many
@given(token=anything, scheme=st.sampled_from(["Bearer ", "bearer  ", "Bearer\t", "Basic ", ""]))
def test_any_authorization_header_is_answered_by_name(token: str, scheme: str) -> None:
    named(sent(BEARER, "GET", "/me", authorization=scheme + token))


@many
@given(token=anything, value=st.text(max_size=60) | st.just(""), guessed=st.booleans())
def test_any_cookie_with_any_double_submit_value_is_answered_by_name(
    token: str, value: str, guessed: bool
) -> None:
    """Even with the value that goes with the forged cookie, which nobody outside can make."""
    token = token.encode("latin-1", "replace").decode("latin-1")
    value = ISSUER.csrf.value(token) if guessed else value
    named(sent(COOKIES, "POST", "/auth/refresh", cookie=f"refresh_token_cookie={token}", x_csrf_token=value))
    named(sent(COOKIES, "POST", "/me", cookie=f"access_token_cookie={token}", x_csrf_token=value))
    named(sent(COOKIES, "GET", "/me", cookie=f"access_token_cookie={token}"))


@many
@given(header=st.text(max_size=300))
def test_any_cookie_header_is_answered_by_name(header: str) -> None:
    named(sent(COOKIES, "GET", "/me", cookie=header))
    named(sent(COOKIES, "POST", "/auth/refresh", cookie=header))


TYPES = st.sampled_from(
    [
        "application/json", "application/x-www-form-urlencoded", "application/vnd.api+json", "text/plain", "",
        "multipart/form-data; boundary=x", "application/json; charset=utf-16", "application/json;;;", "é",
    ]
)  # fmt: skip
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=15), inner, max_size=3),
    max_leaves=10,
)


@many
@given(
    body=st.one_of(
        st.binary(max_size=300),
        json_values.map(lambda value: json.dumps(value).encode()),
        json_values.map(lambda value: json.dumps({"refresh_token": value}).encode()),
        st.sampled_from(["utf-16", "utf-32", "utf-8-sig", "latin-1"]).map(
            lambda encoding: json.dumps({"refresh_token": "é" + REFRESH}, ensure_ascii=False).encode(encoding)
        ),
    ),
    content_type=TYPES,
)
def test_any_body_is_answered_by_name(body: bytes, content_type: str) -> None:
    named(sent(BEARER, "POST", "/auth/refresh", body, content_type=content_type))


BODIES = {
    "nothing": b"",
    "a nul": b"\0",
    "a nul in the token": b'{"refresh_token": "kt1\\u0000"}',
    "no json": b"refresh_token",
    "half of it": b'{"refresh_token": "kt1',
    "a list": b'["refresh_token"]',
    "a string": b'"refresh_token"',
    "a number": b"7",
    "null": b"null",
    "a number as token": b'{"refresh_token": 7}',
    "a list as token": b'{"refresh_token": ["kt1"]}',
    "null as token": b'{"refresh_token": null}',
    "an empty token": b'{"refresh_token": ""}',
    "a token twice": b'{"refresh_token": "a", "refresh_token": "b"}',
    "NaN": b'{"refresh_token": NaN}',
    "Infinity": b'{"x": Infinity}',
    "a huge number": b'{"refresh_token": ' + b"9" * 5000 + b"}",
    "a huge exponent": b'{"refresh_token": 1e99999}',
    "nested lists": b"[" * 4000 + b"]" * 4000,
    "open lists": b"[" * 8000,
    "nested objects": b'{"a":' * 1300 + b"1" + b"}" * 1300,
    "no utf-8": b'{"refresh_token": "\xff\xfe"}',
    "a lone surrogate": b'{"refresh_token": "\\ud800"}',
    "too large": b'{"refresh_token": "' + b"A" * LARGEST + b'"}',
    "far too large": b"A" * 3_000_000,
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize("path", ["/auth/refresh", "/auth/logout"])
def test_a_broken_body_is_answered_by_name(name: str, kind: str, path: str) -> None:
    response = sent(BEARER, "POST", path, BODIES[name], content_type=kind)
    if path == "/auth/logout" and response.status_code == 200:
        # A token that opens nothing is no error of a sign-out (RFC 7009 §2.2).
        assert opens_nothing(fields(Request("POST", (("Content-Type", kind),), BODIES[name])))
    else:
        named(response)


def opens_nothing(body: object) -> bool:
    assert isinstance(body, dict)
    with pytest.raises(errors.TokenMalformed):
        ISSUER.sign_out_token(body["refresh_token"])
    return True


@pytest.mark.parametrize(
    "form",
    [
        b"refresh_token=a&refresh_token=b",
        b"grant_type=password&refresh_token=a",
        b"grant_type=refresh_token&grant_type=refresh_token&refresh_token=a",
        b"refresh_token=%FF",
        b"refresh_token",
        b"&&&",
        b"&".join(b"f%d=1" % n for n in range(1000)),
        b"client_id=a&client_id=b&refresh_token=x",
    ],
    ids=range(8),
)
def test_a_broken_form_is_answered_by_name(form: bytes) -> None:
    kind = "application/x-www-form-urlencoded"
    assert named(sent(BEARER, "POST", "/auth/refresh", form, content_type=kind)) == "invalid_request"


def test_a_body_that_does_not_say_how_long_it_is_is_read_no_further_than_it_may_be() -> None:
    given = 0

    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            nonlocal given
            assert size >= 0, "it would have been read to its end"
            given += size
            return b"A" * size

    builder = EnvironBuilder(path="/auth/refresh", method="POST")
    environ = builder.get_environ()
    environ.pop("CONTENT_LENGTH", None)
    environ |= {
        "wsgi.input": Endless(),
        "wsgi.input_terminated": True,
        "HTTP_TRANSFER_ENCODING": "chunked",
        "CONTENT_TYPE": "application/json",
    }
    result = run_wsgi_app(BEARER.wsgi_app, environ, buffered=True)
    assert named(TestResponse(*result, request=builder.get_request())) == "invalid_request"
    assert given < 10 * LARGEST


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "99999999999999999999", "9" * 5000, ""])
def test_a_content_length_that_is_none_is_answered_by_name(length: str) -> None:
    builder = EnvironBuilder(path="/auth/refresh", method="POST", input_stream=io.BytesIO(b"{}"))
    environ = builder.get_environ() | {"CONTENT_LENGTH": length, "CONTENT_TYPE": "application/json"}
    result = run_wsgi_app(BEARER.wsgi_app, environ, buffered=True)
    named(TestResponse(*result, request=builder.get_request()))


def test_a_genuine_token_does_reach_the_store() -> None:
    """Else the tests above would show nothing."""
    for use in (
        lambda: ISSUER.refresh(REFRESH),
        lambda: ISSUER.verify(ACCESS, live=True),
        lambda: sent(BEARER, "GET", "/me", authorization=f"Bearer {ACCESS}"),
    ):
        try:
            response = use()
        except AssertionError as error:
            assert "touched" in str(error)  # noqa: PT017
        else:
            assert isinstance(response, TestResponse)
            assert response.status_code == 500


def test_an_answer_never_quotes_what_was_sent(client: FlaskClient) -> None:
    marker = "kt1.marker-that-must-not-come-back"
    for body in (
        {"refresh_token": marker},
        {"refresh_token": marker, "grant_type": marker},
        {marker: marker},
        {"refresh_token": [marker]},
    ):
        assert "marker" not in client.post("/auth/refresh", json=body).text
    assert "marker" not in client.get("/me", headers={"Authorization": f"Bearer {marker}"}).text
    assert "marker" not in client.get("/me", headers={"Authorization": marker}).text


@pytest.fixture
def client() -> FlaskClient:
    return BEARER.test_client()

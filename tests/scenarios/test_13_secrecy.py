"""Scenario 13, the client: no token, secret or CSRF value in anything that keyturn writes.

A tour of the client, on real sockets and against answers made to leak, with
an ear at everything that makes text of it: every logger named keyturn* at
DEBUG with all that its records hold, warnings, stdout and stderr, rendered
tracebacks with their causes and contexts, and repr, str, format and vars of
every object. What it must not hear is any secret: whole, a piece of it,
in base64, percent-encoded or in hex.

Outside keyturn's reach, each one checked:

- The HTTP libraries' own logs. httpcore2 and httpcore log the headers of
  responses at DEBUG, `Set-Cookie` included, and httpx2 and httpx log URLs at
  INFO, with a password where somebody wrote one into the URL (the last test
  here shows the first). Keep those loggers above DEBUG.
- The attributes of `Tokens` themselves, and what is made of them on purpose:
  a pickle, `tokens.access` in an f-string, pytest's comparison of two pairs.
- Local variables, where a debugger or an error tracker prints them.
- The texts of a user's own exceptions where he raises a `keyturn` error with
  a token in its message, and of what his `on_event` callback raises, which is
  logged with its traceback.
"""

from __future__ import annotations

import base64
import functools
import io
import logging
import pickle
import pprint
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, quote, quote_plus, unquote

import httpx2
import pytest

import keyturn
import keyturn.client.httpx
import keyturn.client.httpx2
from keyturn.client import Bearer, Cookies, InBody, events, grants
from keyturn.testing import StrictServer
from keyturn.tokens import received
from tests.kit import HOSTS, Host, Log, credentials_for, in_threads, run_in_loop, storm_of_tasks
from tests.waiting import until

PIECE = 12  # a shorter piece of a secret tells nothing, and may be there by chance
TOKEN_URL = "https://id.example/token"
ACCESS = "acc.R7tKq2Vw9ZpXb4Nd6Hs8Jf3Lm"
REFRESH = "ref~W3nYc8Qs5VtGk7Rz2Bx9Dp4Fh"
NEW_ACCESS = "acc.M5jUe9Ta4CwSi6Ov3Ql8Yg2Px"
NEW_REFRESH = "ref~H8bZk3Ld7FrNq5Xu9Wm6Ec4Jt"
CSRF_ACCESS = "csrf-a-T6vPg2Rk9MzYd4Qe7Ub3Sx"
CSRF_REFRESH = "csrf-r-L9hWn5Jc3KfVa8Gt2Zo7Ri"
CLIENT_SECRET = "hush/Q4yB+w7D=xN2m%9KtE6s"  # one that looks different in each encoding
PASSWORD = "hunter2-V8cX3zL6kJ1qW5"
ALL = (ACCESS, REFRESH, NEW_ACCESS, NEW_REFRESH, CSRF_ACCESS, CSRF_REFRESH, CLIENT_SECRET, PASSWORD)


class Ear(logging.Handler):
    """Hears everything, and knows what it must not hear."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []
        self._secrets: set[str] = set()

    def learn(self, *secrets: str | None) -> None:
        """Take note of what must not be heard."""
        self._secrets |= {secret for secret in secrets if secret is not None and len(secret) >= PIECE}

    def learn_tokens(self, tokens: keyturn.Tokens | None) -> None:
        """Take note of everything that is secret in a pair."""
        if tokens is not None:
            self.learn(tokens.access, tokens.refresh, *tokens.extra.values())

    def learn_requests(self, server: StrictServer) -> None:
        """Take note of every secret that a server was shown."""
        for seen in server.seen:
            self.learn(seen.headers.get("authorization", "").removeprefix("Bearer "))
            self.learn(seen.headers.get("x-csrf-token"))
            self.learn(*(pair.partition("=")[2] for pair in seen.headers.get("cookie", "").split("; ")))
            self.learn(*parse_qs(seen.body.decode("latin-1")).get("refresh_token", []))

    def emit(self, record: logging.LogRecord) -> None:
        """Hear a log record: its line, and whatever else a formatter might print of it."""
        self.hear(logging.Formatter("%(name)s %(threadName)s %(message)s").format(record))
        self.hear(pprint.pformat(record.__dict__))
        self.look_at(record.__dict__.get("event"))

    def hear(self, text: str) -> None:
        """Hear a text."""
        self.texts.append(text)

    def look_at(self, *things: object) -> None:
        """Hear all that printing makes of things."""
        for thing in things:
            error = getattr(thing, "cause", thing)
            if isinstance(error, BaseException):
                self.hear_error(error)
            self.hear(f"{thing!r} {thing!s} {thing} {[thing]!r}")
            self.hear(pprint.pformat(thing))
            if hasattr(thing, "__dict__"):
                self.hear(pprint.pformat(vars(thing)) + str(vars(thing)))

    def hear_error(self, error: BaseException | None) -> None:
        """Hear an error and all that its traceback shows: what it came from, unless that is suppressed."""
        while error is not None:
            self.hear("".join(traceback.format_exception(error)))
            self.hear(f"{error!r} {error!s} {error.args!r} {vars(error)!r} {getattr(error, '__notes__', '')}")
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)

    def told(self, call: Callable[[], object], *kinds: type[BaseException]) -> BaseException:
        """Call, hear the error that comes of it, and return it."""
        with pytest.raises(kinds) as raised:
            call()
        self.look_at(raised.value)
        return raised.value

    def check(self) -> None:
        """Fail if a secret was heard."""
        assert self.texts
        assert self._secrets
        heard = "\n".join(self.texts)
        heard = f"{heard}\n{unquote(heard)}"
        for secret in self._secrets:
            for form in forms(secret):
                assert form not in heard, f"heard {form!r}"


def forms(secret: str) -> Iterator[str]:
    """Yield every piece of a secret as it is, and the secret as it would look in an encoding."""
    for at in range(len(secret) - PIECE + 1):
        yield secret[at : at + PIECE]
    yield quote(secret, safe="")
    yield quote_plus(secret)
    yield secret.encode().hex()
    for text in (secret, quote_plus(secret)):  # as RFC 6749 §2.3.1 has it for HTTP Basic
        for before in range(3):  # base64 depends on where in a text the secret stands
            encoded = base64.b64encode(b"\0" * before + text.encode())
            whole = encoded[4 if before else 0 : len(encoded) // 4 * 4 - 4].decode()
            yield whole
            yield whole.replace("+", "-").replace("/", "_")


@pytest.fixture
def ear(capfd: pytest.CaptureFixture[str]) -> Iterator[Ear]:
    """An ear at every logger named keyturn*, at warnings, and at what is printed."""
    listener = Ear()
    listener.learn(*ALL)
    loggers = [
        logging.getLogger(name)
        for name in ["keyturn", *logging.root.manager.loggerDict]
        if name.partition(".")[0] == "keyturn"
    ]
    before = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.DEBUG)
    logging.getLogger("keyturn").addHandler(listener)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield listener
    logging.getLogger("keyturn").removeHandler(listener)
    for one, level in zip(loggers, before, strict=True):
        one.setLevel(level)
    for warning in caught:
        listener.hear(f"{warning.message!r} {warning.message} {warning.source!r}")
    listener.hear("".join(capfd.readouterr()))
    listener.check()


def pair(life: float = -60.0) -> keyturn.Tokens:
    """Return the pair whose every part is recognisable."""
    extra = {"csrf_access_token": CSRF_ACCESS, "csrf_refresh_token": CSRF_REFRESH}
    return keyturn.Tokens(ACCESS, REFRESH, time.time() + life, 3600.0, extra)


Answering = Callable[[httpx2.Request], httpx2.Response]
NEW_PAIR = {"access_token": NEW_ACCESS, "refresh_token": NEW_REFRESH, "expires_in": 3600}


def new_pair(request: httpx2.Request) -> httpx2.Response:
    """Answer a refresh with a new pair, in the body and in cookies."""
    cookies = {
        "access_token_cookie": NEW_ACCESS,
        "refresh_token_cookie": NEW_REFRESH,
        "csrf_access_token": CSRF_ACCESS,
        "csrf_refresh_token": CSRF_REFRESH,
    }
    headers = [("Set-Cookie", f"{name}={value}; HttpOnly") for name, value in cookies.items()]
    return httpx2.Response(200, json=NEW_PAIR, headers=headers)


def factory(answer: Answering) -> Callable[[], httpx2.AsyncClient]:
    """Return a grant's `http=`, answered without a socket."""
    return lambda: httpx2.AsyncClient(transport=httpx2.MockTransport(answer))


GRANTS: dict[str, Callable[[Answering], grants.Grant]] = {
    "oauth2": lambda answer: grants.OAuth2(
        TOKEN_URL, client_id="dashboard", client_secret=CLIENT_SECRET, http=factory(answer)
    ),
    "json": lambda answer: grants.JSON(TOKEN_URL, http=factory(answer)),
    "cookies": lambda answer: grants.Cookies(TOKEN_URL, http=factory(answer)),
    "function": lambda answer: grants.Call(by_hand, http=factory(answer)),
}


async def by_hand(tokens: keyturn.Tokens, http: httpx2.AsyncClient) -> keyturn.Tokens:
    """Refresh as a user would write it."""
    answer = await http.post(TOKEN_URL, data={"refresh_token": tokens.refresh, "secret": CLIENT_SECRET})
    return received(
        answer.raise_for_status().json()["access_token"], sent_at=time.time(), refresh=NEW_REFRESH
    )


def signed_in(
    kind: str, answer: Answering = new_pair, life: float = -60.0, **options: Any
) -> keyturn.Credentials:
    """Return credentials with the recognisable pair, refreshed by this answer."""
    options.setdefault("retry_for", timedelta(0))
    return keyturn.Credentials(
        GRANTS[kind](answer), tokens=pair(life), origins=["https://api.example"], name="alice", **options
    )


# The ear itself


@pytest.mark.parametrize(
    "leak",
    [
        REFRESH,
        f"refresh={REFRESH!r}",
        f"truncated {REFRESH[:16]}...",
        f"{REFRESH[-14:]}",
        quote(CLIENT_SECRET),
        quote_plus(quote_plus(CLIENT_SECRET)),
        CLIENT_SECRET.encode().hex(),
        base64.b64encode(f"dashboard:{CLIENT_SECRET}".encode()).decode(),
        base64.urlsafe_b64encode(f"a:{CLIENT_SECRET}".encode()).decode(),
        base64.b64encode(f"ab:{CLIENT_SECRET}:c".encode()).decode(),
        base64.b64encode(f"dashboard:{quote_plus(CLIENT_SECRET)}".encode()).decode(),
    ],
)
def test_the_ear_hears_a_secret_in_each_of_its_forms(leak: str) -> None:
    ear = Ear()
    ear.learn(*ALL)
    ear.hear(f"the refresh failed: {leak}, try again")

    with pytest.raises(AssertionError, match="heard"):
        ear.check()


# On real sockets


@pytest.mark.parametrize("host", HOSTS, ids=str)
def test_a_storm_its_refresh_its_replays_and_its_end_tell_no_secret(
    strict_server: StrictServer, host: Host, ear: Ear
) -> None:
    log = Log()
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=-1.0), on_event=log)
    ear.learn_tokens(credentials.tokens)

    assert storm_of_tasks(host, strict_server, credentials, 50) == [200] * 50
    ear.learn_tokens(credentials.tokens)
    strict_server.expire()
    with host.client(strict_server, credentials) as api:
        assert in_threads(10, lambda i: int(api.get(f"/statistics/{i}").status_code)) == [200] * 10
        ear.look_at(api.get("/statistics").request)
    ear.learn_tokens(credentials.tokens)
    strict_server.revoke()
    with host.client(strict_server, credentials) as api:
        for _ in range(2):
            ear.told(lambda: api.get("/statistics"), keyturn.SessionEnded)

    assert log.of(events.Refreshed)
    assert log.of(events.Replayed)
    ear.learn_requests(strict_server)
    ear.look_at(credentials, host.adapter.Auth(credentials), strict_server, strict_server.seen, *log.events)


@pytest.mark.parametrize("host", HOSTS, ids=str)
def test_cookies_and_their_csrf_values_are_not_told_either(
    strict_server: StrictServer, host: Host, ear: Ear
) -> None:
    log = Log()
    grant = grants.Cookies(strict_server.url + "/token/refresh")
    tokens = strict_server.sign_in_cookies(ttl=-1.0)
    credentials = credentials_for(strict_server, tokens, grant=grant, on_event=log)
    ear.learn_tokens(credentials.tokens)

    async def main() -> None:
        async with host.async_transport_client(strict_server, credentials) as api:
            try:
                answer = await api.get("/statistics")
                ear.look_at(answer, answer.request, answer.request.headers)
            except keyturn.KeyturnError as error:
                ear.look_at(error)

    run_in_loop(main)
    with host.transport_client(strict_server, credentials) as api:
        body = iter([b"a body that can be sent once"])
        strict_server.expire()
        try:
            ear.look_at(api.post("/statistics", content=body).request)
        except keyturn.KeyturnError as error:
            ear.look_at(error)
    ear.learn_tokens(credentials.tokens)
    ear.learn_requests(strict_server)
    ear.look_at(credentials, grant, credentials.carrier, *log.events)


@pytest.mark.parametrize(
    ("prepare", "kind"),
    [
        pytest.param(
            lambda one: one.fail_refresh(401, body={"error": "invalid_client"}),
            keyturn.RefreshMisconfigured,
            id="invalid_client",
        ),
        pytest.param(
            lambda one: one.fail_refresh(403, body="<html>blocked</html>"),
            keyturn.RefreshMisconfigured,
            id="403",
        ),
        pytest.param(lambda one: one.fail_refresh(500), keyturn.OutcomeUnknown, id="500"),
        pytest.param(lambda one: one.fail_refresh(200, body="{"), keyturn.OutcomeUnknown, id="unreadable"),
        pytest.param(lambda one: one.drop_refresh(), keyturn.OutcomeUnknown, id="dropped"),
        pytest.param(
            lambda one: one.fail_refresh(503, headers={"Retry-After": "60"}),
            keyturn.RefreshUnavailable,
            id="503",
        ),
        pytest.param(lambda one: one.revoke(), keyturn.SessionEnded, id="revoked"),
        pytest.param(lambda one: one.hold_refresh(), keyturn.RefreshTimeout, id="slow"),
    ],
)
def test_no_way_for_a_refresh_to_fail_tells_a_secret(
    strict_server: StrictServer,
    ear: Ear,
    prepare: Callable[[StrictServer], None],
    kind: type[keyturn.KeyturnError],
) -> None:
    log = Log()
    credentials = credentials_for(
        strict_server, strict_server.sign_in(ttl=-1.0), on_event=log, retry_for=timedelta(seconds=1)
    )
    ear.learn_tokens(credentials.tokens)
    prepare(strict_server)

    for _ in range(2):
        ear.told(lambda: credentials.get_tokens(timeout=0.5 if kind is keyturn.RefreshTimeout else 20), kind)
    strict_server.release()
    credentials.close()
    ear.told(credentials.get_tokens, keyturn.CredentialsClosed)
    ear.learn_requests(strict_server)
    ear.look_at(credentials, *log.events)


def test_an_end_point_that_nobody_listens_at_tells_no_secret(ear: Ear) -> None:
    for kind in (grants.OAuth2, grants.JSON, grants.Cookies):
        grant = kind(f"http://user:{PASSWORD}@127.0.0.1:9/token?key={PASSWORD}")
        credentials = keyturn.Credentials(
            grant, tokens=pair(), origins=["https://api.example"], retry_for=timedelta(0)
        )
        ear.told(credentials.get_tokens, keyturn.RefreshUnavailable)
        ear.look_at(grant.exchange, credentials)
        ear.hear(repr(grant) + str(grant))


# Against answers that are made to leak

ECHOES: dict[str, Answering] = {
    "a new pair": new_pair,
    "the error is the token": lambda request: httpx2.Response(400, json={"error": REFRESH}),
    "the error is a piece of it": lambda request: httpx2.Response(400, json={"error": REFRESH[4:]}),
    "the description is": lambda request: httpx2.Response(
        400, json={"error": "invalid_grant", "error_description": f"{REFRESH} is spent"}
    ),
    "the body is the request": lambda request: httpx2.Response(403, content=request.content),
    "the headers are the request's": lambda request: httpx2.Response(
        400, headers={"WWW-Authenticate": f'Basic realm="{request.headers}"', "X-Echo": REFRESH}
    ),
    "a redirect with the token": lambda request: httpx2.Response(302, headers={"Location": f"/?t={REFRESH}"}),
    "a redirect nowhere": lambda request: httpx2.Response(302, headers={"Location": f"http://[{REFRESH}"}),
    "an unreadable success": lambda request: httpx2.Response(200, content=f'{{"access_token": "{NEW_ACCESS}'),
    "a token that no header can carry": lambda request: httpx2.Response(
        200, json={"access_token": f"{NEW_ACCESS}\r\nX: y"}
    ),
    "a wait of a token": lambda request: httpx2.Response(503, headers={"Retry-After": REFRESH}),
    "a reason": lambda request: httpx2.Response(500, extensions={"reason_phrase": REFRESH.encode()}),
}


class Told(Exception):
    """An exception of somebody else's, which quotes what it was given."""


def raising(error: Exception) -> Answering:
    """Answer with an exception."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        raise error

    return answer


for _error in (
    httpx2.ConnectError(REFRESH),
    httpx2.ReadError(REFRESH),
    httpx2.RemoteProtocolError(REFRESH),
    httpx2.InvalidURL(REFRESH),
    OSError(5, REFRESH, REFRESH),
    TimeoutError(REFRESH),
    UnicodeDecodeError("ascii", REFRESH.encode(), 0, 1, REFRESH),
    Told(REFRESH),
    ExceptionGroup(REFRESH, [Told(REFRESH)]),
):
    ECHOES[f"a {type(_error).__name__} that quotes the token"] = raising(_error)


@pytest.mark.parametrize("kind", GRANTS)
@pytest.mark.parametrize("answer", ECHOES.values(), ids=ECHOES)
def test_an_answer_that_quotes_secrets_is_not_quoted(kind: str, answer: Answering, ear: Ear) -> None:
    log = Log()
    credentials = signed_in(kind, answer, on_event=log)
    for attempt in (credentials.get_tokens, credentials.get_tokens, credentials.retry_unknown):
        try:
            ear.look_at(attempt(timeout=20))
        except keyturn.KeyturnError as error:
            ear.look_at(error)
    ear.look_at(credentials, *log.events)


@pytest.mark.parametrize("asynchronous", [True, False])
def test_what_a_callable_raises_or_returns_is_not_quoted(asynchronous: bool, ear: Ear) -> None:
    def misbehave(how: str, tokens: keyturn.Tokens) -> Any:
        if how == "raises":
            raise Told(f"cannot use {tokens.refresh}")
        if how == "raises from":
            raise LookupError(tokens.refresh) from Told(tokens.access)
        return {"dict": {"access": NEW_ACCESS}, "text": NEW_ACCESS, "bytes": NEW_ACCESS.encode()}[how]

    for how in ("raises", "raises from", "dict", "text", "bytes"):

        async def later(tokens: keyturn.Tokens, http: httpx2.AsyncClient, how: str = how) -> Any:
            return misbehave(how, tokens)

        def now(tokens: keyturn.Tokens, http: httpx2.Client, how: str = how) -> Any:
            return misbehave(how, tokens)

        log = Log()
        credentials = keyturn.Credentials(
            later if asynchronous else now, tokens=pair(), origins=["https://api.example"], on_event=log
        )
        ear.told(credentials.get_tokens, keyturn.RefreshError)
        ear.look_at(credentials, *log.events)


@pytest.mark.parametrize(
    "value",
    [NEW_ACCESS, {"access": NEW_ACCESS}, NEW_ACCESS.encode(), [NEW_REFRESH]],
    ids=["text", "dict", "bytes", "list"],
)
def test_what_a_format_of_ones_own_makes_of_an_answer_is_not_quoted(value: Any, ear: Ear) -> None:
    grant = grants.JSON(TOKEN_URL, receive=lambda body: value, http=factory(new_pair))
    credentials = keyturn.Credentials(grant, tokens=pair(), origins=["https://api.example"])

    ear.told(credentials.get_tokens, keyturn.OutcomeUnknown)
    ear.told(lambda: grant.read(new_pair(httpx2.Request("POST", TOKEN_URL))), keyturn.ConfigurationError)
    ear.look_at(credentials)


# Every object, and every way to be refused


@pytest.mark.parametrize("kind", GRANTS)
def test_no_object_of_the_client_shows_a_secret_when_it_is_printed(kind: str, ear: Ear) -> None:
    looked = threading.Event()

    def wait(request: httpx2.Request) -> httpx2.Response:
        looked.wait(20)
        return new_pair(request)

    credentials = signed_in(kind, wait, on_event=ear.look_at)
    before = credentials.tokens
    assert before is not None
    ticket = credentials.ticket()
    flight = credentials._flight
    assert flight is not None
    ear.look_at(ticket, ticket.gate, flight, flight.figures(), credentials)  # while it is in the air
    looked.set()
    after = ticket.wait(20)
    refused = credentials.refusal_ticket(before)

    ear.look_at(
        before, after, refused, refused.redeem(), before.plan, credentials, credentials._grant, flight
    )
    ear.look_at(credentials.carrier, credentials.turnstile, credentials.departures, grants.Wire())
    ear.look_at(Bearer(adopt=InBody({"access": "a"})), Cookies(), keyturn.client.CookieNames())
    ear.look_at(keyturn.client.Answer(200, {}, 0.0).json())
    for host in HOSTS:
        for adapter in (host.adapter.Transport(credentials), host.adapter.AsyncTransport(credentials)):
            ear.look_at(adapter)
    if kind != "cookies":
        ear.look_at(*(host.adapter.Auth(credentials) for host in HOSTS))


def test_signing_in_and_out_adopting_and_closing_tell_no_secret(ear: Ear) -> None:
    log = Log()
    credentials = signed_in("oauth2", life=3600.0, on_event=log)
    carried = credentials.get_tokens()
    newer = keyturn.Tokens(NEW_ACCESS, NEW_REFRESH, time.time() + 7200)

    assert credentials.adopt(newer, carried)
    assert not credentials.adopt(newer, carried)
    ear.look_at(credentials.tokens)
    credentials.sign_in(pair(3600.0))
    ear.told(lambda: credentials.renew(carried), keyturn.SessionEnded)
    credentials.sign_out()
    ear.told(credentials.get_tokens, keyturn.SessionEnded)
    credentials.sign_in(pair())
    credentials.reset_after_fork()  # what a forked child does first
    ear.told(credentials.get_tokens, keyturn.RefreshAfterFork)
    credentials.close()
    ear.told(lambda: credentials.sign_in(pair()), keyturn.CredentialsClosed)
    ear.look_at(credentials, *log.events)
    assert log.of(events.Adopted)


def test_a_refresh_that_waits_for_itself_tells_no_secret(ear: Ear) -> None:
    async def again(tokens: keyturn.Tokens, http: httpx2.AsyncClient) -> keyturn.Tokens:
        return await credentials.aget_tokens()

    credentials = keyturn.Credentials(again, tokens=pair(), origins=["https://api.example"])
    ear.told(credentials.get_tokens, keyturn.ReentrantRefresh)
    ear.look_at(credentials)


@pytest.mark.parametrize("host", HOSTS, ids=str)
def test_a_body_that_cannot_be_sent_twice_and_the_request_itself_tell_no_secret(host: Host, ear: Ear) -> None:
    refused = host.lib.MockTransport(lambda _: host.lib.Response(401))
    for body in (io.BufferedReader(Pipe()), iter([b"once"])):
        log = Log()
        credentials = signed_in("cookies", life=3600.0, on_event=log)
        with host.lib.Client(transport=host.adapter.Transport(credentials, refused)) as api:
            ear.told(functools.partial(api.post, "https://api.example/", content=body), keyturn.NotReplayable)
            answer = api.get("https://api.example/")
        ear.look_at(answer, answer.request, answer.request.headers, credentials, *log.events)


class Pipe(io.RawIOBase):
    """A file that cannot seek."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        return 0


WRONG: dict[str, Callable[[], object]] = {
    "a token with a space": lambda: keyturn.Tokens(f"{ACCESS} {ACCESS}"),
    "a refresh token with a line": lambda: keyturn.Tokens(ACCESS, f"{REFRESH}\r\n"),
    "an expiry that is a token": lambda: keyturn.Tokens(ACCESS, expires_at=REFRESH),  # type: ignore[arg-type]
    "a lifetime that is a token": lambda: keyturn.Tokens(ACCESS, lifetime=REFRESH),  # type: ignore[arg-type]
    "an extra that is a token": lambda: keyturn.Tokens(ACCESS, extra=CSRF_ACCESS),  # type: ignore[arg-type]
    "an extra with a line": lambda: keyturn.Tokens(ACCESS, extra={"csrf": f"{CSRF_ACCESS}\n"}),
    "text for tokens": lambda: keyturn.Credentials(
        grants.OAuth2(TOKEN_URL),
        tokens=ACCESS,  # type: ignore[arg-type]
        origins=["https://api.example"],
    ),
    "a token for a grant": lambda: keyturn.Credentials(REFRESH, origins=["https://api.example"]),  # type: ignore[arg-type]
    "a store with a password": lambda: keyturn.Credentials(
        grants.OAuth2(TOKEN_URL), origins=["https://api.example"], store=f"odd://:{PASSWORD}@localhost/0"
    ),
    "an origin with a password": lambda: keyturn.Credentials(
        grants.OAuth2(TOKEN_URL), origins=[f"https://user:{PASSWORD}@api.example"]
    ),
    "one origin with a password": lambda: keyturn.Credentials(
        grants.OAuth2(TOKEN_URL), origins=f"https://user:{PASSWORD}@api.example"
    ),
    "an end point with a password": lambda: grants.OAuth2(f"ftp://user:{PASSWORD}@id.example/token"),
    "an end point with a broken password": lambda: grants.OAuth2(f"https://user:{PASSWORD}/@id.example:x/"),
    "a secret without an id": lambda: grants.OAuth2(TOKEN_URL, client_secret=CLIENT_SECRET),
    "a secret in bytes": lambda: grants.OAuth2(
        TOKEN_URL,
        client_id="a",
        client_secret=CLIENT_SECRET.encode(),  # type: ignore[arg-type]
    ),
    "a secret for a factory": lambda: grants.OAuth2(TOKEN_URL, http=CLIENT_SECRET),  # type: ignore[arg-type]
    "text for a sign-in": lambda: signed_in("oauth2").sign_in(ACCESS),  # type: ignore[arg-type]
    "text for a refusal": lambda: signed_in("oauth2").renew(ACCESS),  # type: ignore[arg-type]
    "text to adopt": lambda: signed_in("oauth2").adopt(ACCESS, ACCESS),  # type: ignore[arg-type]
    "a login without tokens": lambda: grants.OAuth2(TOKEN_URL).read(
        httpx2.Response(200, json={"accessToken": NEW_ACCESS})
    ),
    "a login without cookies": lambda: grants.Cookies(TOKEN_URL).read(
        httpx2.Response(200, headers={"Set-Cookie": f"other={NEW_ACCESS}"})
    ),
    "Auth of cookies": lambda: keyturn.client.httpx2.Auth(signed_in("cookies")),
    "Auth of text": lambda: keyturn.client.httpx2.Auth(ACCESS),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("make", WRONG.values(), ids=WRONG)
def test_no_argument_that_is_refused_is_quoted(make: Callable[[], object], ear: Ear) -> None:
    ear.told(make, keyturn.ConfigurationError)


def test_credentials_and_what_holds_them_cannot_be_pickled(ear: Ear) -> None:
    credentials = signed_in("oauth2", life=3600.0)
    holders: list[object] = [credentials, functools.partial(credentials.get_tokens)]
    for host in HOSTS:
        holders += [host.adapter.Auth(credentials), host.adapter.Transport(credentials)]
    for one in holders:
        ear.told(functools.partial(pickle.dumps, one), TypeError)


def test_a_callback_that_fails_is_logged_without_the_credentials_secrets(ear: Ear) -> None:
    def fail(event: events.Event) -> None:
        raise Told(f"cannot send {event} to the dashboard")

    assert signed_in("oauth2", on_event=fail).get_tokens(timeout=20).generation == 1
    ear.told(
        signed_in("oauth2", ECHOES["the description is"], on_event=fail).get_tokens, keyturn.SessionEnded
    )
    until(lambda: any("callback failed on Ended" in text for text in ear.texts))


# Outside keyturn's reach


def test_httpcore_itself_logs_the_cookies_of_a_response_at_debug(
    strict_server: StrictServer, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = strict_server.sign_in_cookies(ttl=-1.0)
    grant = grants.Cookies(strict_server.url + "/token/refresh")
    credentials = credentials_for(strict_server, tokens, grant=grant)
    caplog.set_level(logging.DEBUG)

    new = credentials.get_tokens(timeout=20)

    told: Mapping[str, str] = {
        record.name: "" for record in caplog.records if new.access in record.getMessage()
    }
    assert {name.partition(".")[0] for name in told} == {"httpcore2"}

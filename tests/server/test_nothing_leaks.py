"""No token, secret or double-submit value is in any log record, repr, event or exception text."""

from __future__ import annotations

import dataclasses
import logging
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import pytest

from keyturn import errors
from keyturn.server import Bearer, Cookies, Issuer, Rotation, TokenPair, events
from keyturn.server.endpoints import Endpoints
from keyturn.server.keys import Keys
from keyturn.server.messages import Answer, Request
from keyturn.server.session_stores.memory import MemoryStore

from .clock import Clock
from .web import application, cookie, csrf

SECRET = "this-secret-must-never-be-seen-anywhere-at-all"


class Gathered:
    """Everything that was said, and everything that must not be in it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.secrets: set[str] = {SECRET}

    def keep(self, *things: object) -> None:
        for thing in things:
            self.said += [repr(thing), str(thing), f"{thing}"]
            if dataclasses.is_dataclass(thing) and not isinstance(thing, type | TokenPair | Request | Answer):
                self.said.append(repr(dataclasses.asdict(thing)))

    def pair(self, pair: TokenPair) -> TokenPair:
        self.keep(pair, [pair], {"pair": pair})
        self.secrets |= {pair.access, pair.refresh}
        return pair

    def error(self, error: BaseException) -> None:
        self.keep(error, error.args, vars(error))
        self.said += traceback.format_exception(error)
        self.said.append(repr(traceback.TracebackException.from_exception(error, capture_locals=False)))

    def check(self) -> None:
        text = "\n".join(self.said)
        assert len(text) > 10_000
        for secret in self.secrets:
            assert secret not in text
            # Nor a part that would do: a signature on its own, or most of a token.
            for part in (
                secret.rpartition(".")[2],
                secret[: len(secret) * 2 // 3],
                secret[len(secret) // 3 :],
            ):
                assert part not in text


@pytest.fixture
def gathered(caplog: pytest.LogCaptureFixture) -> Gathered:
    caplog.set_level(logging.NOTSET)
    return Gathered()


def every_refusal(issuer: Issuer, clock: Clock, gathered: Gathered) -> None:
    """Go through every error that a token can meet."""
    pair = gathered.pair(issuer.sign_in("alice", claims={"role": "admin"}, client="app", key="thumb"))

    def bound(token: str) -> TokenPair:
        return issuer.refresh(token, client="app", key="thumb")

    def fails(call: Callable[[], object], expected: type[errors.KeyturnError]) -> None:
        with pytest.raises(expected) as caught:
            call()
        gathered.error(caught.value)
        gathered.error(caught.value.again())

    def swapped(token: str) -> str:
        last = "A" if token[-1] != "A" else "E"
        gathered.secrets.add(token[:-1] + last)
        return token[:-1] + last

    fails(lambda: issuer.refresh(swapped(pair.refresh)), errors.TokenForged)
    fails(lambda: issuer.refresh(pair.refresh + "x"), errors.TokenMalformed)
    fails(lambda: issuer.refresh(pair.access), errors.TokenMalformed)
    fails(lambda: issuer.verify(swapped(pair.access)), errors.TokenForged)
    fails(lambda: issuer.verify(pair.access + "é"), errors.TokenMalformed)
    fails(lambda: issuer.verify(pair.refresh), errors.TokenMalformed)
    header, payload, signature = pair.access.split(".")
    fails(lambda: issuer.verify(f"{header[:-1]}.{payload}.{signature}"), errors.TokenMalformed)
    fails(
        lambda: issuer.csrf.check(pair.access, swapped(issuer.csrf.value(pair.refresh))), errors.CSRFRefused
    )
    fails(lambda: issuer.refresh(pair.refresh), errors.WrongClient)
    fails(lambda: issuer.refresh(pair.refresh, client="app", key="x"), errors.WrongKey)
    ahead = issuer._refresh_tokens.make(pair.sid, 10_000)
    gathered.secrets.add(ahead)
    fails(lambda: bound(ahead), errors.CounterTooFarAhead)
    gathered.pair(bound(issuer._refresh_tokens.make(pair.sid, 2)))
    fails(lambda: bound(pair.refresh), errors.TokenReused)
    fails(lambda: bound(pair.refresh), errors.SessionOver)
    fails(lambda: issuer.verify(pair.access, live=True), errors.SessionOver)
    idle = gathered.pair(issuer.sign_in("alice"))
    clock.forward(1800)
    fails(lambda: issuer.refresh(idle.refresh), errors.SessionIdle)
    clock.forward(1800)
    fails(lambda: issuer.refresh(idle.refresh), errors.SessionExpired)
    fails(lambda: issuer.verify(idle.access), errors.TokenExpired)
    issuer.purge()
    fails(lambda: issuer.refresh(idle.refresh), errors.SessionUnknown)


def test_what_is_said_about_tokens_never_shows_one(
    gathered: Gathered, clock: Clock, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[events.Event] = []
    issuer = Issuer(
        secret=SECRET,
        store=store,
        now=clock,
        on_event=heard.append,
        session_lifetime=timedelta(hours=1),
        idle_limit=timedelta(minutes=30),
        rotation=Rotation(window=timedelta(0)),
    )
    every_refusal(issuer, clock, gathered)
    gathered.keep(issuer, issuer.csrf, issuer.rotation, issuer._refresh_tokens, issuer._access_tokens)
    gathered.keep(
        Keys(SECRET, issuer="x"), Bearer(), Cookies(), Endpoints(issuer), Endpoints(issuer, "bearer")
    )
    gathered.keep(*heard, *issuer.sessions("alice"), *store._rows.values())
    assert {type(event) for event in heard} == {
        events.Started, events.Refreshed, events.Reused, events.MovedForward, events.Ended,
    }  # fmt: skip
    for delivery in ("cookies", "bearer"):
        serve_everything(issuer, delivery, gathered)
    records = list(caplog.records)
    assert any(record.name == "keyturn.server" for record in records)
    for record in records:
        gathered.keep(record.getMessage(), record.msg, record.args, record.__dict__)
    gathered.check()


def serve_everything(issuer: Issuer, delivery: str, gathered: Gathered) -> None:
    app = application(issuer, Cookies(secure=False) if delivery == "cookies" else "bearer")
    client = app.test_client()
    response = client.post("/login")
    if delivery == "bearer":
        assert response.json is not None
        gathered.secrets |= {response.json["access_token"], response.json["refresh_token"]}
        token = response.json["refresh_token"]
        bodies: list[object] = [
            {"refresh_token": token + "x"},
            {"refresh_token": [token]},
            {"grant_type": token},
        ]
        refused = [client.post("/auth/refresh", json=body) for body in bodies]
        refused.append(client.get("/me", headers={"Authorization": f"Bearer {token}"}))
    else:
        names = ("access_token_cookie", "refresh_token_cookie", "csrf_access_token", "csrf_refresh_token")
        gathered.secrets |= {cookie(client, name) for name in names}
        refused = [client.post("/auth/refresh", headers=csrf(client, "access"))]
        client.set_cookie("access_token_cookie", cookie(client, "refresh_token_cookie"))
        refused.append(client.get("/me"))
    for response in refused:
        assert 400 <= response.status_code < 500
        gathered.keep(response.text, list(response.headers))


def test_what_goes_between_the_server_and_its_host_has_no_telling_repr(
    gathered: Gathered, issuer: Issuer
) -> None:
    pair = gathered.pair(issuer.sign_in("alice"))
    for delivery in ("cookies", "bearer"):
        endpoints = Endpoints(issuer, delivery)
        answer = endpoints.issued(pair)
        request = Request(
            "POST",
            (("Authorization", f"Bearer {pair.access}"), ("Cookie", f"refresh_token_cookie={pair.refresh}")),
            json_of(pair),
        )
        gathered.keep(answer, request)
        with suppress(errors.KeyturnError):
            gathered.keep(endpoints.delivery.refresh_token(request, issuer.csrf))
    gathered.said.append("." * 10_000)
    gathered.check()


def json_of(pair: TokenPair) -> bytes:
    return b'{"refresh_token": "%s"}' % pair.refresh.encode()


def test_secrets_that_are_refused_are_not_shown(gathered: Gathered) -> None:
    for secret in (SECRET[:31], [SECRET, SECRET], [SECRET, SECRET + "2"]):
        with pytest.raises(errors.ConfigurationError) as caught:
            Keys(secret, issuer="x")
        gathered.error(caught.value)
    assert SECRET[:31] not in "".join(gathered.said)

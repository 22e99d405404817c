"""Handle: what a test tells a strict server and asks of it, wherever that runs."""

from __future__ import annotations

import abc
import base64
import json
from collections.abc import Callable, Iterable, Mapping
from http.cookies import SimpleCookie
from typing import Any, Literal, Unpack

from keyturn.clocks import now
from keyturn.errors import ConfigurationError, KeyturnError
from keyturn.testing.records import Seen, Settings, Stats, Switches
from keyturn.tokens import Tokens, received

Body = bytes | str | Mapping[str, object] | None

_ANSWERS_WITHIN = 10.0


class Handle(abc.ABC):
    """A strict server as its tests see it. May be used from any thread."""

    def __init__(self, settings: Switches, clock: Callable[[], float] = now) -> None:
        self._check(settings)
        self._clock = clock

    # Sessions

    def sign_in(self, subject: str = "alice", ttl: float | None = None) -> Tokens:
        """Start a session with `POST /login`.

        `ttl` is for its first access token only: 0 gives one that has expired.
        """
        sent_at = self._clock()
        answer = self._post("/login", {"subject": subject, "ttl": ttl})
        return received(
            str(answer["access_token"]),
            sent_at=sent_at,
            refresh=str(answer["refresh_token"]),
            expires_in=answer["expires_in"],
        )

    def sign_in_cookies(self, subject: str = "alice", ttl: float | None = None) -> Tokens:
        """Start a session with `POST /login-cookies`; `extra` has the CSRF values by their cookies' names."""
        sent_at = self._clock()
        answer = self._post("/login-cookies", {"subject": subject, "ttl": ttl})
        cookies = {name: morsel.value for name, morsel in SimpleCookie(answer["set-cookie"]).items()}
        return received(
            cookies.pop("access_token_cookie"),
            sent_at=sent_at,
            refresh=cookies.pop("refresh_token_cookie"),
            expires_in=answer["expires_in"],
            extra=cookies,
        )

    def expire(self) -> None:
        """Have every access token issued so far refused from now on, whatever its exp says."""
        self._control("expire")

    def revoke(self, subject: str | None = None) -> None:
        """End every session, or those of `subject`: the API answers 401, a refresh invalid_grant."""
        self._control("revoke", subject=subject)

    def alive(self, tokens: Tokens) -> bool:
        """Say whether the session that this refresh token was issued in goes on."""
        return bool(self._control("alive", refresh=tokens.refresh)["alive"])

    def accepts(self, authorization: str | bytes | None) -> bool:
        """Say whether an API should answer: whether this access token is good now.

        Takes the token itself, or the value of an `Authorization` header, so
        that an API that is mocked by other means can ask.
        """
        given = authorization.decode("latin-1") if isinstance(authorization, bytes) else authorization or ""
        scheme, _, token = given.rpartition(" ")
        if scheme.lower() not in {"", "bearer"}:
            return False
        return bool(self._control("accepts", access=token)["accepts"])

    # Behaviour

    def configure(self, **settings: Unpack[Switches]) -> None:
        """Change settings from now on; those not named stay. Begins a new wave of `spread`."""
        self._check(settings)
        self._control("configure", **settings)

    def reset(self) -> None:
        """Go back to the constructor's settings and forget all else. Whoever is held is let go."""
        self._control("reset")

    def hold_refresh(self, stage: Literal["before", "after"] = "before") -> None:
        """Hold token requests before they rotate, or between that and their answer, until `release()`."""
        if stage not in {"before", "after"}:
            raise ConfigurationError('stage is "before" or "after"')
        self._control("hold", stage=stage)

    def hold_revocation(self) -> None:
        """Hold revocations before anything is revoked, until `release()`."""
        self._control("hold", stage="revocation")

    def release(self) -> None:
        """Let everyone go who is held, and hold nobody any more."""
        self._control("release")

    def fail_refresh(
        self, status: int, *, headers: Mapping[str, str] | None = None, body: Body = None, times: int = 1
    ) -> None:
        """Answer the next `times` token requests with this, and rotate nothing. A mapping goes as JSON."""
        self._fault("token", status, headers, body, times)

    def drop_refresh(self, times: int = 1, rotated: bool = True) -> None:
        """Close the connection of the next `times` token requests unanswered, after or before rotating."""
        self._fault("token", None, None, None, times, rotated=rotated)

    def fail_revocation(
        self, status: int, *, headers: Mapping[str, str] | None = None, body: Body = None, times: int = 1
    ) -> None:
        """Answer the next `times` revocations with this, and revoke nothing. A mapping goes as JSON."""
        self._fault("revocation", status, headers, body, times)

    def drop_revocation(self, times: int = 1) -> None:
        """Close the connection of the next `times` revocations unanswered, and revoke nothing."""
        self._fault("revocation", None, None, None, times)

    # What happened

    @property
    def stats(self) -> Stats:
        """The counts as they stand."""
        return Stats(**self._control("stats"))

    @property
    def seen(self) -> list[Seen]:
        """Every request in order of arrival, but those of this handle."""
        return [
            Seen(**{**one, "body": base64.b64decode(one["body"])}) for one in self._control("seen")["seen"]
        ]

    def wait_for(self, timeout: float = 10.0, **at_least: int) -> Stats:
        """Block until these counters of `Stats` have reached these values, and return the counts.

        Raises TimeoutError, with the counts in its message, after `timeout` seconds.
        """
        for name in at_least:
            if name not in Stats.__dataclass_fields__:
                raise ConfigurationError(
                    f"{name} is no counter; there are {', '.join(Stats.__dataclass_fields__)}"
                )
        answer = self._control(
            "wait", at_least=at_least, timeout=timeout, answers_within=timeout + _ANSWERS_WITHIN
        )
        stats = Stats(**answer["stats"])
        if not answer["reached"]:
            raise TimeoutError(f"not reached within {timeout} s: {at_least}; {stats}")
        return stats

    # Talking to the server

    def _fault(
        self,
        at: Literal["token", "revocation", "api"],
        status: int | None,
        headers: Mapping[str, str] | None,
        body: Body,
        times: int,
        path: str | None = None,
        rotated: bool = False,
    ) -> None:
        given = dict(headers or {})
        if isinstance(body, Mapping):
            body = json.dumps(body)
            given = {"Content-Type": "application/json", **given}
        data = body.encode() if isinstance(body, str) else body or b""
        self._control(
            "fault",
            at=at,
            status=status,
            headers=given,
            body=base64.b64encode(data).decode(),
            times=times,
            path=path,
            rotated=rotated,
        )

    def _control(self, verb: str, answers_within: float = _ANSWERS_WITHIN, **asked: object) -> dict[str, Any]:
        return self._post(f"/_control/{verb}", asked, answers_within)

    def _post(
        self, path: str, content: Mapping[str, object], answers_within: float = _ANSWERS_WITHIN
    ) -> dict[str, Any]:
        status, body, set_cookies = self._ask(path, json.dumps(content).encode(), answers_within)
        if status != 200:
            raise KeyturnError(f"the strict server answered {status} to {path}")
        cookies = "; ".join(value.partition(";")[0] for value in set_cookies)
        return {**json.loads(body), "set-cookie": cookies} if cookies else dict(json.loads(body))

    @abc.abstractmethod
    def _ask(self, path: str, body: bytes, answers_within: float) -> tuple[int, bytes, Iterable[str]]:
        """Post JSON to the server; return the status, the body and the Set-Cookies of its answer."""

    def _check(self, settings: Switches) -> None:
        """Raise ConfigurationError for a setting that is none, or that is none here."""
        Settings().changed(settings)

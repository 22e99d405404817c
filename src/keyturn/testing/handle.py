"""StrictServer: the server's process, held from a test.

Every call is one short request on a connection of its own, with the standard
library's client: nothing is shared, so any thread may call, whatever event
loops run in others.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import importlib.util
import json
import time
from collections.abc import Mapping
from http.cookies import SimpleCookie
from typing import Any, Literal, Self, Unpack
from urllib.parse import urlsplit

from keyturn.errors import ConfigurationError, KeyturnError, MissingExtra
from keyturn.testing.process import Process
from keyturn.testing.records import Seen, Settings, Stats, Switches
from keyturn.tokens import Tokens, received

_HEADER = "x-keyturn-control"
_ANSWERS_WITHIN = 10.0

Body = bytes | str | Mapping[str, object] | None


class StrictServer:
    """A strict authorization and API server in a process of its own, on a loopback port.

    Takes the settings of `Settings` by name. It starts with `start()` or on
    entering a `with`; `close()` or the end of the `with` ends it, and so does
    the end of the process that started it. May be used from any thread.

    Raises MissingExtra where h11 is not installed, ConfigurationError for a
    setting that is none.
    """

    def __init__(self, **settings: Unpack[Switches]) -> None:
        try:
            import h11  # noqa: F401
        except ImportError:
            raise MissingExtra("keyturn.testing needs h11: pip install 'keyturn[testing]'") from None
        _check(settings)
        self._given = dict(settings)
        self._process: Process | None = None

    # The process

    def start(self) -> Self:
        """Start the process and return when it listens.

        Raises KeyturnError, with what it wrote to stderr, where it does not
        come up within 10 seconds.
        """
        if self._process is not None:
            raise KeyturnError("the strict server was started before")
        self._process = Process(_flags(self._given))
        return self

    def close(self) -> None:
        """End the process, and return when it has ended. May be called again, and before a start."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<StrictServer {'not running' if self._process is None else self._process.url}>"

    @property
    def url(self) -> str:
        """The origin, such as "http://127.0.0.1:40123"."""
        return self._running().url

    # Sessions

    def sign_in(self, subject: str = "alice", ttl: float | None = None) -> Tokens:
        """Start a session with `POST /login`.

        `ttl` is for its first access token only: 0 gives one that has expired.
        """
        sent_at = time.time()
        answer = self._post("/login", {"subject": subject, "ttl": ttl})
        return received(
            str(answer["access_token"]),
            sent_at=sent_at,
            refresh=str(answer["refresh_token"]),
            expires_in=answer["expires_in"],
        )

    def sign_in_cookies(self, subject: str = "alice", ttl: float | None = None) -> Tokens:
        """Start a session with `POST /login-cookies`; `extra` has the CSRF values by their cookies' names."""
        sent_at = time.time()
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

    # Behaviour

    def configure(self, **settings: Unpack[Switches]) -> None:
        """Change settings from now on; those not named stay. Begins a new wave of `spread`."""
        _check(settings)
        self._control("configure", **settings)

    def reset(self) -> None:
        """Go back to the constructor's settings and forget all else. Whoever is held is let go."""
        self._control("reset")

    def hold_api(self, n: int) -> None:
        """Answer none of the next `n` API requests until all of them have arrived."""
        if n < 1:
            raise ConfigurationError("hold_api holds at least one request")
        self._control("hold_api", n=n)

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

    def fail_api(
        self,
        status: int,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        times: int = 1,
        path: str | None = None,
    ) -> None:
        """Answer the next `times` API requests (to `path`) with this, whatever their token."""
        self._fault("api", status, headers, body, times, path)

    def drop_api(self, times: int = 1, path: str | None = None) -> None:
        """Close the connection of the next `times` API requests (to `path`) without an answer."""
        self._fault("api", None, None, None, times, path)

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

    # Talking to the process

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
        process = self._running()
        host = urlsplit(process.url).netloc
        headers = {"Content-Type": "application/json", _HEADER: process.secret}
        with contextlib.closing(http.client.HTTPConnection(host, timeout=answers_within)) as connection:
            try:
                connection.request("POST", path, json.dumps(content), headers)
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                raise KeyturnError(f"the strict server does not answer {path}: {process.stderr()}") from error
        if answer.status != 200:
            raise KeyturnError(f"the strict server answered {answer.status} to {path}")
        cookies = "; ".join(value.partition(";")[0] for value in answer.headers.get_all("Set-Cookie", []))
        return {**json.loads(body), "set-cookie": cookies} if cookies else dict(json.loads(body))

    def _running(self) -> Process:
        if self._process is None:
            raise KeyturnError("the strict server is not running")
        return self._process


def _check(settings: Switches) -> None:
    Settings().changed(settings)
    if settings.get("client_auth") == "private_key_jwt" and importlib.util.find_spec("joserfc") is None:
        raise MissingExtra("private_key_jwt needs joserfc: pip install 'keyturn[private-key-jwt]'")


def _flags(settings: Mapping[str, object]) -> list[str]:
    flags = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        flags += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}={value}"]
    return flags

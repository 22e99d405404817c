"""How tokens reach and leave a browser or a client. No I/O and no framework.

*Bearer*: the pair in a JSON body, with names and an envelope that the
application chooses; the access token comes back in the Authorization header.
*Cookies*: HttpOnly cookies, with a double-submit value for each, under the
names of flask-jwt-extended, so that its front ends work unchanged.

A delivery reads tokens from a Request and writes them into an Answer. What
they are worth is for the Issuer to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from keyturn.errors import ConfigurationError, KeyturnError, RequestMalformed, TokenMissing
from keyturn.server.bodies import fields
from keyturn.server.csrf import CSRF
from keyturn.server.issuer import TokenPair
from keyturn.server.messages import Answer, Request, json_answer, set_cookie
from keyturn.server.session import JSON

Fields: TypeAlias = Mapping[str, JSON]

_COOKIE_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)


@dataclass(frozen=True, slots=True, repr=False)
class Shown:
    """A refresh token as a request shows it, and the client that the request says it is from."""

    token: str
    client: str | None = None


class Delivery(Protocol):
    """One way of handing tokens out and taking them back.

    `ambient` tells that a browser sends the tokens by itself, so that a
    request without any is one of somebody who is signed out already.
    """

    @property
    def ambient(self) -> bool: ...

    def access_token(self, request: Request, csrf: CSRF) -> str:
        """Return the access token of a request to a protected route.

        Raises TokenMissing, RequestMalformed or CSRFRefused.
        """

    def refresh_token(self, request: Request, csrf: CSRF) -> Shown:
        """Return the refresh token of a request for new tokens, or for signing out. Raises the same."""

    def issued(self, pair: TokenPair, csrf: CSRF, extra: Fields) -> Answer:
        """Return the answer that hands `pair` out. `extra` is the application's part of the body."""

    def signed_out(self) -> Answer:
        """Return the answer to a sign-out."""

    def refused(
        self, error: KeyturnError, status: int, body: Fields, *, refreshing: bool, over: bool
    ) -> Answer:
        """Return the answer to a refusal.

        `refreshing` tells that it comes from the end point for refresh, and
        `over` that the session does not go on.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """The pair in a JSON body; the access token in `Authorization: Bearer` (RFC 6750 §2.1).

    - `takes`: the request's field with the refresh token. The body may be
      JSON or a form; a form may be RFC 6749 §6's `grant_type=refresh_token`.
    - `access`, `refresh`, `expires_in`, `token_type`: the answer's fields,
      None to leave one out.
    - `envelope`: makes the answer's body of those fields.
    - `refusal_envelope`: makes a refusal's body of `error`, `code` and
      `error_description`.
    - `refused_status`: answers a refused refresh, where not 401.
    """

    takes: str = "refresh_token"
    access: str = "access_token"
    refresh: str = "refresh_token"
    expires_in: str | None = "expires_in"
    token_type: str | None = "token_type"  # noqa: S105 - a field's name
    envelope: Callable[[Fields], Fields] | None = None
    refusal_envelope: Callable[[Fields], Fields] | None = None
    refused_status: int | None = None

    def access_token(self, request: Request, csrf: CSRF) -> str:
        """Return the token of the Authorization header."""
        shown = request.header("Authorization")
        if shown is None:
            raise TokenMissing("the request has no Authorization header")
        scheme, _, token = shown.partition(" ")
        token = token.strip(" ")
        if scheme.lower() != "bearer" or not token:
            raise TokenMissing("the Authorization header has no bearer token")
        return token

    @property
    def ambient(self) -> bool:
        """No: a client sends what it wants to."""
        return False

    def refresh_token(self, request: Request, csrf: CSRF) -> Shown:
        """Return the token of the body's field, and the `client_id` beside it (RFC 6749 §3.2.1)."""
        body = fields(request)
        if body.get("grant_type", "refresh_token") != "refresh_token":
            raise RequestMalformed("the only grant_type that is answered here is refresh_token")
        token = body.get(self.takes)
        if token is None or token == "":
            raise TokenMissing(f"the body has no {self.takes}")
        if not isinstance(token, str):
            raise RequestMalformed(f"{self.takes} must be a string")
        client = body.get("client_id")
        if client is not None and not isinstance(client, str):
            raise RequestMalformed("client_id must be a string")
        return Shown(token, client)

    def issued(self, pair: TokenPair, csrf: CSRF, extra: Fields) -> Answer:
        """Return the pair in a body that nobody stores."""
        said: dict[str, JSON] = {**extra, self.access: pair.access, self.refresh: pair.refresh}
        if self.expires_in is not None:
            said[self.expires_in] = pair.expires_in
        if self.token_type is not None:
            said[self.token_type] = "Bearer"
        return json_answer(200, said if self.envelope is None else self.envelope(said))

    def signed_out(self) -> Answer:
        """Return that the session is over."""
        said: Fields = {"signed_out": True}
        return json_answer(200, said if self.envelope is None else self.envelope(said))

    def refused(
        self, error: KeyturnError, status: int, body: Fields, *, refreshing: bool, over: bool
    ) -> Answer:
        """Return the refusal, with the challenge of RFC 6750 §3 where it is a 401."""
        if refreshing and status == 401 and self.refused_status is not None:
            status = self.refused_status
        said = body if self.refusal_envelope is None else self.refusal_envelope(body)
        if status != 401:
            return json_answer(status, said)
        bare = isinstance(error, TokenMissing)  # who shows nothing is told nothing: RFC 6750 §3.1
        challenge = "Bearer" if bare else f'Bearer error="{body["error"]}"'
        return json_answer(status, said, ("WWW-Authenticate", challenge))


SameSite: TypeAlias = Literal["Lax", "Strict", "None"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cookies:
    """HttpOnly cookies for the tokens, readable ones for their double-submit values.

    The names are flask-jwt-extended's. `expires` names a readable cookie with
    the access token's exp in POSIX seconds, None for none. `checked` are the
    methods that need the double-submit value on protected routes; a refresh
    and a sign-out always do. `secure=False` is for tests over http. With
    `host_prefix` every name begins with `__Host-`, which a browser accepts
    only from the host itself, over https. With `persistent` the cookies
    outlast the browser, as long as the session; without, they go with it.

    Raises ConfigurationError for what a browser would not accept.
    """

    access: str = "access_token_cookie"
    refresh: str = "refresh_token_cookie"
    access_csrf: str = "csrf_access_token"
    refresh_csrf: str = "csrf_refresh_token"
    expires: str | None = "access_token_expires"
    csrf_header: str = "X-CSRF-TOKEN"
    checked: frozenset[str] = frozenset({"POST", "PUT", "PATCH", "DELETE"})
    access_path: str = "/"
    refresh_path: str = "/"
    domain: str | None = None
    secure: bool = True
    samesite: SameSite = "Lax"
    host_prefix: bool = False
    persistent: bool = True

    def __post_init__(self) -> None:
        names = [name for name in self._names() if name is not None]
        if len(set(names)) != len(names) or not all(_COOKIE_NAME.fullmatch(name) for name in names):
            raise ConfigurationError("cookies need names that differ and that a cookie can have")
        for value in (self.access_path, self.refresh_path, self.domain or "/"):
            if not value.isascii() or not value.isprintable() or ";" in value or "," in value:
                raise ConfigurationError("a cookie's path and domain must be plain ASCII")
        if self.samesite == "None" and not self.secure:
            raise ConfigurationError("browsers take SameSite=None only from secure cookies")
        if self.host_prefix and (
            not self.secure or self.domain is not None or {self.access_path, self.refresh_path} != {"/"}
        ):
            raise ConfigurationError("__Host- cookies must be secure, without a domain, and have the path /")

    def access_token(self, request: Request, csrf: CSRF) -> str:
        """Return the access cookie's token, for a checked method with its double-submit value."""
        token = self._cookie(request, self.access)
        if request.method.upper() in self.checked:
            csrf.check(token, request.header(self.csrf_header))
        return token

    @property
    def ambient(self) -> bool:
        """Yes: cookies come along whoever sends the request."""
        return True

    def refresh_token(self, request: Request, csrf: CSRF) -> Shown:
        """Return the refresh cookie's token, which always needs its double-submit value."""
        token = self._cookie(request, self.refresh)
        csrf.check(token, request.header(self.csrf_header))
        return Shown(token)

    def issued(self, pair: TokenPair, csrf: CSRF, extra: Fields) -> Answer:
        """Return the pair in cookies, and in the body only when it expires."""
        life = pair.session_expires_in if self.persistent else None
        baked = [
            self._bake(self.access, pair.access, self.access_path, life, hidden=True),
            self._bake(self.refresh, pair.refresh, self.refresh_path, life, hidden=True),
            self._bake(self.access_csrf, csrf.value(pair.access), "/", life),
            self._bake(self.refresh_csrf, csrf.value(pair.refresh), "/", life),
        ]
        if self.expires is not None:
            baked.append(self._bake(self.expires, str(pair.expires_at), "/", life))
        body: Fields = {**extra, "expires_in": pair.expires_in, "expires_at": pair.expires_at}
        return json_answer(200, body, *(("Set-Cookie", cookie) for cookie in baked))

    def signed_out(self) -> Answer:
        """Return that the session is over, and take all cookies back."""
        return json_answer(200, {"signed_out": True}, *self._taken_back())

    def refused(
        self, error: KeyturnError, status: int, body: Fields, *, refreshing: bool, over: bool
    ) -> Answer:
        """Return the refusal. Cookies are taken back only where the session is really over."""
        return json_answer(status, body, *(self._taken_back() if refreshing and over else ()))

    def _names(self) -> tuple[str | None, ...]:
        return self.access, self.refresh, self.access_csrf, self.refresh_csrf, self.expires

    def _called(self, name: str) -> str:
        return f"__Host-{name}" if self.host_prefix else name

    def _cookie(self, request: Request, name: str) -> str:
        name = self._called(name)
        shown = set(request.cookies(name))
        if len(shown) > 1:
            # One of them was planted, by a sibling domain or another path, and nobody knows which.
            raise RequestMalformed(f"the cookie {name} is there twice, with different values")
        token = shown.pop() if shown else ""
        if not token:
            raise TokenMissing(f"the request has no {name}")
        return token

    def _bake(self, name: str, value: str, path: str, life: int | None, *, hidden: bool = False) -> str:
        return set_cookie(
            self._called(name), value, path=path, domain=self.domain, max_age=life,
            secure=self.secure, http_only=hidden, same_site=self.samesite,
        )  # fmt: skip

    def _taken_back(self) -> tuple[tuple[str, str], ...]:
        paths = (self.access_path, self.refresh_path, "/", "/", "/")
        return tuple(
            ("Set-Cookie", self._bake(name, "", path, 0) + "; Expires=Thu, 01 Jan 1970 00:00:00 GMT")
            for name, path in zip(self._names(), paths, strict=True)
            if name is not None
        )

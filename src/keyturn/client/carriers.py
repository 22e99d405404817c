"""Carriers: how tokens ride on a request, and what a refusal looks like.

A carrier is stateless and knows no HTTP library: it writes into a mapping of
headers and reads an `Answer`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, fields
from typing import Protocol

from keyturn.client.answer import Answer, FieldPaths, check_fields, tokens_at
from keyturn.errors import ConfigurationError
from keyturn.tokens import Tokens, received

Headers = MutableMapping[str, str]
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110 §5.6.2


class Carrier(Protocol):
    """How tokens ride on a request.

    `headers` names the headers that it writes, in lower case. `adopts` says
    that a response may carry a newer pair; `renews` that each one may, and
    kills the one before; `body` that it is in the response's body, which is
    then read at once.
    """

    headers: tuple[str, ...]
    adopts: bool
    renews: bool
    body: bool

    def attach(self, headers: Headers, tokens: Tokens) -> None:
        """Write the tokens into the headers of a request."""
        ...

    def carries(self, headers: Mapping[str, str], tokens: Tokens) -> bool:
        """Tell whether a request that was sent still carried these tokens."""
        ...

    def refused(self, status: int, headers: Mapping[str, str]) -> bool:
        """Tell whether a response refuses the access token."""
        ...

    def adopt(self, answer: Answer, carried: Tokens) -> Tokens | None:
        """Return the newer pair that a response carries, None where it carries none."""
        ...

    def withhold(self, headers: Headers) -> None:
        """Take out of a request to another origin what is ours and the host library put in."""
        ...


class Bearer:
    """`Authorization: Bearer …` (RFC 6750 §2.1).

    A response is a refusal when its status is in `refusals`, unless it asks
    for another scheme only (`WWW-Authenticate: Basic`). `adopt` says where a
    response may carry a newer pair: `{"access": "X-Access-Token", "refresh":
    …, "expires_in": …}` for headers, `InBody({...})` for a JSON body with
    dotted names, or a callable `(answer, carried) -> Tokens | None`.
    """

    headers: tuple[str, ...] = ("authorization",)

    def __init__(
        self,
        *,
        refusals: Iterable[int] = (401,),
        adopt: FieldPaths | InBody | Callable[[Answer, Tokens], Tokens | None] | None = None,
    ) -> None:
        self._refusals = _statuses(refusals)
        if adopt is not None and not isinstance(adopt, Mapping) and not callable(adopt):
            raise ConfigurationError("adopt maps fields to header names, or is InBody(...) or a callable")
        self.adopts = self.renews = adopt is not None
        self.body = isinstance(adopt, InBody)
        self._adopt = InHeaders(adopt) if isinstance(adopt, Mapping) else adopt

    def attach(self, headers: Headers, tokens: Tokens) -> None:
        """Write the Authorization header; one that is already there gives way."""
        headers["Authorization"] = "Bearer " + tokens.access

    def carries(self, headers: Mapping[str, str], tokens: Tokens) -> bool:
        """Tell whether the Authorization header is still there; a redirect may have dropped it."""
        return headers.get("Authorization") == "Bearer " + tokens.access

    def refused(self, status: int, headers: Mapping[str, str]) -> bool:
        """Tell whether a response refuses the token."""
        if status not in self._refusals:
            return False
        challenge = headers.get("WWW-Authenticate")
        return challenge is None or "bearer" in challenge.lower() or "dpop" in challenge.lower()

    def withhold(self, headers: Headers) -> None:
        """Leave an Authorization header alone: to another origin it is the caller's own."""

    def adopt(self, answer: Answer, carried: Tokens) -> Tokens | None:
        """Return the newer pair that a response carries."""
        return None if self._adopt is None else self._adopt(answer, carried)


class InHeaders:
    """A newer pair in response headers: maps "access", "refresh" and "expires_in" to header names."""

    def __init__(self, names: FieldPaths) -> None:
        self._names = check_fields(names)

    def __call__(self, answer: Answer, carried: Tokens) -> Tokens | None:
        """Return the pair, None where the headers carry none."""
        values = {field: answer.headers.get(name) for field, name in self._names.items()}
        return tokens_at(values, {field: field for field in self._names}, answer.sent_at, carried)


class InBody:
    """A newer pair in a JSON body: maps "access", "refresh" and "expires_in" to dotted names."""

    def __init__(self, names: FieldPaths) -> None:
        self._names = check_fields(names)

    def __call__(self, answer: Answer, carried: Tokens) -> Tokens | None:
        """Return the pair, None where the body carries none."""
        return tokens_at(answer.json(), self._names, answer.sent_at, carried)


@dataclass(frozen=True, slots=True)
class CookieNames:
    """The names that the server uses; the defaults are flask-jwt-extended's and keyturn's own.

    Raises ConfigurationError for what cannot be a name.
    """

    access: str = "access_token_cookie"
    refresh: str = "refresh_token_cookie"
    access_csrf: str = "csrf_access_token"
    refresh_csrf: str = "csrf_refresh_token"
    header: str = "X-CSRF-TOKEN"

    def __post_init__(self) -> None:
        for field in fields(self):
            name: object = getattr(self, field.name)
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise ConfigurationError(f"CookieNames.{field.name} cannot name a cookie or a header")


class Cookies:
    """HttpOnly cookies with a double-submit CSRF header.

    The access cookie is merged by name into whatever `Cookie` header the host
    library wrote; ours wins. A response that sets the access cookie anew is
    adopted.

    `refusals` are the statuses that refuse a token. flask-jwt-extended also
    answers 422, for a token that it cannot read: `refusals=(401, 422)`. That is
    not the default, since many services answer 422 to a form that does not
    validate: each would cost a refresh, and the form be sent twice.
    """

    adopts = True
    body = False

    def __init__(
        self,
        names: CookieNames = CookieNames(),
        *,
        refusals: Iterable[int] = (401,),
        renews: bool = False,
    ) -> None:
        if not isinstance(names, CookieNames):
            raise ConfigurationError("names must be a CookieNames(...)")
        self.names = names
        self.renews = renews
        self.headers: tuple[str, ...] = ("cookie", names.header.lower())
        self._refusals = _statuses(refusals)

    def attach(self, headers: Headers, tokens: Tokens) -> None:
        """Merge the access cookie into the Cookie header and set the CSRF header."""
        names, csrf = self.names, tokens.extra.get(self.names.access_csrf)
        ours = {names.access: tokens.access} | ({} if csrf is None else {names.access_csrf: csrf})
        headers["Cookie"] = merge_cookies(headers.get("Cookie", ""), ours)
        if csrf is not None:
            headers[names.header] = csrf

    def carries(self, headers: Mapping[str, str], tokens: Tokens) -> bool:
        """Tell whether the access cookie is still there; a redirect rewrites the Cookie header."""
        return f"{self.names.access}={tokens.access}" in headers.get("Cookie", "").split("; ")

    def refused(self, status: int, headers: Mapping[str, str]) -> bool:
        """Tell whether a response refuses the token."""
        return status in self._refusals

    def withhold(self, headers: Headers) -> None:
        """Drop the cookies of our names.

        The host library's jar keeps what the server sets, and its cookies
        know no ports: they would go to any other service on the same host. A
        second service with the same cookie names needs a client of its own.
        """
        names = self.names
        cookies = headers.get("Cookie")
        if cookies is not None:
            ours = (names.access, names.refresh, names.access_csrf, names.refresh_csrf)
            kept = _without(cookies, ours)
            if kept:
                headers["Cookie"] = "; ".join(kept)
            else:
                del headers["Cookie"]

    def adopt(self, answer: Answer, carried: Tokens) -> Tokens | None:
        """Return the pair that the response's Set-Cookies make of the carried one."""
        return cookie_pair(answer, self.names, carried)


def _statuses(refusals: object) -> frozenset[int]:
    statuses = tuple(refusals) if isinstance(refusals, Iterable) else (None,)
    if not all(isinstance(status, int) for status in statuses):
        raise ConfigurationError("refusals are HTTP statuses, as in refusals=(401, 422)")
    return frozenset(statuses)


def cookie_pair(answer: Answer, names: CookieNames, old: Tokens | None) -> Tokens | None:
    """Return the pair that `answer` sets; what it does not set goes on from `old`."""
    cookies = answer.cookies()
    access = cookies.get(names.access)
    if not access:
        return None
    csrf = {} if old is None else dict(old.extra)
    csrf |= {name: cookies[name] for name in (names.access_csrf, names.refresh_csrf) if cookies.get(name)}
    refresh = cookies.get(names.refresh) or (None if old is None else old.refresh)
    try:
        return received(access, sent_at=answer.sent_at, refresh=refresh, extra=csrf)
    except ConfigurationError:  # not a token that a header could carry
        return None


def merge_cookies(header: str, ours: Mapping[str, str]) -> str:
    """Return a Cookie header with `ours` in place of any cookies of the same names."""
    return "; ".join([*_without(header, ours), *(f"{name}={value}" for name, value in ours.items())])


def _without(header: str, names: Container[str]) -> list[str]:
    """Return the cookies of a Cookie header but those called `names`."""
    pairs = (part.strip() for part in header.split(";"))
    return [pair for pair in pairs if pair and pair.partition("=")[0].rstrip() not in names]

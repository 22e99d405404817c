"""Answer: a response as keyturn reads it, whichever HTTP library it came from.

A login response goes to a grant's `read`, an API response to a carrier's
`adopt`. Both look at the status, the headers and, if they must, the JSON body.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Protocol, cast

from keyturn.errors import ConfigurationError
from keyturn.tokens import Tokens, received

FieldPaths = Mapping[str, str]
_FIELDS = ("access", "refresh", "expires_in")
_NUMBER = re.compile(r"-?[0-9]+")


class HTTPResponse(Protocol):
    """What httpx2, httpx, requests and niquests agree on, as far as keyturn needs it."""

    @property
    def status_code(self) -> int:
        """Return the HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers."""
        ...

    @property
    def content(self) -> bytes:
        """Return the body."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """The status, the headers (a case-insensitive mapping), the `Set-Cookie`s and the body of a response.

    `sent_at` is when its request was sent, in POSIX seconds. The repr leaves
    out headers and body, which hold tokens.
    """

    status: int
    headers: Mapping[str, str]
    sent_at: float
    set_cookies: tuple[str, ...] = ()
    content: bytes = b""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status}, {len(self.content)} bytes>"

    @classmethod
    def of(cls, response: HTTPResponse) -> Answer:
        """Return the answer that a fully read response holds, dated as far as the response tells."""
        if not hasattr(response, "status_code") or not hasattr(response, "headers"):
            raise ConfigurationError(
                f"read takes a response, with its status and headers, not {type(response).__name__}"
            )
        headers = response.headers
        # requests and niquests join the values of a header to one; behind `raw` they are apart.
        apart: Mapping[str, str] = getattr(getattr(response, "raw", None), "headers", headers)
        return cls(
            response.status_code, headers, _sent_at(response), set_cookies(apart), response.content or b""
        )

    def json(self) -> Mapping[str, object] | None:
        """Return the JSON object in the body, None where there is none."""
        try:
            body = _loaded(self.content)
        except (ValueError, RecursionError):
            return None
        return body if isinstance(body, dict) else None

    def cookies(self) -> Mapping[str, str]:
        """Return the cookies that the response sets, by name; an empty value for one that it deletes."""
        return dict(_cookies(self.set_cookies))


def _loaded(content: bytes) -> object:
    """Return the JSON in a body, whatever type and character set its headers claim."""
    try:
        return json.loads(content)
    except UnicodeDecodeError:  # a token is ASCII, in this too
        return json.loads(content.decode("latin-1"))


def set_cookies(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return every `Set-Cookie` of `headers`, whatever the library calls the method for it."""
    for name in ("get_list", "getlist", "getall"):
        many = getattr(headers, name, None)
        if many is not None:
            return tuple(many("set-cookie")) if "set-cookie" in headers else ()
    single = headers.get("set-cookie")
    return () if single is None else (single,)


def _sent_at(response: object) -> float:
    """Return when the request of `response` was sent, in POSIX seconds, as far as the response tells."""
    try:
        elapsed = getattr(response, "elapsed", None)
    except RuntimeError:  # httpx: a response that is still open
        elapsed = None
    return time.time() - (elapsed.total_seconds() if isinstance(elapsed, timedelta) else 0.0)


def check_fields(fields: object) -> FieldPaths:
    """Return `fields` as given. Raises ConfigurationError for a name that keyturn does not know."""
    if not isinstance(fields, Mapping) or set(fields) - set(_FIELDS) or "access" not in fields:
        given = sorted(map(str, fields)) if isinstance(fields, Mapping) else type(fields).__name__
        raise ConfigurationError(
            f"fields map 'access' and maybe 'refresh' and 'expires_in' to names, not {given}"
        )
    for field, name in fields.items():
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"the name of the field {field!r} must be a non-empty string")
    return cast(FieldPaths, fields)


def tokens_at(
    body: Mapping[str, object] | None, fields: FieldPaths, sent_at: float, old: Tokens | None
) -> Tokens | None:
    """Return the pair that `body` holds under dotted names, None where it holds none.

    A missing refresh token means that the old one goes on (RFC 6749 §6).
    """
    access = _dig(body, fields["access"])
    refresh = _dig(body, fields["refresh"]) if "refresh" in fields else None
    if not isinstance(access, str):
        return None
    if not isinstance(refresh, str) or not refresh:
        refresh = None if old is None else old.refresh
    expires_in = _dig(body, fields["expires_in"]) if "expires_in" in fields else None
    try:
        return received(access, sent_at=sent_at, refresh=refresh, expires_in=expires_in)
    except ConfigurationError:  # not a token that a header could carry
        return None


def _dig(body: object, path: str) -> object:
    for key in path.split("."):
        if not isinstance(body, Mapping):
            return None
        body = body.get(key)
    return body


def _cookies(lines: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield name and value of each `Set-Cookie` as RFC 6265 §5.2 reads it."""
    for line in lines:
        pair, *attributes = line.split(";")
        name, separator, value = pair.partition("=")
        if not separator or not name.strip():
            continue
        yield name.strip(), "" if _deletes(attributes) else value.strip().strip('"')


def _deletes(attributes: list[str]) -> bool:
    """Tell whether the attributes make the cookie expire at once: Max-Age rules over Expires."""
    values = {
        name.strip().lower(): value.strip() for name, _, value in (part.partition("=") for part in attributes)
    }
    max_age = values.get("max-age")
    if max_age is not None and _NUMBER.fullmatch(max_age):
        return max_age.startswith("-") or not max_age.strip("0")
    try:
        return "expires" in values and parsedate_to_datetime(values["expires"]).timestamp() <= time.time()
    except (ValueError, OverflowError):
        return False

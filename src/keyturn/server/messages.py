"""A request and an answer as plain values, which every framework can be translated to and from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from keyturn.errors import ConfigurationError
from keyturn.server.session import JSON

Header: TypeAlias = tuple[str, str]

_LARGEST_COOKIE = 4096  # RFC 6265 §6.1: what a browser keeps at least, and most keep no more


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """What an end point reads of a request. `body` is empty where it has none."""

    method: str
    headers: tuple[Header, ...]
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """Return a header's value, None where it is absent or there more than once."""
        name = name.lower()
        values = [value for header, value in self.headers if header.lower() == name]
        return values[0] if len(values) == 1 else None

    def cookies(self, name: str) -> list[str]:
        """Return all values that the request has for a cookie (RFC 6265 §4.2), as they stand.

        Quotes are part of a value, so that a value has one spelling.
        """
        pairs = (
            pair.strip(" \t").partition("=")
            for header, value in self.headers
            if header.lower() == "cookie"
            for pair in value.split(";")
        )
        return [value for cookie, _, value in pairs if cookie == name]

    def __repr__(self) -> str:
        return f"<Request {self.method}>"


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """What an end point answers."""

    status: int
    headers: tuple[Header, ...]
    body: bytes

    def __repr__(self) -> str:
        return f"<Answer {self.status}>"


def json_answer(status: int, body: Mapping[str, JSON], *headers: Header) -> Answer:
    """Return a JSON answer that no cache keeps (RFC 6749 §5.1)."""
    fixed = (("Content-Type", "application/json"), ("Cache-Control", "no-store"), ("Pragma", "no-cache"))
    return Answer(status, fixed + headers, json.dumps(body, separators=(",", ":")).encode() + b"\n")


def set_cookie(
    name: str,
    value: str,
    *,
    path: str,
    domain: str | None,
    max_age: int | None,
    secure: bool,
    http_only: bool,
    same_site: str,
) -> str:
    """Return a Set-Cookie value (RFC 6265 §4.1). Raises ConfigurationError where a browser would drop it."""
    if len(name) + len(value) > _LARGEST_COOKIE:
        raise ConfigurationError(
            f"the cookie {name} is larger than browsers keep: give the session fewer claims"
        )
    parts = [f"{name}={value}", f"Path={path}"]
    if domain is not None:
        parts.append(f"Domain={domain}")
    if max_age is not None:
        parts.append(f"Max-Age={max_age}")
    if secure:
        parts.append("Secure")
    if http_only:
        parts.append("HttpOnly")
    parts.append(f"SameSite={same_site}")
    return "; ".join(parts)

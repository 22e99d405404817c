"""What an issuer takes from its application, checked before anything is made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from keyturn.errors import ConfigurationError
from keyturn.server.access_tokens import RESERVED
from keyturn.server.session import JSON

_LARGEST_CLAIMS: Final = 4096
_LONGEST_NAME: Final = 255


def check_text(what: str, value: object) -> None:
    """Raise ConfigurationError unless an issuer's argument is text that every token can carry."""
    if not isinstance(value, str) or not value or not value.isprintable() or not value.isascii():
        raise ConfigurationError(f"Issuer {what}= must be visible ASCII text")


def check_span(what: str, value: object) -> None:
    """Raise ConfigurationError unless an issuer's argument is a span of time."""
    if not isinstance(value, timedelta) or value <= timedelta(0):
        raise ConfigurationError(f"Issuer {what}= must be a timedelta longer than 0")


def check_name(what: str, value: object) -> None:
    """Raise ConfigurationError unless `value` is a name that every store and token can carry."""
    if (
        not isinstance(value, str)
        or not 0 < len(value) <= _LONGEST_NAME
        or any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value)
    ):
        raise ConfigurationError(f"{what} must be a str of 1 to {_LONGEST_NAME} characters")


def carried(claims: Mapping[str, JSON]) -> Mapping[str, JSON]:
    """Return a copy of `claims` as they come out of a token again.

    Raises ConfigurationError for claims that are keyturn's own or that no
    token can carry.
    """
    if taken := RESERVED.intersection(claims):
        raise ConfigurationError(f"these claims are keyturn's own: {', '.join(sorted(taken))}")
    try:
        text = json.dumps(dict(claims), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError):
        raise ConfigurationError("claims must be what JSON can say") from None
    if len(text) > _LARGEST_CLAIMS:
        raise ConfigurationError(f"claims may have {_LARGEST_CLAIMS} bytes as JSON, these have {len(text)}")
    return MappingProxyType(json.loads(text))

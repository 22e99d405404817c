"""Read the fields of a request's body, whatever somebody sends: they come out, or RequestMalformed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from keyturn.errors import RequestMalformed
from keyturn.server.messages import Request

LARGEST: Final = 8 * 1024
_MOST_FIELDS: Final = 32


def fields(request: Request) -> Mapping[str, object]:
    """Return the top level of a JSON object or of a form; nothing for an empty body.

    Raises RequestMalformed for anything else, and where a name is there
    twice: readers differ in which one they take (RFC 6749 §3.2 forbids it).
    """
    if len(request.body) > LARGEST:
        raise RequestMalformed(f"the body is larger than {LARGEST} bytes")
    if not request.body.strip():
        return {}
    kind = (request.header("Content-Type") or "").partition(";")[0].strip().lower()
    try:
        text = request.body.decode("utf-8")
        if kind == "application/x-www-form-urlencoded":
            pairs = parse_qsl(
                text,
                keep_blank_values=True,
                strict_parsing=True,
                errors="strict",
                max_num_fields=_MOST_FIELDS,
            )
            return _once(list(pairs))
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise RequestMalformed("the body must be application/json or application/x-www-form-urlencoded")
        body = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise RequestMalformed("the body cannot be read as what its Content-Type says") from None
    if not isinstance(body, dict):
        raise RequestMalformed("the body must be a JSON object")
    return body


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    said = dict(pairs)
    if len(said) != len(pairs):
        raise RequestMalformed("the body has a name twice")
    return said


def _refuse(constant: str) -> object:
    raise RequestMalformed(f"{constant} is not JSON")

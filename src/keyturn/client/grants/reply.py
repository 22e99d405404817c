"""Reply: what an end point answered, and what of it an error may repeat.

RFC 6749 §5.2 gives an error a code, a description for developers and the
address of a page. All three are texts from outside that may quote what was
sent, so they are kept as evidence only as far as the RFC's character sets go,
up to a length, and not where a secret that was sent, or a piece of one, is
found in them. Where nobody can tell what was sent, only the code is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypedDict
from urllib.parse import parse_qsl, unquote_plus

from keyturn.client.answer import Answer

_FORM = "application/x-www-form-urlencoded"
_CODE = re.compile(r"[a-z_.-]{1,64}", re.IGNORECASE)  # words only: a token that is echoed has digits
_NOT_DESCRIPTION = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]+")
_PAGE = re.compile(r"https?://[\x21\x23-\x5b\x5d-\x7e]+", re.IGNORECASE)
_LONGEST_TEXT = 512
_LONGEST_READ = 4096  # a longer one is not a description, and looking through it would take long
_PIECE = 12  # of a secret; a shorter piece tells nothing, and may be there by chance


class Evidence(TypedDict):
    """What an error keeps of an error answer; see `keyturn.errors.RefreshMisconfigured`."""

    error: str | None
    error_description: str | None
    error_uri: str | None


@dataclass(frozen=True, slots=True, repr=False)
class Reply(Answer):
    """The answer to a request of a grant.

    `errand` says what the request was for ("refresh", "revocation");
    `secrets` is all in it that must not be repeated, None if nobody can tell.
    """

    errand: str = "refresh"
    secrets: tuple[str, ...] | None = None

    def body(self) -> Mapping[str, object] | None:
        """Return the object in the body, None where there is none."""
        return fields_of(self)

    def error_code(self) -> str | None:
        """Return the error code of RFC 6749 §5.2, None where there is none that looks like a code."""
        code = (self.body() or {}).get("error")
        return code if isinstance(code, str) and _CODE.fullmatch(code) else None

    def evidence(self) -> Evidence:
        """Return what of an error answer may be repeated."""
        body, code, secrets = self.body() or {}, self.error_code(), self.secrets
        if secrets is None:
            return {"error": code, "error_description": None, "error_uri": None}
        return {
            "error": None if code is not None and _quotes(code, secrets) else code,
            "error_description": _description(body.get("error_description"), secrets),
            "error_uri": _page(body.get("error_uri"), secrets),
        }


def fields_of(answer: Answer) -> Mapping[str, object] | None:
    """Return the object in a body: JSON, whatever type is claimed for it, or a form that says so."""
    body = answer.json()
    if body is None and answer.headers.get("content-type", "").lower().startswith(_FORM):
        try:
            return dict(parse_qsl(answer.content.decode("ascii"), max_num_fields=64)) or None
        except ValueError:
            return None
    return body


def _description(value: object, secrets: Iterable[str]) -> str | None:
    """Return an `error_description` in the character set of RFC 6749 §5.2."""
    if not isinstance(value, str) or len(value) > _LONGEST_READ:
        return None
    text = _NOT_DESCRIPTION.sub(" ", value).strip()
    return None if _quotes(value, secrets) or _quotes(text, secrets) else text[:_LONGEST_TEXT] or None


def _page(value: object, secrets: Iterable[str]) -> str | None:
    """Return an `error_uri` that a browser may be pointed to."""
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT or not _PAGE.fullmatch(value):
        return None
    return None if _quotes(value, secrets) else value


def _quotes(text: str, secrets: Iterable[str]) -> bool:
    """Tell whether a text repeats a secret, or a piece of one, in any case and percent-encoded or not."""
    forms = {text.lower(), unquote_plus(text).lower()}
    pieces = {form[at : at + _PIECE] for form in forms for at in range(len(form) - _PIECE + 1)}
    for secret in map(str.lower, secrets):
        if 0 < len(secret) < _PIECE:
            if any(secret in form for form in forms):
                return True
        elif any(secret[at : at + _PIECE] in pieces for at in range(len(secret) - _PIECE + 1)):
            return True
    return False

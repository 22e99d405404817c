"""The double-submit value against cross-site request forgery, bound to its token.

It is an HMAC of the token under a key of its own. So nothing is kept for it,
it is known to be the token's own, and a value that was planted by somebody
who can set cookies for the site goes with no token (the signed double
submit).
"""

from __future__ import annotations

import base64
import hmac

from keyturn.errors import CSRFRefused
from keyturn.server.keys import Keys


class CSRF:
    """Makes and checks the double-submit values of one issuer's tokens."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys.derive("csrf")
        self._signing = keys.signing

    def value(self, token: str) -> str:
        """Return the value that goes with `token`."""
        return _value(self._keys[self._signing], token)

    def check(self, token: str, value: str | None) -> None:
        """Raise CSRFRefused unless `value` goes with `token`."""
        if not value:
            raise CSRFRefused("the double-submit value is missing")
        shown = value.encode(errors="replace")
        if not any(hmac.compare_digest(_value(key, token).encode(), shown) for key in self._keys.values()):
            raise CSRFRefused("the double-submit value does not go with this token")


def _value(key: bytes, token: str) -> str:
    return (
        base64.urlsafe_b64encode(hmac.digest(key, token.encode(errors="replace"), "sha256"))
        .rstrip(b"=")
        .decode()
    )

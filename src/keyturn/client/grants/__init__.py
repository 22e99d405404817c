"""Grants: how a new pair is bought, and what an answer means.

`OAuth2` for a token end point of RFC 6749, `JSON` for a house format,
`Cookies` for HttpOnly cookies with CSRF, `Call` for anything else; wherever a
grant is taken, a bare callable `(tokens, http) -> Tokens` stands for `Call`.
"""

from keyturn.client.grants.cookies import Cookies
from keyturn.client.grants.function import Call, Function, grant_of
from keyturn.client.grants.house import JSON
from keyturn.client.grants.http import Grant, Wire
from keyturn.client.grants.oauth2 import OAuth2

__all__ = ["JSON", "Call", "Cookies", "Function", "Grant", "OAuth2", "Wire", "grant_of"]

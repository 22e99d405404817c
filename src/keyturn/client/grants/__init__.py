"""Grants: how a new pair is bought, and what an answer means.

`OAuth2` and `ClientCredentials` for a token end point of RFC 6749, `JSON` and
`BearerRefresh` for a house format, `Cookies` for HttpOnly cookies with CSRF,
`Call` for anything else; wherever a grant is taken, a bare callable
`(tokens, http) -> Tokens` stands for `Call`.
"""

from keyturn.client.grants.client_auth import ClientAuth, Proof
from keyturn.client.grants.client_credentials import ClientCredentials
from keyturn.client.grants.cookies import Cookies
from keyturn.client.grants.function import Call, Function, grant_of
from keyturn.client.grants.grant import Grant, Revoking, Wire
from keyturn.client.grants.house import JSON, BearerRefresh
from keyturn.client.grants.oauth2 import OAuth2
from keyturn.client.grants.private_key_jwt import PrivateKeyJWT

__all__ = [
    "JSON",
    "BearerRefresh",
    "Call",
    "ClientAuth",
    "ClientCredentials",
    "Cookies",
    "Function",
    "Grant",
    "OAuth2",
    "PrivateKeyJWT",
    "Proof",
    "Revoking",
    "Wire",
    "grant_of",
]

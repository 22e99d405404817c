"""The client: credentials that refresh once, however many requests need them."""

from keyturn.client import events, grants
from keyturn.client.answer import Answer
from keyturn.client.carriers import Bearer, Carrier, CookieNames, Cookies, InBody, InHeaders
from keyturn.client.credentials import Credentials
from keyturn.client.snapshot import Snapshot

__all__ = [
    "Answer",
    "Bearer",
    "Carrier",
    "CookieNames",
    "Cookies",
    "Credentials",
    "InBody",
    "InHeaders",
    "Snapshot",
    "events",
    "grants",
]

"""keyturn for httpx2: `Auth` for bearer tokens, `Transport` and `AsyncTransport` for any carrier."""

from __future__ import annotations

import httpx2

from keyturn.client import httpx_family as family


class Auth(family.Auth[httpx2.Request, httpx2.Response], httpx2.Auth):
    __doc__ = family.Auth.__doc__
    _byte_stream = httpx2.ByteStream


class Transport(family.Transport[httpx2.Request, httpx2.Response], httpx2.BaseTransport):
    __doc__ = family.Transport.__doc__
    _byte_stream = httpx2.ByteStream
    _default = httpx2.HTTPTransport


class AsyncTransport(family.AsyncTransport[httpx2.Request, httpx2.Response], httpx2.AsyncBaseTransport):
    __doc__ = family.AsyncTransport.__doc__
    _byte_stream = httpx2.ByteStream
    _default = httpx2.AsyncHTTPTransport

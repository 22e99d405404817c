"""keyturn for httpx: `Auth` for bearer tokens, `Transport` and `AsyncTransport` for any carrier."""

from __future__ import annotations

from keyturn.errors import MissingExtra

try:
    import httpx
except ImportError as error:
    raise MissingExtra("keyturn.client.httpx needs httpx: pip install 'keyturn[httpx]'") from error

from keyturn.client import httpx_family as family


class Auth(family.Auth[httpx.Request, httpx.Response], httpx.Auth):
    __doc__ = family.Auth.__doc__
    _byte_stream = httpx.ByteStream


class Transport(family.Transport[httpx.Request, httpx.Response], httpx.BaseTransport):
    __doc__ = family.Transport.__doc__
    _byte_stream = httpx.ByteStream
    _default = httpx.HTTPTransport


class AsyncTransport(family.AsyncTransport[httpx.Request, httpx.Response], httpx.AsyncBaseTransport):
    __doc__ = family.AsyncTransport.__doc__
    _byte_stream = httpx.ByteStream
    _default = httpx.AsyncHTTPTransport

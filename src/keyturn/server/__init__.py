"""The server half: sessions, and refresh tokens that parallel calls cannot break.

    from keyturn.server import Issuer

    issuer = Issuer(secret=os.environ["KEYTURN_SECRET"], store="sqlite:///sessions.db")

An `Issuer` signs in, refreshes, verifies and signs out; it knows no web
framework. `keyturn.server.flask` puts it behind Flask.
"""

from __future__ import annotations

from keyturn.errors import MissingExtra

try:
    import cryptography as _cryptography
    import joserfc as _joserfc
except ImportError as _absent:
    raise MissingExtra(
        "keyturn.server needs joserfc and cryptography: pip install 'keyturn[server]', or 'keyturn[flask]'",
        name=_absent.name,
    ) from None
else:
    del _cryptography, _joserfc

from keyturn.server.access_tokens import Claims
from keyturn.server.delivery import Bearer, Cookies
from keyturn.server.issuer import Issuer, TokenPair
from keyturn.server.rotation import Rotation
from keyturn.server.session import JSON, Session

__all__ = ["JSON", "Bearer", "Claims", "Cookies", "Issuer", "Rotation", "Session", "TokenPair"]

"""keyturn: one refresh, however many requests.

What a user of the client needs: `Credentials` (`CredentialsPool` for many
principals), `Tokens` and the errors. The server is `keyturn.server`, the
adapters are `keyturn.client.httpx2` and its siblings.
"""

from keyturn.client.credentials import Credentials
from keyturn.client.pool import CredentialsPool
from keyturn.errors import (
    ConfigurationError,
    CredentialsClosed,
    KeyturnError,
    MissingExtra,
    NotReplayable,
    NotSignedIn,
    OutcomeUnknown,
    ReentrantRefresh,
    RefreshAfterFork,
    RefreshError,
    RefreshMisconfigured,
    RefreshTimeout,
    RefreshUnavailable,
    RefreshUnsupported,
    SessionEnded,
    TokenStoreUnavailable,
)
from keyturn.tokens import Tokens

__all__ = [
    "ConfigurationError",
    "Credentials",
    "CredentialsClosed",
    "CredentialsPool",
    "KeyturnError",
    "MissingExtra",
    "NotReplayable",
    "NotSignedIn",
    "OutcomeUnknown",
    "ReentrantRefresh",
    "RefreshAfterFork",
    "RefreshError",
    "RefreshMisconfigured",
    "RefreshTimeout",
    "RefreshUnavailable",
    "RefreshUnsupported",
    "SessionEnded",
    "TokenStoreUnavailable",
    "Tokens",
]

"""Token stores: where credentials keep their tokens, opened by URL.

`memory://` is this process: the snapshot in the credentials is the record,
their lock its lease, and what a fork or the end of the process means follows
from that (see `keyturn.errors.RefreshAfterFork`).
"""

from keyturn.errors import ConfigurationError

SCHEMES = ("memory",)


def check_store(url: str) -> None:
    """Raise ConfigurationError for a URL that names no token store."""
    if url != "memory://":
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ConfigurationError(f"unknown token store {url.partition('://')[0]!r}; this version has {known}")

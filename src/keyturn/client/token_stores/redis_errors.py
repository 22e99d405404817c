"""What goes wrong with a Redis, as keyturn's errors.

They name a class or the first word of the server's error, never its text,
which may quote what was sent.
"""

from __future__ import annotations

import re
import ssl

from redis import exceptions

from keyturn.errors import RefreshError, RefreshMisconfigured, TokenStoreUnavailable

# The first word of an error that the server gives until it is itself again, or until there is room.
_PASSING = {
    *("BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "READONLY", "TRYAGAIN"),
    *("NOMASTERLINK", "UNBLOCKED"),
}
_LASTING = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)
_LASTING_BELOW = (ssl.SSLCertVerificationError, FileNotFoundError, PermissionError)
_WORDS = {
    exceptions.BusyLoadingError: "LOADING",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.MovedError: "MOVED",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.TryAgainError: "TRYAGAIN",
}
# Before Redis 7 the error of a command in a script stands in the middle of the script's own.
_WORD = re.compile(r"(?:^|[ :]-)([A-Z]{3,20}) ")


def refusal(error: BaseException) -> RefreshError:
    """Return what to raise for an error of the driver's, `from None`."""
    error = _innermost(error)
    if isinstance(error, RefreshError):
        return error
    word, below = code_word(error), error.__context__
    if word == "MOVED":
        return RefreshMisconfigured(
            "the token store's Redis is a node of a cluster (MOVED): its URL begins with redis+cluster://"
        )
    if word in _PASSING:
        return TokenStoreUnavailable(f"the token store's Redis cannot serve now: {word}")
    if isinstance(below, _LASTING_BELOW):
        return RefreshMisconfigured(f"the token store's Redis cannot be used: {type(below).__name__}")
    if isinstance(error, (exceptions.ResponseError, *_LASTING)):
        return RefreshMisconfigured(f"the token store's Redis refuses: {word or type(error).__name__}")
    name = type(below if isinstance(below, OSError) else error).__name__
    return TokenStoreUnavailable(f"the token store's Redis does not answer: {name}")


def code_word(error: BaseException) -> str | None:
    """Return the word that the server's error begins with, if it is one of the server's."""
    if not isinstance(error, exceptions.ResponseError | exceptions.BusyLoadingError):
        return None
    word = next((word for kind, word in reversed(_WORDS.items()) if type(error) is kind), None)
    if word is None and (match := _WORD.search(str(error))):
        word = match[1]
    if word is None and "user executing the script" in str(error):  # Redis 7's word for it is ERR
        word = "NOPERM"
    return word


def is_lost(error: BaseException) -> bool:
    """Tell whether another connection may do better: this one broke, timed out, or leads to a replica."""
    error = _innermost(error)
    if code_word(error) == "READONLY":
        return True
    return isinstance(
        error, exceptions.ConnectionError | exceptions.TimeoutError | OSError
    ) and not isinstance(error, (*_LASTING, exceptions.BusyLoadingError, exceptions.MaxConnectionsError))


def _innermost(error: BaseException) -> BaseException:
    """Return the error of a node, where the cluster wraps it in one of its own."""
    below: BaseException | None = error
    while isinstance(below, exceptions.RedisClusterException):
        error, below = below, below.__cause__ or below.__context__
    return error if below is None else below

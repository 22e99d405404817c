"""Every error that keyturn raises.

    KeyturnError
    ├── ConfigurationError              an argument that cannot work (a ValueError)
    ├── MissingExtra                    an optional dependency is not installed (an ImportError)
    │
    │   the client
    ├── NotSignedIn                     there are no tokens, and no request can get any
    │   └── SessionEnded                there were: the server refused them for good, or somebody signed out
    ├── RefreshError                    no new tokens this time; the old ones are kept
    │   ├── RefreshMisconfigured        the end point refuses us, not the session (invalid_client, a 403)
    │   ├── RefreshUnavailable          the end point could not be reached, or is overloaded
    │   │   └── TokenStoreUnavailable   the token store does not answer, and nothing is sent without it
    │   ├── OutcomeUnknown              the refresh token was sent and may be spent; nobody knows
    │   ├── RefreshTimeout              this caller's own time ran out; the refresh goes on (a TimeoutError)
    │   ├── ReentrantRefresh            a refresh waits for itself
    │   ├── RefreshAfterFork            credentials that live in memory only, in a forked child
    │   └── RefreshUnsupported          this interpreter starts no threads, and a refresh runs on one
    ├── NotReplayable                   the request was refused, and its body cannot be sent twice
    ├── CredentialsClosed               used after close()
    │
    │   the server
    ├── StoreUnavailable                the session store does not answer: 503, never a sign-out
    ├── RequestMalformed                a body that is not what the end point takes
    └── TokenRefused                    a token does not open anything; `code` says why
        ├── TokenMissing
        ├── TokenMalformed              not one of ours by its shape
        ├── TokenForged                 ours by its shape, not by its signature
        ├── TokenExpired                an access token past its exp
        ├── CSRFRefused                 the double-submit value is missing or another token's
        └── SessionRefused              the token is genuine, its session does not go on
            ├── SessionUnknown
            ├── SessionOver             signed out, or ended after a reuse
            ├── SessionExpired          past its absolute limit
            ├── SessionIdle             past its idle limit
            ├── WrongClient             issued to another client
            ├── WrongKey                bound to another DPoP key
            ├── TokenReused             a superseded refresh token came back: the session is ended
            └── CounterTooFarAhead      ahead of the store by more than it may have lost

What happened is told by the class and by attributes, never by the message; no
token, secret or key is in either.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self, TypeVar


class KeyturnError(Exception):
    """The base of everything that keyturn raises."""

    def again(self) -> Self:
        """Return an equal error to raise in another task or thread.

        One exception object raised in many places collects all their
        tracebacks; what many wait for is therefore handed out as copies.
        """
        twin = _rebuilt(type(self), self.args, self.__dict__)
        twin.__cause__ = self.__cause__
        return twin

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes whole, whatever the constructor of the class takes."""
        return _rebuilt, (type(self), self.args, self.__dict__)


AnyError = TypeVar("AnyError", bound=KeyturnError)


def _rebuilt(kind: type[AnyError], args: tuple[object, ...], state: dict[str, object]) -> AnyError:
    twin = kind.__new__(kind)
    twin.args = args
    twin.__dict__.update(state)
    if "__notes__" in state:
        twin.__notes__ = list(twin.__notes__)  # what is noted on one is not on all
    return twin


class ConfigurationError(KeyturnError, ValueError):
    """An argument cannot work. The message says which, and what would."""


class MissingExtra(KeyturnError, ImportError):
    """An optional dependency is not installed. The message is the install line."""


# The client


class NotSignedIn(KeyturnError):
    """There are no tokens, and no request can get any: sign in."""


class SessionEnded(NotSignedIn):
    """The session is over, for everyone who held it: sign in again.

    `reason` is "refused" (the server said so: RFC 6749 §5.2 `invalid_grant`,
    or what the grant declares final), "signed_out", or "replaced" (somebody
    signed in anew while this request was on its way). Where the server said
    so, `error`, `error_description` and `error_uri` are as in
    `RefreshMisconfigured`.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: Literal["refused", "signed_out", "replaced"] = "refused",
        epoch: str | None = None,
        error: str | None = None,
        error_description: str | None = None,
        error_uri: str | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.epoch = epoch
        self.error = error
        self.error_description = error_description
        self.error_uri = error_uri


class RefreshError(KeyturnError):
    """No new tokens this time. The session is not over and the old tokens are kept.

    `status` is the HTTP status that the end point answered, if it did.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class RefreshMisconfigured(RefreshError):
    """The end point refuses us, not the session: `invalid_client`, a firewall's 403, a wrong path.

    `error`, `error_description` and `error_uri` are those of RFC 6749 §5.2,
    where the answer had them. The description is what the server wrote for a
    developer: in printable ASCII, at most 512 characters of it, and None
    where it quotes a token or a secret that was sent. It stands in no message
    and in no log.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        error: str | None = None,
        error_description: str | None = None,
        error_uri: str | None = None,
    ) -> None:
        super().__init__(message, status=status)
        self.error = error
        self.error_description = error_description
        self.error_uri = error_uri


class RefreshUnavailable(RefreshError):
    """The end point could not be reached or is overloaded, and the time for retries is used up.

    `retry_after` is in seconds, where the server named a time; `attempts`
    counts the requests that were tried.
    """

    def __init__(
        self, message: str, *, status: int | None = None, retry_after: float | None = None, attempts: int = 1
    ) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after
        self.attempts = attempts


class TokenStoreUnavailable(RefreshUnavailable):
    """The token store does not answer, or its lease is not to be had, so nothing was sent.

    Tokens that are still valid are used meanwhile. A sign-out that raises it
    holds in this process, and is not known to the others yet.
    """

    def __init__(
        self, message: str, *, status: int | None = None, retry_after: float | None = None, attempts: int = 0
    ) -> None:
        super().__init__(message, status=status, retry_after=retry_after, attempts=attempts)


class OutcomeUnknown(RefreshError):
    """The refresh token was sent and no readable answer came back: it may be spent.

    Sending it again could look like theft and end the session, so keyturn
    does not. The ways out are a sign-in, or `Credentials.retry_unknown()`.
    """


class RefreshTimeout(RefreshError, TimeoutError):
    """This caller's own time ran out. The refresh goes on for everyone else."""


class ReentrantRefresh(RefreshError):
    """A refresh waits for itself: the grant used the credentials that it refreshes."""


class RefreshAfterFork(RefreshError):
    """Credentials that live in memory only cannot refresh in a forked child.

    Parent and child would spend the same single-use token. Create the
    credentials after the fork, or keep them in a store that both share.
    """


class RefreshUnsupported(RefreshError):
    """This interpreter cannot refresh: it starts no thread, and a refresh runs on one.

    So it is in a browser (Pyodide) and in an isolated subinterpreter. Tokens
    that are valid are used there; refresh them elsewhere, and hand them over
    with `Credentials.sign_in`.
    """


class NotReplayable(KeyturnError):
    """The request was refused, and its body cannot be sent a second time.

    The refusal has been reported: send the request again, with a new body.
    `method` and `status` say which request and which refusal.
    """

    def __init__(self, message: str, *, method: str, status: int) -> None:
        super().__init__(message)
        self.method = method
        self.status = status


class CredentialsClosed(KeyturnError):
    """The credentials were used after close()."""


# The server


class StoreUnavailable(KeyturnError):
    """The session store does not answer. Nobody is signed out for that.

    `retry_after` is in seconds.
    """

    status: ClassVar[int] = 503
    code: ClassVar[str] = "store_unavailable"

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RequestMalformed(KeyturnError):
    """A body is not what the end point takes."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "invalid_request"


class TokenRefused(KeyturnError):
    """A token does not open anything.

    `code` names the reason for programs, `status` is the HTTP status to
    answer with, `error` the code that RFC 6750 §3.1 or RFC 6749 §5.2 has for
    it. `sid` is the session's, where the token is known to be genuine.
    """

    code: ClassVar[str] = "token_refused"
    status: ClassVar[int] = 401
    error: ClassVar[str] = "invalid_token"

    def __init__(self, message: str, *, sid: str | None = None) -> None:
        super().__init__(message)
        self.sid = sid


class TokenMissing(TokenRefused):
    """The request carries no token."""

    code = "token_missing"


class TokenMalformed(TokenRefused):
    """The token is not one of ours by its shape."""

    code = "token_malformed"


class TokenForged(TokenRefused):
    """The token has our shape and not our signature."""

    code = "token_forged"


class TokenExpired(TokenRefused):
    """The access token is past its exp: refresh."""

    code = "token_expired"


class CSRFRefused(TokenRefused):
    """The double-submit value is missing, or belongs to another token."""

    code = "csrf_refused"


class SessionRefused(TokenRefused):
    """The token is genuine; its session does not go on."""

    code = "session_refused"
    error = "invalid_grant"


class SessionUnknown(SessionRefused):
    """The store has no such session."""

    code = "session_unknown"


class SessionOver(SessionRefused):
    """The session was ended: by a sign-out, or because a token of it was reused."""

    code = "session_ended"


class SessionExpired(SessionRefused):
    """The session is past its absolute limit."""

    code = "session_expired"


class SessionIdle(SessionRefused):
    """The session was not refreshed for longer than its idle limit."""

    code = "session_idle"


class WrongClient(SessionRefused):
    """The refresh token was issued to another client (RFC 6749 §6)."""

    code = "wrong_client"


class WrongKey(SessionRefused):
    """The refresh token is bound to another key (RFC 9449 §5)."""

    code = "wrong_key"


class TokenReused(SessionRefused):
    """A superseded refresh token came back: the session, and only it, is ended (RFC 9700 §4.14.2)."""

    code = "token_reused"


class CounterTooFarAhead(SessionRefused):
    """The token's counter is ahead of the store's by more than a store may have lost."""

    code = "counter_too_far_ahead"

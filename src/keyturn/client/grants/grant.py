"""The grant as its users see it, and what is known of one request of it while that runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from keyturn.client.carriers import Carrier
from keyturn.clocks import now
from keyturn.tokens import Tokens


@runtime_checkable
class _Connection(Protocol):
    async def aclose(self) -> None: ...


@dataclass(slots=True)
class Wire:
    """What is known of one request to an end point while it runs.

    `sent` turns true when the request may have left this machine,
    `connecting` when it got as far as opening a connection; `begun` is false
    while the request is still being built. `clock` gives
    POSIX seconds; what an answer says of its life counts from before sending.
    `errand` is what errors call the request.
    """

    clock: Callable[[], float] = now
    begun: bool = True
    connecting: bool = False
    sent: bool = False
    errand: str = "refresh"
    _connection: object = None

    async def trace(self, name: str, info: Mapping[str, object]) -> None:
        """Take note of httpcore's trace event `name`."""
        if name.endswith("connect_tcp.started"):
            self.connecting = True
        elif name.endswith("connect_tcp.complete"):
            self._connection = info.get("return_value")
        elif name.endswith("start_tls.failed") and isinstance(self._connection, _Connection):
            await self._connection.aclose()  # httpcore leaves it open where the handshake is cancelled
        elif name.endswith("send_request_headers.started"):
            request = info.get("request")
            if getattr(request, "method", b"") != b"CONNECT":  # a proxy's handshake carries no token
                self.sent = True


class Grant(Protocol):
    """How a new pair is bought.

    `rotates` says whether an exchange spends the refresh token;
    `replay_window` for how many seconds after a rotation the server answers
    the same refresh token again (0: never); `timeout` bounds one exchange,
    in seconds; `carrier` is how these tokens ride on a request unless the
    credentials say otherwise; `needs_refresh_token` whether there is no
    exchange without one. One exchange runs at a time. A grant that can tell
    its server of a sign-out is a `Revoking` one, too; one whose first exchange
    needs no sign-in before it, and no tokens, says so by `signs_in = True`.
    """

    rotates: bool
    replay_window: float
    timeout: float
    carrier: Carrier
    needs_refresh_token: bool

    async def exchange(self, tokens: Tokens, wire: Wire) -> Tokens:
        """Return the pair that `tokens` buys, or raise one of the errors of `keyturn.errors`."""
        ...


@runtime_checkable
class Revoking(Protocol):
    """What a grant may do besides: tell the server that tokens are given up.

    `revokes` says whether there is anywhere to tell it; where it is false,
    `revoke` does nothing.
    """

    @property
    def revokes(self) -> bool:
        """Return whether `revoke` sends anything."""
        ...

    async def revoke(self, tokens: Tokens) -> None:
        """Give `tokens` up, in one request within the grant's `timeout`.

        Raises RefreshUnavailable, RefreshMisconfigured or OutcomeUnknown
        where the server did not say that they are dead now.
        """
        ...

"""A callable as a grant: whatever buys a pair where no other grant fits."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import cast

import httpx2

from keyturn.client import loop
from keyturn.client.carriers import Bearer, Carrier
from keyturn.client.grants.grant import Grant, Wire
from keyturn.client.grants.transport import (
    HTTPFactory,
    check_factory,
    default_http,
    import_transport,
    made_by,
    tls,
    window_and_timeout,
)
from keyturn.errors import ConfigurationError, OutcomeUnknown, RefreshMisconfigured
from keyturn.tokens import Tokens

Function = (
    Callable[[Tokens, httpx2.AsyncClient], Awaitable[Tokens]] | Callable[[Tokens, httpx2.Client], Tokens]
)


def _check_arity(function: Function) -> None:
    """Raise ConfigurationError for a callable that does not take `(tokens, http)`."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # a builtin, which does not tell
        return
    try:
        signature.bind(None, None)
    except TypeError:
        raise ConfigurationError("a callable grant takes two arguments, (tokens, http)") from None


def grant_of(grant: Grant | Function) -> Grant:
    """Return a grant as it is, and a callable as a `Call`. Raises ConfigurationError for anything else."""
    if isinstance(grant, type):
        raise ConfigurationError(f"a grant is an instance, as in {grant.__name__}(…), not the class itself")
    return cast(Grant, grant) if hasattr(grant, "exchange") else Call(grant)


class Call:
    """Refresh by calling `function(tokens, http) -> Tokens`.

    An async function runs on keyturn's loop and is given an
    `httpx2.AsyncClient`, made by `http`; a plain one runs on a daemon thread
    of keyturn's and is given an `httpx2.Client`, made by `sync_http`. What
    the client raises, `raise_for_status` included, is read as an answer; an
    `invalid_grant` or a `SessionEnded` that the function raises itself ends
    the session; any other exception leaves the outcome unknown.
    """

    needs_refresh_token = False

    def __init__(
        self,
        function: Function,
        *,
        http: HTTPFactory | None = None,
        sync_http: Callable[[], httpx2.Client] | None = None,
        carrier: Carrier | None = None,
        rotates: bool = True,
        replay_window: timedelta = timedelta(0),
        timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        if not callable(function):
            raise ConfigurationError(
                "a grant is one of keyturn.client.grants or a callable (tokens, http) -> Tokens"
            )
        _check_arity(function)
        self.rotates = rotates
        self.replay_window, self.timeout = window_and_timeout(replay_window, timeout)
        self.carrier: Carrier = Bearer() if carrier is None else carrier
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - an object with an async __call__
        )
        self._http = default_http(self.timeout) if http is None else check_factory("http", http)
        import_transport()
        self._sync_http = None if sync_http is None else check_factory("sync_http", sync_http)

    def __repr__(self) -> str:
        return f"<Call {getattr(self._function, '__qualname__', type(self._function).__name__)}>"

    async def exchange(self, tokens: Tokens, wire: Wire) -> Tokens:
        """Call the function and return the Tokens that it returns; see `Grant.exchange`."""
        if self._is_async:
            pair = await self._call_async(tokens, wire)
        else:
            wire.sent = True  # from here on nobody can tell
            pair = await self._call_on_thread(tokens)
        if not isinstance(pair, Tokens):
            wrong = f"the grant must return keyturn.Tokens, not {type(pair).__name__}"
            if inspect.iscoroutine(pair):  # which has not even begun
                pair.close()
                raise RefreshMisconfigured(wrong)
            raise OutcomeUnknown(wrong) if wire.sent else RefreshMisconfigured(wrong)
        return pair

    async def _call_async(self, tokens: Tokens, wire: Wire) -> object:
        wire.sent = True  # by a client of the function's own, for all that anybody can tell
        quiet = True

        async def watch(request: httpx2.Request) -> None:
            nonlocal quiet
            if quiet:  # it uses this client, which tells
                quiet = wire.sent = False
            request.extensions = {**request.extensions, "trace": wire.trace}

        async def arrived(response: httpx2.Response) -> None:
            wire.sent = True  # which a transport of the user's own may not have told

        async with made_by(self._http) as http:
            hooks = http.event_hooks
            http.event_hooks = {
                "request": [*hooks["request"], watch],
                "response": [arrived, *hooks["response"]],
            }
            return await self._function(tokens, http)  # type: ignore[arg-type, misc]  # _is_async tells which one it is

    async def _call_on_thread(self, tokens: Tokens) -> object:
        return await loop.on_thread(lambda: self._call_sync(tokens), "keyturn-grant")

    def _call_sync(self, tokens: Tokens) -> object:
        make = self._sync_http or (lambda: httpx2.Client(timeout=self.timeout, verify=tls()))
        with make() as http:
            return self._function(tokens, http)  # type: ignore[arg-type]  # _is_async tells which one it is

"""What the tests of the aiohttp adapter share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import aiohttp

import keyturn
from keyturn.client.aiohttp import Middleware
from keyturn.testing import Seen, StrictServer
from tests.kit import run_in_loop

T = TypeVar("T")
Use = Callable[[aiohttp.ClientSession], Coroutine[Any, Any, T]]


def session_for(
    server: StrictServer,
    credentials: keyturn.Credentials,
    *middlewares: aiohttp.ClientMiddlewareType,
    **options: Any,
) -> aiohttp.ClientSession:
    """Return a session for the server with keyturn on it, innermost. Call it on a loop."""
    options.setdefault("cookie_jar", aiohttp.CookieJar(unsafe=True))
    return aiohttp.ClientSession(server.url, middlewares=[*middlewares, Middleware(credentials)], **options)


def with_session(
    server: StrictServer,
    credentials: keyturn.Credentials,
    use: Use[T],
    *middlewares: aiohttp.ClientMiddlewareType,
    **options: Any,
) -> T:
    """Run `use(session)` in a loop of its own, in debug mode, where nothing may be left open or unheard."""

    async def main() -> T:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        loop.slow_callback_duration = 60.0
        complaints: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        async with session_for(server, credentials, *middlewares, **options) as session:
            result = await use(session)
        await asyncio.sleep(0)
        assert complaints == []
        return result

    return run_in_loop(main)


def api_requests(server: StrictServer) -> list[Seen]:
    """Return the requests that the server has seen, but those of its token end points."""
    return [one for one in server.seen if not one.path.startswith("/token")]

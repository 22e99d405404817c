"""What the client's tests share: the two httpx hosts, and storms of tasks and threads."""

from __future__ import annotations

import asyncio
import functools
import ssl
import threading
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import httpx
import httpx2

import keyturn
import keyturn.client.httpx
import keyturn.client.httpx2
from keyturn.client import events, grants
from keyturn.testing import StrictServer

T = TypeVar("T")
Statuses = list[int]

# More connections, or more requests to a pool, make httpx's pool slower and a storm no stronger.
CONNECTIONS = 50


@dataclass(frozen=True)
class Host:
    """An HTTP library and keyturn's adapter for it. Their types differ, their shape does not."""

    lib: Any
    adapter: Any

    def __str__(self) -> str:
        return str(self.lib.__name__)

    def client(self, server: StrictServer, credentials: keyturn.Credentials, **options: Any) -> Any:
        """Return a synchronous client with `Auth`, a connection for each of its first 50 requests."""
        return self.lib.Client(auth=self.adapter.Auth(credentials), **self._options(server, options))

    def async_client(self, server: StrictServer, credentials: keyturn.Credentials, **options: Any) -> Any:
        """Return an asynchronous client with `Auth`."""
        return self.lib.AsyncClient(auth=self.adapter.Auth(credentials), **self._options(server, options))

    def transport_client(self, server: StrictServer, credentials: keyturn.Credentials, **options: Any) -> Any:
        """Return a synchronous client with `Transport`, for any carrier."""
        inner = self.lib.HTTPTransport(
            limits=self.lib.Limits(max_connections=options.pop("connections", CONNECTIONS))
        )
        return self.lib.Client(
            transport=self.adapter.Transport(credentials, inner), **self._options(server, options)
        )

    def async_transport_client(
        self, server: StrictServer, credentials: keyturn.Credentials, **options: Any
    ) -> Any:
        """Return an asynchronous client with `AsyncTransport`."""
        inner = self.lib.AsyncHTTPTransport(
            limits=self.lib.Limits(max_connections=options.pop("connections", CONNECTIONS))
        )
        return self.lib.AsyncClient(
            transport=self.adapter.AsyncTransport(credentials, inner), **self._options(server, options)
        )

    def _options(self, server: StrictServer, options: dict[str, Any]) -> dict[str, Any]:
        connections = options.pop("connections", CONNECTIONS)
        limits = self.lib.Limits(max_connections=connections, max_keepalive_connections=connections)
        common = {"base_url": server.url, "timeout": 60.0, "verify": _tls(), "trust_env": False}
        return common | {"limits": limits} | options


@functools.cache
def _tls() -> ssl.SSLContext:
    """Return one TLS context for all clients: making one takes longer than many a test."""
    return httpx2.create_ssl_context()


HOSTS = [Host(httpx2, keyturn.client.httpx2), Host(httpx, keyturn.client.httpx)]


class Log:
    """An `on_event` callback that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[events.Event] = []

    def __call__(self, event: events.Event) -> None:
        self.events.append(event)

    def of(self, kind: type[T]) -> list[T]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


def oauth2(server: StrictServer, **options: Any) -> grants.OAuth2:
    """Return the grant for the strict server's token end point."""
    return grants.OAuth2(server.url + "/token", client_id="tests", **options)


def credentials_for(
    server: StrictServer,
    tokens: keyturn.Tokens | None = None,
    *,
    grant: grants.Grant | None = None,
    **options: Any,
) -> keyturn.Credentials:
    """Return credentials for the strict server, signed in unless `tokens` says otherwise."""
    options.setdefault("origins", [server.url])
    options.setdefault("retry_for", timedelta(seconds=5))
    return keyturn.Credentials(
        oauth2(server) if grant is None else grant,
        tokens=server.sign_in() if tokens is None else tokens,
        **options,
    )


def storm_of_tasks(
    host: Host, server: StrictServer, credentials: keyturn.Credentials, count: int
) -> Statuses:
    """Send `count` requests from as many tasks, a client to each hundred; return their statuses."""

    async def main() -> Statuses:
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(host.async_client(server, credentials, connections=10))
                for _ in range(0, count, 100)
            ]
            calls = (clients[i // 100].get(f"/statistics/{i}") for i in range(count))
            return [answer.status_code for answer in await asyncio.gather(*calls)]

    return asyncio.run(main())


def storm_of_threads(
    host: Host, server: StrictServer, credentials: keyturn.Credentials, count: int
) -> Statuses:
    """Send `count` requests from as many threads, let go together; return their statuses.

    httpx's own pool races with itself under threads (httpcore 1.0), so there
    each thread has a client of its own; httpx2's is shared.
    """
    with ExitStack() as stack:
        apis = [
            stack.enter_context(host.client(server, credentials))
            for _ in range(count if host.lib is httpx else 1)
        ]
        return in_threads(count, lambda i: int(apis[i % len(apis)].get(f"/statistics/{i}").status_code))


def in_threads(count: int, work: Callable[[int], T]) -> list[T]:
    """Run `work(i)` in `count` threads that start together; return the results, or raise the first error."""
    barrier = threading.Barrier(count)
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def run(i: int) -> None:
        try:
            barrier.wait(30)
            results[i] = work(i)
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]
    return [results[i] for i in range(count)]


def run_in_loop(main: Callable[[], Coroutine[Any, Any, T]], *, seconds: float = 60.0) -> T:
    """Run `main` in a loop of its own and fail, rather than hang, after `seconds`."""
    return asyncio.run(asyncio.wait_for(main(), seconds))

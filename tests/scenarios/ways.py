"""The ways to send many requests at once: httpx2 and httpx, threads and tasks, `Auth` and transports."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import keyturn
from keyturn.client import loop
from tests.kit import HOSTS, Host, in_threads

TLS = ssl.create_default_context()  # one for all: nobody here speaks TLS, and building one takes long
T = TypeVar("T")
Wrap = Callable[[Any], Any]


@dataclass(frozen=True)
class Request:
    """What a caller sends; `then` is sent by the same caller, one after the other."""

    path: str
    method: str = "GET"
    json: Any = None


@dataclass(frozen=True)
class Way:
    """One way to send requests at once, a caller to each."""

    host: Host
    tasks: bool
    transport: bool

    def __str__(self) -> str:
        return (
            f"{self.host}-{'tasks' if self.tasks else 'threads'}-{'transport' if self.transport else 'auth'}"
        )

    def send(
        self,
        credentials: keyturn.Credentials,
        url: str,
        requests: Sequence[Request | Sequence[Request]],
        *,
        wrap: Wrap = lambda inner: inner,
        **options: Any,
    ) -> list[Any]:
        """Send from as many callers as there are entries; return the answers, or raise the first error.

        An entry that is a sequence is sent by one caller, one after the
        other. `wrap` is laid around the library's own transport.
        """
        entries = [[entry] if isinstance(entry, Request) else list(entry) for entry in requests]
        lists = (self._tasks if self.tasks else self._threads)(credentials, url, entries, wrap, options)
        return [answer for answers in lists for answer in answers]

    def _threads(
        self,
        credentials: keyturn.Credentials,
        url: str,
        entries: list[list[Request]],
        wrap: Wrap,
        options: dict[str, Any],
    ) -> list[list[Any]]:
        lib, adapter = self.host.lib, self.host.adapter
        inner = wrap(lib.HTTPTransport(verify=TLS, limits=lib.Limits(max_connections=len(entries) + 5)))
        how = {"transport": adapter.Transport(credentials, inner)} if self.transport else {"transport": inner}
        how |= {} if self.transport else {"auth": adapter.Auth(credentials)}
        with lib.Client(base_url=url, timeout=30.0, trust_env=False, **how, **options) as api:

            def caller(i: int) -> list[Any]:
                return [api.request(one.method, one.path, json=one.json) for one in entries[i]]

            return in_threads(len(entries), caller)

    def _tasks(
        self,
        credentials: keyturn.Credentials,
        url: str,
        entries: list[list[Request]],
        wrap: Wrap,
        options: dict[str, Any],
    ) -> list[list[Any]]:
        lib, adapter = self.host.lib, self.host.adapter

        async def main() -> list[list[Any]]:
            inner = wrap(
                lib.AsyncHTTPTransport(verify=TLS, limits=lib.Limits(max_connections=len(entries) + 5))
            )
            how = {"transport": adapter.AsyncTransport(credentials, inner)} if self.transport else {}
            how = how or {"transport": inner, "auth": adapter.Auth(credentials)}
            async with lib.AsyncClient(base_url=url, timeout=30.0, trust_env=False, **how, **options) as api:

                async def caller(own: list[Request]) -> list[Any]:
                    return [await api.request(one.method, one.path, json=one.json) for one in own]

                return list(await asyncio.gather(*(caller(own) for own in entries)))

        return asyncio.run(asyncio.wait_for(main(), 60))


ALL = [
    Way(host, tasks, transport) for host in HOSTS for tasks in (False, True) for transport in (False, True)
]
WITH_AUTH = [way for way in ALL if not way.transport]
WITH_TRANSPORT = [way for way in ALL if way.transport]


def statuses(answers: Sequence[Any]) -> list[int]:
    """Return the statuses of answers."""
    return [int(answer.status_code) for answer in answers]


def beside(one: Callable[[], object], other: Callable[[], T]) -> T:
    """Run `one` in a thread beside `other`; return what that returns."""

    def either(i: int) -> Any:
        return one() if i == 0 else other()

    return cast(T, in_threads(2, either)[1])


def announced() -> None:
    """Return when every event of the flights that have landed so far has been announced.

    Waiters are woken first: what they do next does not wait for a callback.
    """
    done = threading.Event()
    loop.call(done.set)
    assert done.wait(30)

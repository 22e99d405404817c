"""What requests to an end point go out with: a client for each, one TLS context for all."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import ssl
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import httpx2

from keyturn.client import native
from keyturn.errors import ConfigurationError, RefreshMisconfigured, RefreshUnsupported

HTTPFactory = Callable[[], httpx2.AsyncClient]
Factory = TypeVar("Factory")


def end_point(url: str, name: str) -> httpx2.URL:
    """Return the address of the end point called `name`. Raises ConfigurationError for what is none."""
    try:
        address = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError):  # whose text may quote a password
        raise ConfigurationError(f"the {name} end point must be an http or https URL") from None
    if address.scheme not in ("http", "https") or not address.host:
        raise ConfigurationError(f"the {name} end point must be a full URL, as in https://id.example/token")
    return address


def window_and_timeout(window: timedelta, timeout: timedelta) -> tuple[float, float]:
    """Return both in seconds, the time-out below the window, so that a retry still falls into it."""
    for name, value in (("replay_window", window), ("timeout", timeout)):
        if not isinstance(value, timedelta):
            raise ConfigurationError(f"{name} must be a datetime.timedelta")
    seconds, bound = window.total_seconds(), timeout.total_seconds()
    if seconds < 0 or bound <= 0:
        raise ConfigurationError("replay_window must not be negative, and timeout must be above 0")
    return seconds, min(bound, seconds / 2) if seconds else bound


def check_factory(name: str, factory: Factory) -> Factory:
    """Return `factory` as given. Raises ConfigurationError where it is a client, or anything else."""
    if not callable(factory):
        raise ConfigurationError(f"{name} takes a factory, as in {name}=lambda: httpx2.…Client(…)")
    return factory


def made_by(factory: HTTPFactory) -> httpx2.AsyncClient:
    """Return a new client for an exchange. Raises RefreshMisconfigured for what cannot be one."""
    http: object = factory()
    if not isinstance(http, httpx2.AsyncClient):
        raise RefreshMisconfigured(f"http= must make an httpx2.AsyncClient, not {type(http).__name__}")
    if http.is_closed:
        raise RefreshMisconfigured("http= must make a new client each time: an exchange closes its own")
    return http


def import_transport() -> None:
    """Import now what httpx2 leaves to its first request.

    That would be on keyturn's thread, where a fork in the middle of it leaves
    the child an import lock that nobody will ever release. Raises
    RefreshUnsupported where this interpreter loads no such module.
    """
    try:
        importlib.import_module("httpcore2")
    except RuntimeError as error:  # trio, which it looks for, may start a process where none may start
        raise RefreshUnsupported(f"this interpreter loads no HTTP client for a refresh: {error}") from error
    with contextlib.suppress(ImportError):  # what anyio itself imports for a first socket
        importlib.import_module("anyio._backends._asyncio")


def default_http(timeout: float) -> HTTPFactory:
    """Return a factory of clients that share one TLS context, since building one takes long."""
    return lambda: httpx2.AsyncClient(timeout=timeout, verify=tls())


@functools.cache
def tls() -> ssl.SSLContext:
    """Return the TLS context of every exchange.

    A fork waits until it is made: in a child that inherits OpenSSL's locks
    taken, nobody could ever make one.
    """
    with _making_tls:
        return httpx2.create_ssl_context()


_making_tls = native.lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_making_tls.acquire, after_in_parent=_making_tls.release, after_in_child=_making_tls.release
    )

"""Origins: where tokens may go (RFC 6454). A request to any other leaves without them."""

from __future__ import annotations

from collections.abc import Iterable

import httpx2

from keyturn.errors import ConfigurationError

Origin = tuple[str, str, int]
_PORTS = {"http": 80, "https": 443}


def origin(scheme: str, host: str, port: int | None) -> Origin:
    """Return the origin of a URL's parts, its default port filled in."""
    return scheme, host, _PORTS.get(scheme, 0) if port is None else port


def parse_origins(origins: Iterable[str]) -> frozenset[Origin]:
    """Return the origins of texts such as "https://api.example". Raises ConfigurationError."""
    if isinstance(origins, str):
        raise ConfigurationError(f"origins takes a list: origins=[{origins!r}]")
    parsed = frozenset(_parse(text) for text in origins)
    if not parsed:
        raise ConfigurationError(
            "origins must name at least one origin, as in origins=['https://api.example']"
        )
    return parsed


def _parse(text: str) -> Origin:
    try:
        url = httpx2.URL(text)
    except (httpx2.InvalidURL, TypeError) as error:
        raise ConfigurationError(f"not an origin: {text!r}") from error
    if url.scheme not in _PORTS or not url.host or url.path not in ("", "/") or url.query or url.userinfo:
        raise ConfigurationError(f"an origin is a scheme, a host and at most a port, not {text!r}")
    return origin(url.scheme, url.host, url.port)

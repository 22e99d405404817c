"""Origins: where tokens may go (RFC 6454). A request to any other leaves without them."""

from __future__ import annotations

from collections.abc import Iterable

import httpx2

from keyturn.errors import ConfigurationError

# Scheme, host as bytes (IDNA-encoded, lower case), port; a default port is there as None and as its number.
Origin = tuple[str, bytes, int | None]
_PORTS = {"http": 80, "https": 443}


def parse_origins(origins: Iterable[str]) -> frozenset[Origin]:
    """Return the origins of texts such as "https://api.example". Raises ConfigurationError."""
    if isinstance(origins, str):
        raise ConfigurationError(f"origins takes a list: origins=[{origins!r}]")
    parsed = frozenset(origin for text in origins for origin in _parse(text))
    if not parsed:
        raise ConfigurationError(
            "origins must name at least one origin, as in origins=['https://api.example']"
        )
    return parsed


def _parse(text: str) -> tuple[Origin, Origin]:
    try:
        url = httpx2.URL(text)
    except (httpx2.InvalidURL, TypeError) as error:
        raise ConfigurationError(f"not an origin: {text!r}") from error
    if url.scheme not in _PORTS or not url.host or url.path not in ("", "/") or url.query or url.userinfo:
        raise ConfigurationError(f"an origin is a scheme, a host and at most a port, not {text!r}")
    standard = _PORTS[url.scheme]
    number = standard if url.port is None else url.port
    return (url.scheme, url.raw_host, number), (
        url.scheme,
        url.raw_host,
        None if number == standard else number,
    )

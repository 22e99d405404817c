"""Origins: where tokens may go (RFC 6454). A request to any other leaves without them."""

from __future__ import annotations

import re
from collections.abc import Iterable

import httpx2

from keyturn.errors import ConfigurationError

# Scheme, host as bytes (IDNA-encoded, lower case), port; a default port is there as None and as its number.
Origin = tuple[str, bytes, int | None]
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(rb"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*")


def parse_origins(origins: Iterable[str]) -> frozenset[Origin]:
    """Return the origins of texts such as "https://api.example". Raises ConfigurationError."""
    if isinstance(origins, str):
        raise ConfigurationError(f"origins takes a list: origins=[{_shown(origins)}]")
    if not isinstance(origins, Iterable):
        raise ConfigurationError("origins takes a list, as in origins=['https://api.example']")
    parsed = frozenset(origin for text in origins for origin in _parse(text))
    if not parsed:
        raise ConfigurationError(
            "origins must name at least one origin, as in origins=['https://api.example']"
        )
    return parsed


def _parse(text: str) -> tuple[Origin, Origin]:
    try:
        url = httpx2.URL(text)
    except (httpx2.InvalidURL, TypeError):  # whose text may quote a password
        raise ConfigurationError(f"not an origin: {_shown(text)}") from None
    more = url.path not in ("", "/") or url.query or url.fragment or url.userinfo
    if more or url.scheme not in _PORTS or not _HOST.fullmatch(url.raw_host):
        raise ConfigurationError(
            f"an origin is a scheme, a host and maybe a port, as in 'https://api.example', not {_shown(text)}"
        )
    if url.port is not None and not 0 < url.port < 65536:
        raise ConfigurationError(f"an origin's port is from 1 to 65535, not as in {_shown(text)}")
    standard = _PORTS[url.scheme]
    number = standard if url.port is None else url.port
    return (url.scheme, url.raw_host, number), (
        url.scheme,
        url.raw_host,
        None if number == standard else number,
    )


def _shown(text: object) -> str:
    """Return what an error may quote: nothing that could hold a user's password."""
    return "a URL with a user or password in it" if "@" in str(text) else repr(text)


def spelled(origins: frozenset[Origin]) -> list[str]:
    """Return origins as texts, each once."""
    return sorted(
        f"{scheme}://{host.decode('ascii', 'replace')}" + ("" if port is None else f":{port}")
        for scheme, host, port in origins
        if port is None or (scheme, host, None) not in origins
    )

"""A Redis URL, taken apart.

    redis://user:password@host:6379/0?prefix=keyturn       rediss:// with TLS
    redis+cluster://host:port,host:port                    rediss+cluster:// with TLS
    redis+sentinel://host:port,host:port/service/0         rediss+sentinel:// with TLS, sentinels included

User and password are percent-encoded; sentinels that ask for their own have
them in `sentinel_username` and `sentinel_password`. With TLS the system's
authorities are trusted, or those in the file `ssl_ca_certs`; `ssl_certfile`
and `ssl_keyfile` name our own certificate. Certificates are always checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from keyturn.errors import ConfigurationError

Topology = Literal["one", "cluster", "sentinel"]
Host = tuple[str, int]

_FORMS: dict[Topology, str] = {
    "one": "redis://user:password@host:6379/0",
    "cluster": "redis+cluster://user:password@host:port,host:port",
    "sentinel": "redis+sentinel://user:password@host:port,host:port/service/0",
}
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OPTIONS = ("prefix", "sentinel_username", "sentinel_password", *_TLS_FILES)
_PREFIX = re.compile(r"[A-Za-z0-9_.:/-]{1,100}")
_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.%]+)\]|(?P<host>[^\[\]:\s]+))(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Address:
    """Where a Redis is and who we are there. Its repr shows neither."""

    topology: Topology
    hosts: tuple[Host, ...]
    tls: bool
    username: str | None
    password: str | None
    db: int
    service: str
    prefix: str
    sentinel_username: str | None
    sentinel_password: str | None
    tls_files: dict[str, str]


def parse(url: str) -> Address:
    """Return what a URL says. Raises ConfigurationError, which shows the right form and not the URL."""
    scheme, _, kind = url.partition("://")[0].partition("+")
    topology: Topology = "cluster" if kind == "cluster" else "sentinel" if kind == "sentinel" else "one"
    try:
        return _parsed(url, topology, tls=scheme == "rediss")
    except ValueError as error:
        said = str(error) if isinstance(error, _WrongError) else "it cannot be taken apart"
        form = _FORMS[topology].replace("redis", scheme, 1)
        raise ConfigurationError(
            f"a token store's URL is wrong: {said}. Its form is {form}?prefix=keyturn, where what is special "
            "in a user, a password or a service is percent-encoded"
        ) from None


class _WrongError(ValueError):
    """What is wrong, in words that quote no secret."""


def _parsed(url: str, topology: Topology, *, tls: bool) -> Address:
    parts = urlsplit(url)
    if parts.fragment:
        raise _WrongError("it has a '#'")
    user, _, hosts = parts.netloc.rpartition("@")
    username, _, password = user.partition(":")
    options = _options(parts.query)
    service, db = _service_and_db(parts.path, topology)
    prefix = options.get("prefix", "keyturn")
    if not _PREFIX.fullmatch(prefix):
        raise _WrongError("the prefix may have letters, digits and _ . : / - in it")
    files = {name: options[name] for name in _TLS_FILES if name in options}
    if files and not tls:
        raise _WrongError("certificates are for rediss")
    sentinel = [options.get(f"sentinel_{name}") for name in ("username", "password")]
    if any(sentinel) and topology != "sentinel":
        raise _WrongError("there are no sentinels")
    return Address(
        topology=topology,
        hosts=_hosts(hosts, topology),
        tls=tls,
        username=unquote(username, errors="strict") or None,
        password=unquote(password, errors="strict") or None,
        db=db,
        service=service,
        prefix=prefix,
        sentinel_username=sentinel[0],
        sentinel_password=sentinel[1],
        tls_files=files,
    )


def _options(query: str) -> dict[str, str]:
    given = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict")
    options = dict(given)
    if len(options) < len(given) or not options.keys() <= set(_OPTIONS):
        raise _WrongError(f"the options are {', '.join(_OPTIONS)}, each once")
    return options


def _service_and_db(path: str, topology: Topology) -> tuple[str, int]:
    """Return the service that sentinels watch, and the number of the database."""
    parts = [unquote(part, errors="strict") for part in path.split("/")[1:]]
    service = ""
    if topology == "sentinel":
        service = parts.pop(0) if parts else ""
        if not service:
            raise _WrongError("it names no service")
    match parts:
        case [] | [""]:
            return service, 0
        case [db] if db.isascii() and db.isdigit() and len(db) < 6:
            if topology == "cluster" and int(db):
                raise _WrongError("a cluster has database 0 only")
            return service, int(db)
    raise _WrongError("the path ends with the number of a database")


def _hosts(given: str, topology: Topology) -> tuple[Host, ...]:
    names = given.split(",")
    if topology == "one" and len(names) > 1:
        raise _WrongError("several hosts are a redis+cluster or a redis+sentinel")
    hosts: list[Host] = []
    for name in names:
        match = _HOST.fullmatch(name)
        if match is None:
            raise _WrongError("it names no host" if not given else "its hosts are not host:port")
        port = int(match["port"] or (26379 if topology == "sentinel" else 6379))
        if not 0 < port < 65536:
            raise _WrongError("there is no such port")
        hosts.append((match["ipv6"] or unquote(match["host"], errors="strict"), port))
    return tuple(hosts)

"""Place: what a postgresql:// URL names, as libpq takes it, and the table there."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from keyturn.errors import ConfigurationError

_TABLE = "keyturn_tokens"
_OPTION = "keyturn_table"
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}(\.[a-z_][a-z0-9_]{0,62})?", re.ASCII)
_DDL = """CREATE TABLE IF NOT EXISTS {} (
    name text COLLATE "C" PRIMARY KEY,
    epoch text NOT NULL,
    generation bigint NOT NULL,
    record text NOT NULL,
    changed timestamptz NOT NULL DEFAULT clock_timestamp()
)"""
# Where the URL says nothing else. A server that is not there is noticed in ten seconds.
_DEFAULTS = {
    "application_name": "keyturn",
    "connect_timeout": "3",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A database and a table in it. `conninfo` may hold a password, and is not shown."""

    conninfo: str = field(repr=False)
    table: str

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return the place of a URL. Raises ConfigurationError, which does not show it."""
        address, _, query = url.partition("?")
        options = [option for option in query.split("&") if option]
        ours = [option for option in options if option.startswith("keyturn_")]
        table = _TABLE
        for option in ours:
            key, _, table = option.partition("=")
            if key != _OPTION:
                raise ConfigurationError(
                    f"of keyturn's own options a postgresql:// URL takes {_OPTION} alone"
                )
            if not _IDENTIFIER.fullmatch(table):
                raise ConfigurationError(
                    f"{_OPTION} is the name of a table: lower-case letters, digits and _, with a schema and"
                    " a dot before it where needed"
                )
        if len(ours) > 1:
            raise ConfigurationError(f"{_OPTION} stands in a URL once")
        libpq = "&".join(option for option in options if option not in ours)
        try:
            given = {key: str(value) for key, value in conninfo_to_dict(f"{address}?{libpq}").items()}
            for port in filter(None, given.get("port", "").split(",")):
                int(port)
            defaults = {key: value for key, value in _DEFAULTS.items() if not _in_environment(key)}
            if "," in given.get("host", "") and not _in_environment("target_session_attrs"):
                defaults["target_session_attrs"] = "read-write"  # passes over standbys
            conninfo = make_conninfo("", **(defaults | given | {"client_encoding": "utf8"}))
        except (psycopg.Error, ValueError):
            raise ConfigurationError(
                "a postgresql:// URL is postgresql://user:password@host:port/database?option=value, with the"
                " options of libpq"
            ) from None
        return cls(conninfo, table)

    @property
    def quoted(self) -> str:
        """Return the table's name as it stands in SQL."""
        return ".".join(f'"{part}"' for part in self.table.split("."))

    @property
    def ddl(self) -> str:
        """Return the statement that makes the table."""
        return _DDL.format(self.quoted)


def _in_environment(option: str) -> bool:
    """Tell whether one of libpq's variables says what an option is to be."""
    names = {"application_name": "PGAPPNAME", "target_session_attrs": "PGTARGETSESSIONATTRS"}
    return names.get(option, f"PG{option.upper()}") in os.environ

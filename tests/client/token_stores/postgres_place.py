"""A schema of a test's own on a PostgreSQL server, and the URLs of tables in it."""

from __future__ import annotations

import secrets
from types import TracebackType
from typing import Self

import psycopg
from psycopg.conninfo import conninfo_to_dict


class Schema:
    """A schema, dropped at the end of `with`, and a table in it that is called tokens."""

    def __init__(self, server_url: str) -> None:
        self.server_url = server_url
        self.name = f"keyturn_{secrets.token_hex(6)}"

    def __enter__(self) -> Self:
        self.execute(f"CREATE SCHEMA {self.name}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.execute(f"DROP SCHEMA {self.name} CASCADE")

    @property
    def address(self) -> tuple[str, int]:
        """Return the server's host and port."""
        there = conninfo_to_dict(self.server_url)
        return str(there["host"]), int(str(there.get("port", 5432)))

    def url(self, *, server: str | None = None, port: int | None = None, table: str | None = None) -> str:
        """Return the URL of the table, at another address of the server if one is given."""
        plain = server or self.server_url
        if port is not None:
            there = conninfo_to_dict(plain)
            plain = f"postgresql://{there['user']}@127.0.0.1:{port}/{there['dbname']}"
        named = f"keyturn_table={table or self.name + '.tokens'}"
        return f"{plain}{'&' if '?' in plain else '?'}{named}"

    def execute(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        """Run a statement over a connection of its own; {table} stands for the table. Return the rows."""
        with psycopg.connect(self.server_url, autocommit=True) as connection:
            cursor = connection.execute(statement.replace("{table}", f"{self.name}.tokens").encode(), values)
            return cursor.fetchall() if cursor.description else []

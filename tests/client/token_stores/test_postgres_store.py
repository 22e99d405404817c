"""PostgresStore: the contract, on a real server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import psycopg
import pytest

from tests.client.token_stores.contract import TokenStoreContract


@pytest.fixture
def table_url(postgres_url: str) -> Iterator[str]:
    """Return the URL of a table of this test's own, in a schema of its own."""
    schema = f"keyturn_{secrets.token_hex(6)}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}".encode())
        yield f"{postgres_url}{'&' if '?' in postgres_url else '?'}keyturn_table={schema}.tokens"
        connection.execute(f"DROP SCHEMA {schema} CASCADE".encode())


class TestContract(TokenStoreContract):
    @pytest.fixture
    def url(self, table_url: str) -> str:
        """Return the URL of a table of this test's own."""
        return table_url

    def damage(self, url: str, name: str, text: str) -> None:
        """Put `text` in the place of a name's record."""
        plain, _, table = url.replace("?keyturn", "&keyturn").partition("&keyturn_table=")
        with psycopg.connect(plain, autocommit=True) as connection:
            changed = connection.execute(
                f"UPDATE {table} SET record = %s WHERE name = %s".encode(), (text, name)
            )
            assert changed.rowcount == 1

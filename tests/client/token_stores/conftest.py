"""The servers that token stores are tested against: real ones, or a skipped test with the reason."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

pytest.register_assert_rewrite("tests.client.token_stores.contract")

POSTGRES = "postgresql://postgres@127.0.0.1:5432/test"
REDIS = "redis://127.0.0.1:6379/0"
WITHIN = 3  # seconds, for a server to answer


@pytest.fixture(scope="session")
def postgres_url() -> str:
    """Return the URL of a PostgreSQL database to make schemas and tables of a test's own in."""
    url = os.environ.get("KEYTURN_TEST_POSTGRES", POSTGRES)
    try:
        import psycopg

        with psycopg.connect(url, connect_timeout=WITHIN) as connection:
            connection.execute("select 1")
    except Exception as error:  # noqa: BLE001 - whatever it is, there is no server to test against
        _missing("PostgreSQL", "KEYTURN_TEST_POSTGRES", error)
    return url


@pytest.fixture(scope="session")
def redis_url() -> str:
    """Return the URL of a Redis database to make keys of a test's own in."""
    url = os.environ.get("KEYTURN_TEST_REDIS", REDIS)
    try:
        import redis

        with redis.Redis.from_url(url, socket_connect_timeout=WITHIN, socket_timeout=WITHIN) as client:
            client.ping()
    except Exception as error:  # noqa: BLE001 - whatever it is, there is no server to test against
        _missing("Redis", "KEYTURN_TEST_REDIS", error)
    return url


def _missing(server: str, variable: str, error: Exception) -> NoReturn:
    """Skip the test, or fail it where continuous integration has promised the server. Shows no URL."""
    reason = f"no {server} to test against ({type(error).__name__}): set {variable} to its URL"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)

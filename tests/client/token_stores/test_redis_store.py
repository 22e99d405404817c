"""Tokens in one Redis: the contract, and what is Redis's own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import redis

from tests.client.token_stores.contract import NotifyingStoreContract


class TestRedisStore(NotifyingStoreContract):
    """The contract on the shared server, under a prefix of each test's own."""

    ends_with_its_holder = False

    @pytest.fixture
    def url(self, redis_url: str) -> Iterator[str]:
        """Return the URL with a prefix of this test's own; forget its keys at the end."""
        prefix = f"keyturn-tests:{secrets.token_hex(8)}"
        yield f"{redis_url}?prefix={prefix}"
        with redis.Redis.from_url(redis_url) as client:
            for key in client.scan_iter(f"{prefix}:*"):
                client.delete(key)

    def damage(self, url: str, name: str, text: str) -> None:
        """Put `text` where the record of a name is."""
        address, _, prefix = url.partition("?prefix=")
        with redis.Redis.from_url(address) as client:
            client.set(f"{prefix}:{{{quote(name, safe=':@/')}}}:record", text)

"""Which store it is: what its URL must look like, and what of it an error says."""

from __future__ import annotations

import socket
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import keyturn
from keyturn.client import grants
from keyturn.client.shelf import shelf
from keyturn.client.token_stores import new_store, place
from keyturn.client.token_stores.file import FileStore

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("file:///var/lib/tokens", "file:///var/lib/tokens"),
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        (f"redis://:{SECRET}@localhost/0?prefix=x", "redis://localhost/0"),
        (f"postgresql://me:{SECRET}@db:5432,other/app?sslmode=require", "postgresql://db:5432,other/app"),
        (f"postgresql:///app?password={SECRET}&host=/run", "postgresql:///app"),
        (f"postgresql://me:p/{SECRET}@db/app", "postgresql://db/app"),
        (f"postgresql://me:p@{SECRET}@db/app", "postgresql://db/app"),
        (f"postgresql://me:{SECRET}?#@db/app", "postgresql://…"),
        (f"postgresql://me:{SECRET}#x@db/app", "postgresql://…"),
        (f"postgresql:///app?password=@{SECRET}", "postgresql://…"),
    ],
)
def test_what_may_be_shown_of_a_url_has_no_password(url: str, shown: str) -> None:
    assert place(url) == shown


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Path("tokens"), r"directory\.resolve\(\)\.as_uri\(\)"),
        ("REDIS://localhost", "lower case"),
        ("redis:localhost", "named by a URL"),
        ("rediz://localhost", "there is no token store 'rediz'; the known ones are memory://"),
        (None, "not None"),
        ("memory://x", "takes nothing after it"),
    ],
    ids=["path", "capitals", "no slashes", "typo", "nothing", "memory"],
)
def test_what_is_no_url_is_told_what_would_be(given: Any, said: str) -> None:
    with pytest.raises(keyturn.ConfigurationError, match=said):
        new_store(given)


def test_an_error_of_a_store_notes_whose_it_is_and_where() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        port = taken.getsockname()[1]
        with (
            keyturn.Credentials(
                grants.OAuth2("http://127.0.0.1:9/token"),
                tokens=keyturn.Tokens("old", SECRET, 0.0),
                origins=["http://127.0.0.1:9"],
                store=f"redis://me:{SECRET}@127.0.0.1:{port}/0",
                name="dashboard:alice",
                retry_for=timedelta(0),
            ) as credentials,
            pytest.raises(keyturn.TokenStoreUnavailable) as caught,
        ):
            credentials.get_tokens()

    told = "".join(traceback.format_exception(caught.value))
    assert told.rstrip().endswith(f"keyturn: dashboard:alice in redis://127.0.0.1:{port}/0")
    assert SECRET not in told


def test_what_no_store_foresaw_is_an_error_of_the_store_without_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError(SECRET)

    monkeypatch.setattr(FileStore, "_read", broken)
    with (
        keyturn.Credentials(
            grants.OAuth2("http://127.0.0.1:9/token"),
            tokens=keyturn.Tokens("old", SECRET, 0.0),
            origins=["http://127.0.0.1:9"],
            store=tmp_path.as_uri(),
            name="dashboard:alice",
            retry_for=timedelta(0),
        ) as credentials,
        pytest.raises(keyturn.TokenStoreUnavailable, match=r"ZeroDivisionError at .*test_places") as caught,
    ):
        credentials.get_tokens()

    told = "".join(traceback.format_exception(caught.value))
    assert f"keyturn: dashboard:alice in {tmp_path.as_uri()}" in told
    assert SECRET not in told
    assert tmp_path.as_uri() not in shelf._users

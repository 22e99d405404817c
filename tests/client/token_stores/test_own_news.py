"""What a process does itself is no news to it, though a store that notifies tells it of that, too."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest
import redis

import keyturn
from keyturn.client import events
from keyturn.testing import StrictServer
from tests.kit import Log, oauth2
from tests.waiting import until


@pytest.fixture(params=["postgresql", "redis"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A place of its own in a store that notifies."""
    mine = f"keyturn_{uuid.uuid4().hex[:12]}"
    given = str(request.getfixturevalue("redis_url" if request.param == "redis" else "postgres_url"))
    more = "&" if "?" in given else "?"
    if request.param == "redis":
        yield f"{given}{more}prefix={mine}"
        with redis.Redis.from_url(given) as client:
            for key in client.scan_iter(f"*{mine}*"):
                client.delete(key)
    else:
        yield f"{given}{more}keyturn_table={mine}"
        with psycopg.connect(given) as connection:
            connection.execute(f"DROP TABLE IF EXISTS {mine}".encode())


@pytest.fixture
def credentials(url: str, strict_server: StrictServer) -> Iterator[tuple[keyturn.Credentials, Log]]:
    """Credentials in that place, which nobody else uses, and what they tell."""
    log = Log()
    with keyturn.Credentials(
        oauth2(strict_server),
        tokens=strict_server.sign_in(),
        origins=[strict_server.url],
        store=url,
        name="alice",
        on_event=log,
    ) as mine:
        yield mine, log


def test_whoever_is_refused_is_told_so_and_not_that_others_were(
    credentials: tuple[keyturn.Credentials, Log], strict_server: StrictServer
) -> None:
    mine, log = credentials
    held = mine.get_tokens()
    strict_server.revoke()

    with pytest.raises(keyturn.SessionEnded) as raised:
        mine.renew(held)

    assert (raised.value.reason, raised.value.error) == ("refused", "invalid_grant")
    until(lambda: len(log.of(events.Landing)) == 2)
    assert [type(event) for event in log.of(events.Landing)] == [events.Loaded, events.Ended]
    assert log.of(events.SignedOut) == []


def test_whoever_refreshes_is_not_told_that_others_did(credentials: tuple[keyturn.Credentials, Log]) -> None:
    mine, log = credentials
    held = mine.get_tokens()
    for _ in range(5):
        held = mine.renew(held)

    until(lambda: len(log.of(events.Landing)) == 6)
    assert [type(event) for event in log.of(events.Landing)] == [events.Loaded, *[events.Refreshed] * 5]
    assert log.of(events.Adopted) == []

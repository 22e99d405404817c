"""Time that is frozen or moved by freezegun or time-machine, without any setting for keyturn's sake."""

from __future__ import annotations

import asyncio
import datetime
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta

import freezegun
import httpx2
import pytest
import time_machine

import keyturn
from keyturn.client.httpx2 import Auth
from keyturn.testing import StrictServer
from tests.kit import credentials_for, in_threads

Move = Callable[[float], object]
Mover = Callable[[], AbstractContextManager[Move]]


def _today() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@contextmanager
def _freezegun() -> Iterator[Move]:
    with freezegun.freeze_time(_today()) as frozen:
        yield frozen.tick


@contextmanager
def _freezegun_real_asyncio() -> Iterator[Move]:
    with freezegun.freeze_time(_today(), real_asyncio=True) as frozen:
        yield frozen.tick


@contextmanager
def _time_machine() -> Iterator[Move]:
    with time_machine.travel(_today()) as traveller:
        yield traveller.shift


@contextmanager
def _time_machine_still() -> Iterator[Move]:
    with time_machine.travel(_today(), tick=False) as traveller:
        yield traveller.shift


MOVERS = [_freezegun, _freezegun_real_asyncio, _time_machine, _time_machine_still]
each_mover = pytest.mark.parametrize("mover", MOVERS, ids=lambda mover: mover.__name__[1:])


@each_mover
def test_credentials_that_were_made_before_see_the_time_move_past_expiry_and_refresh_once(
    strict_server: StrictServer, mover: Mover
) -> None:
    strict_server.configure(refresh_delay=0.05)
    credentials = credentials_for(strict_server)
    with httpx2.Client(base_url=strict_server.url, auth=Auth(credentials)) as api, mover() as move:
        assert api.get("/").status_code == 200
        assert strict_server.stats.refreshes == 0
        move(61)
        assert set(in_threads(8, lambda i: api.get(f"/{i}").status_code)) == {200}

    assert strict_server.stats.refreshes == 1


@each_mover
def test_credentials_that_were_made_in_frozen_time_go_on_when_it_is_over(
    strict_server: StrictServer, mover: Mover
) -> None:
    with mover() as move:
        move(-3600)
        credentials = credentials_for(strict_server)
        assert credentials.get_tokens().generation == 0

    assert credentials.get_tokens().generation == 1


@each_mover
def test_a_retry_waits_in_real_time(strict_server: StrictServer, mover: Mover) -> None:
    strict_server.fail_refresh(503, times=2)
    with mover() as move:
        credentials = credentials_for(strict_server)
        move(61)
        assert credentials.get_tokens(timeout=30).generation == 1

    assert strict_server.stats.refreshes == 3


@each_mover
def test_patience_ends_in_real_time(strict_server: StrictServer, mover: Mover) -> None:
    strict_server.fail_refresh(503, times=1000)
    with mover() as move:
        credentials = credentials_for(strict_server, retry_for=timedelta(seconds=0.5))
        move(61)
        with pytest.raises(keyturn.RefreshUnavailable):
            credentials.get_tokens(timeout=30)


@each_mover
def test_a_clock_that_is_moved_during_a_refresh_does_not_time_it_out(
    strict_server: StrictServer, mover: Mover
) -> None:
    strict_server.hold_refresh()
    with mover() as move:
        credentials = credentials_for(strict_server)
        move(61)
        ticket = credentials.ticket()
        strict_server.wait_for(refreshes=1)
        move(3600)
        strict_server.release()
        tokens = ticket.wait(30)

    assert tokens.generation == 1
    assert strict_server.stats.refreshes == 1


@each_mover
def test_tasks_of_an_event_loop_in_frozen_time_share_one_refresh(
    strict_server: StrictServer, mover: Mover
) -> None:
    strict_server.configure(refresh_delay=0.05)

    async def main(move: Move) -> list[int]:
        credentials = credentials_for(strict_server)
        move(61)
        tickets = [credentials.aget_tokens() for _ in range(8)]
        return [one.generation for one in await asyncio.gather(*tickets)]

    with mover() as move:
        assert asyncio.run(main(move)) == [1] * 8

    assert strict_server.stats.refreshes == 1


@pytest.mark.parametrize("mover", [_freezegun_real_asyncio, _time_machine, _time_machine_still])
def test_a_timeout_on_a_loop_of_your_own_is_not_moved(strict_server: StrictServer, mover: Mover) -> None:
    with mover() as move:
        assert asyncio.run(_move_within_a_timeout(strict_server, move)) == 1


def test_but_by_freezegun_without_real_asyncio_it_is(strict_server: StrictServer) -> None:
    with _freezegun() as move, pytest.raises(TimeoutError):
        asyncio.run(_move_within_a_timeout(strict_server, move))


async def _move_within_a_timeout(server: StrictServer, move: Move) -> int:
    credentials = credentials_for(server)
    async with asyncio.timeout(30):
        move(61)
        return (await credentials.aget_tokens()).generation


def test_keyturn_may_be_imported_for_the_first_time_in_frozen_time(strict_server: StrictServer) -> None:
    strict_server.fail_refresh(503, times=2)
    tokens = strict_server.sign_in()
    program = f"""
import freezegun, sys
with freezegun.freeze_time({_today().isoformat()!r}) as frozen:
    import keyturn
    from keyturn.client import grants
    credentials = keyturn.Credentials(
        grants.OAuth2({strict_server.url!r} + "/token", client_id="tests"),
        tokens=keyturn.Tokens(*sys.stdin.read().split(), expires_at={time.time() + 60}),
        origins=[{strict_server.url!r}],
    )
    frozen.tick(61)
    assert credentials.get_tokens(timeout=30).generation == 1
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        input=f"{tokens.access} {tokens.refresh}",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert strict_server.stats.refreshes == 3

"""CredentialsPool: one name, one flight; all flights in parallel; nothing leaves that would be lost."""

from __future__ import annotations

import gc
import threading
from functools import partial
from typing import Any

import pytest

import keyturn
from keyturn.client import grants
from keyturn.testing import StrictServer
from tests.kit import Log, in_threads, oauth2, run_in_loop
from tests.waiting import WITHIN, aboard, start, until

NAMES = [f"tenant-{i}" for i in range(20)]


def _pool(server: StrictServer, **options: Any) -> keyturn.CredentialsPool:
    return keyturn.CredentialsPool(oauth2(server), origins=[server.url], **options)


def _look_up(pool: keyturn.CredentialsPool, name: str, _: int) -> keyturn.Credentials:
    return pool[name]


def test_a_look_up_makes_the_credentials_once_and_does_no_io(strict_server: StrictServer) -> None:
    loaded: list[str] = []

    def tokens(name: str) -> keyturn.Tokens:
        loaded.append(name)
        return strict_server.sign_in(name)

    with _pool(strict_server, tokens=tokens) as pool:
        seven = pool["tenant-7"]
        assert pool["tenant-7"] is seven
        assert seven.name == "tenant-7"
        assert (loaded, len(pool)) == ([], 1)

        assert seven.get_tokens(timeout=WITHIN).access
        assert pool["tenant-7"].tokens is seven.tokens
        assert loaded == ["tenant-7"]


def test_many_threads_that_ask_for_one_name_are_given_the_same(strict_server: StrictServer) -> None:
    with _pool(strict_server, most_idle=0) as pool:
        for name in NAMES:
            assert len({id(one) for one in in_threads(20, partial(_look_up, pool, name))}) == 1


def test_each_name_has_its_own_flight_and_all_fly_at_once(strict_server: StrictServer) -> None:
    strict_server.hold_refresh("before")
    with _pool(strict_server, tokens=lambda name: strict_server.sign_in(name, ttl=-1.0)) as pool:

        def call(i: int) -> str:
            return pool[NAMES[i % len(NAMES)]].get_tokens(timeout=WITHIN).access

        calls = start(lambda: in_threads(3 * len(NAMES), call))
        strict_server.wait_for(WITHIN, refreshes=len(NAMES))  # none is answered before all are there
        strict_server.release()
        answers = calls.result(WITHIN)

    assert len(set(answers)) == len(NAMES)
    assert all(answers[i] == answers[i % len(NAMES)] for i in range(len(answers)))
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.most_refreshes_at_once) == (20, 20, 20)


def test_names_that_were_only_looked_up_leave_so_that_memory_is_bounded(strict_server: StrictServer) -> None:
    with _pool(strict_server, most_idle=10) as pool:
        for i in range(1000):
            assert pool[f"guess-{i}"].tokens is None
        assert len(pool) == 10


def test_names_without_a_seed_leave_too(
    strict_server: StrictServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", "keyturn.client")  # a record that is kept keeps what it tells of
    with _pool(strict_server, tokens=lambda name: None, most_idle=5) as pool:
        for i in range(50):
            with pytest.raises(keyturn.NotSignedIn):
                pool[f"guess-{i}"].get_tokens(timeout=WITHIN)
        until(lambda: gc.collect() >= 0 and len(pool) <= 6)  # the last flight may still be told of


def test_tokens_that_are_only_in_memory_never_leave(strict_server: StrictServer) -> None:
    kept = {name: strict_server.sign_in(name) for name in NAMES}
    with _pool(strict_server, most_idle=3) as pool:
        for name, tokens in kept.items():
            pool[name].sign_in(tokens)
        for i in range(200):
            _ = pool[f"guess-{i}"]
        gc.collect()

        for name, tokens in kept.items():
            current = pool[name].tokens
            assert current is not None
            assert current.access == tokens.access
        assert len(pool) <= len(kept) + 3 + 1


def test_who_signs_in_long_after_the_look_up_is_held_again(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()
    with _pool(strict_server, most_idle=1) as pool:
        alice = pool["alice"]
        for name in NAMES:
            _ = pool[name]  # alice is in use, and idle as far as the pool can tell
        alice.sign_in(tokens)
        del alice
        gc.collect()

        current = pool["alice"].tokens
        assert current is not None
        assert current.access == tokens.access


def test_an_end_is_remembered_so_that_no_dead_token_is_tried_again(strict_server: StrictServer) -> None:
    dead = strict_server.sign_in(ttl=-1.0)
    strict_server.revoke()
    with _pool(strict_server, tokens=lambda name: dead, most_idle=0) as pool:
        for _ in range(3):
            with pytest.raises(keyturn.SessionEnded):
                pool["alice"].get_tokens(timeout=WITHIN)
            gc.collect()

    assert strict_server.stats.refreshes == 1


def test_credentials_in_use_are_found_again_however_long_ago_they_were_asked_for(
    strict_server: StrictServer,
) -> None:
    with _pool(strict_server, most_idle=1) as pool:
        used = pool["alice"]
        for name in NAMES:
            _ = pool[name]
        assert pool["alice"] is used


def test_a_flight_in_the_air_keeps_its_credentials_though_nobody_waits(strict_server: StrictServer) -> None:
    strict_server.hold_refresh("before")
    seeds = {"alice": strict_server.sign_in(ttl=-1.0)}
    with _pool(strict_server, tokens=seeds.get, most_idle=0) as pool:
        with pytest.raises(keyturn.RefreshTimeout):
            pool["alice"].get_tokens(timeout=0.0)
        strict_server.wait_for(WITHIN, refreshes=1)
        for name in NAMES:
            _ = pool[name]
        gc.collect()
        call = start(lambda: pool["alice"].get_tokens(timeout=WITHIN))
        until(lambda: aboard(pool["alice"]) == 1)
        strict_server.release()
        assert call.result(WITHIN).access

    assert strict_server.stats.refreshes == 1


def test_tokens_that_are_kept_elsewhere_may_leave_and_are_loaded_again(
    strict_server: StrictServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyturn.Credentials, "is_expendable", property(lambda self: self._flight is None))
    kept = {name: strict_server.sign_in(name, ttl=600.0) for name in NAMES}
    loaded: list[str] = []

    def tokens(name: str) -> keyturn.Tokens:
        loaded.append(name)
        return kept[name]

    with _pool(strict_server, tokens=tokens, most_idle=4) as pool:
        for name in NAMES * 2:
            assert pool[name].get_tokens(timeout=WITHIN).access == kept[name].access
            until(lambda: len(pool) <= 5)  # without the garbage collector: nothing that leaves is in a cycle

    assert loaded == NAMES * 2


def test_events_tell_whose_they_are(strict_server: StrictServer) -> None:
    log = Log()
    with _pool(strict_server, on_event=log) as pool:
        pool["alice"].sign_in(strict_server.sign_in())
        pool["bob"].sign_in(strict_server.sign_in("bob"))

    assert [event.name for event in log.events] == ["alice", "bob"]


def test_a_closed_pool_closes_everything_and_gives_nothing_more(strict_server: StrictServer) -> None:
    pool = _pool(strict_server, most_idle=0)
    used = pool["alice"]
    used.sign_in(strict_server.sign_in())
    pool.close()
    pool.close()

    with pytest.raises(keyturn.CredentialsClosed):
        used.get_tokens()
    with pytest.raises(keyturn.CredentialsClosed):
        _ = pool["alice"]


def test_a_pool_may_be_closed_by_awaiting(strict_server: StrictServer) -> None:
    async def main() -> keyturn.Credentials:
        async with _pool(strict_server) as pool:
            return pool["alice"]

    with pytest.raises(keyturn.CredentialsClosed):
        run_in_loop(main).get_tokens()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"origins": []}, "origin"),
        ({"origins": "https://api.example"}, "list"),
        ({"tokens": keyturn.Tokens("a")}, "callable"),
        ({"most_idle": -1}, "most_idle"),
        ({"most_idle": True}, "most_idle"),
        ({"store": "memcached://"}, "store"),
    ],
)
def test_what_cannot_work_is_told_when_the_pool_is_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(keyturn.ConfigurationError, match=message):
        keyturn.CredentialsPool(
            grants.OAuth2("https://id.example/token"), **{"origins": ["https://api.example"], **options}
        )


@pytest.mark.parametrize("name", ["", None, 7])
def test_what_is_no_name_is_refused(strict_server: StrictServer, name: Any) -> None:
    with _pool(strict_server) as pool, pytest.raises(keyturn.ConfigurationError, match="name"):
        _ = pool[name]


def test_look_ups_race_with_leaving_and_no_name_ever_has_two(strict_server: StrictServer) -> None:
    with _pool(strict_server, most_idle=1) as pool:
        barrier = threading.Barrier(8)

        def look_up(i: int) -> None:
            for _ in range(300):
                mine = pool["alice"]
                _ = pool[f"guess-{i}"]
                assert pool["alice"] is mine
            barrier.wait(WITHIN)

        in_threads(8, look_up)

"""What every session store promises. A store's test inherits this and says how to open one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from keyturn import errors
from keyturn.server import Issuer, Rotation
from keyturn.server.refresh_tokens import new_sid
from keyturn.server.session import Session
from keyturn.server.session_stores import SessionStore

from .clock import Clock

THREADS = 100


def at_once(work: Sequence[Callable[[], object]]) -> list[object]:
    """Run all of `work` in threads that leave one barrier together; return results and exceptions."""
    barrier = threading.Barrier(len(work))

    def run(one: Callable[[], object]) -> object:
        barrier.wait(30)
        try:
            return one()
        except errors.KeyturnError as error:
            return error

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(run, work))


class StoreContract:
    """Inherit it as Test…, and override `store`."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def store(self, clock: Clock) -> Iterator[SessionStore] | SessionStore:
        raise NotImplementedError

    @pytest.fixture
    def session(self, store: SessionStore) -> Session:
        return self.start(store)

    def start(self, store: SessionStore, subject: str = "alice", **fields: object) -> Session:
        now = store.now()
        session = Session(sid=new_sid(), subject=subject, started_at=now, expires_at=now + 3600)
        session = replace(session, **fields)  # type: ignore[arg-type]
        store.create(session)
        return session

    def test_what_was_created_comes_back_as_it_was(self, store: SessionStore) -> None:
        session = self.start(
            store,
            "zoë ☂ 'quoted'; --",
            idle_limit=60.5,
            client="app",
            key="thumb",
            claims={"role": "admin", "list": [1, None, {"deep": True}], "☂": "é"},
        )
        assert store.get(session.sid) == session

    def test_an_unknown_sid_is_none(self, store: SessionStore, session: Session) -> None:
        assert store.get(new_sid()) is None
        assert store.get("") is None

    def test_an_advance_moves_the_counter_and_notes_the_stores_time(
        self, store: SessionStore, session: Session, clock: Clock
    ) -> None:
        clock.forward(5)
        assert store.advance(session.sid, read=0, to=1)
        assert store.get(session.sid) == replace(session, counter=1, rotated_at=clock.now)

    def test_an_advance_from_another_counter_changes_nothing(
        self, store: SessionStore, session: Session
    ) -> None:
        assert not store.advance(session.sid, read=1, to=2)
        assert store.get(session.sid) == session

    def test_an_advance_to_where_it_is_changes_nothing_and_tells_whether_it_could(
        self, store: SessionStore, session: Session, clock: Clock
    ) -> None:
        clock.forward(5)
        assert store.advance(session.sid, read=0, to=0)
        assert store.get(session.sid) == session
        assert not store.advance(session.sid, read=1, to=1)
        store.end(session.sid, "signed_out")
        assert not store.advance(session.sid, read=0, to=0)

    def test_an_advance_may_skip_what_was_lost(self, store: SessionStore, session: Session) -> None:
        assert store.advance(session.sid, read=0, to=9)
        row = store.get(session.sid)
        assert row is not None
        assert row.counter == 9

    def test_an_unknown_session_does_not_advance_and_does_not_end(self, store: SessionStore) -> None:
        assert not store.advance(new_sid(), read=0, to=1)
        assert not store.end(new_sid(), "signed_out")

    def test_the_highest_counter_is_kept_exactly(self, store: SessionStore, session: Session) -> None:
        highest = 2**53 - 1
        assert store.advance(session.sid, read=0, to=highest)
        row = store.get(session.sid)
        assert row is not None
        assert row.counter == highest

    def test_an_end_is_for_good_and_its_first_reason_stays(
        self, store: SessionStore, session: Session, clock: Clock
    ) -> None:
        clock.forward(5)
        assert store.end(session.sid, "reuse")
        ended = store.get(session.sid)
        clock.forward(5)
        assert not store.end(session.sid, "signed_out")
        assert not store.advance(session.sid, read=0, to=1)
        assert store.get(session.sid) == ended
        assert ended == replace(session, ended_at=clock.now - 5, ended_why="reuse")

    def test_ending_all_ends_the_subjects_and_nobody_elses(self, store: SessionStore) -> None:
        first, second, over = (self.start(store) for _ in range(3))
        store.end(over.sid, "reuse")
        other = self.start(store, "alice2")
        assert {row.sid for row in store.end_all("alice", "signed_out")} == {first.sid, second.sid}
        assert store.end_all("alice", "signed_out") == []
        for session in (first, second):
            row = store.get(session.sid)
            assert row is not None
            assert row.ended_why == "signed_out"
        kept = store.get(over.sid)
        assert kept is not None
        assert kept.ended_why == "reuse"
        assert store.get(other.sid) == other

    def test_the_list_has_what_goes_on_oldest_first(self, store: SessionStore, clock: Clock) -> None:
        first = self.start(store)
        clock.forward(1)
        second = self.start(store, idle_limit=100.0)
        self.start(store, "bob")
        ended = self.start(store)
        store.end(ended.sid, "signed_out")
        assert [row.sid for row in store.list("alice")] == [first.sid, second.sid]
        clock.forward(100)
        assert [row.sid for row in store.list("alice")] == [first.sid]
        clock.forward(3600)
        assert list(store.list("alice")) == []

    def test_a_rotation_keeps_a_session_from_being_idle(self, store: SessionStore, clock: Clock) -> None:
        session = self.start(store, idle_limit=100.0)
        clock.forward(99)
        store.advance(session.sid, read=0, to=1)
        clock.forward(99)
        assert [row.sid for row in store.list("alice")] == [session.sid]
        assert store.purge() == 0

    def test_a_purge_deletes_what_does_not_go_on_and_nothing_else(
        self, store: SessionStore, clock: Clock
    ) -> None:
        lives = self.start(store, expires_at=clock.now + 9000)
        idle = self.start(store, idle_limit=10.0)
        expired = self.start(store, expires_at=clock.now + 20)
        ended = self.start(store)
        store.end(ended.sid, "signed_out")
        clock.forward(20)
        assert store.purge() == 3
        assert store.purge() == 0
        assert [store.get(row.sid) for row in (idle, expired, ended)] == [None] * 3
        assert store.get(lives.sid) == lives

    def test_a_seen_generation_never_goes_back(self, store: SessionStore, session: Session) -> None:
        for generation in (3, 1, 3, 2):
            store.mark_seen(session.sid, generation)
        assert store.get(session.sid) == replace(session, seen_generation=3)
        store.mark_seen(new_sid(), 1)

    def test_closing_twice_is_allowed(self, store: SessionStore) -> None:
        store.close()
        store.close()

    def test_of_100_threads_that_advance_at_once_exactly_one_wins(
        self, store: SessionStore, session: Session
    ) -> None:
        for read in range(3):
            results = at_once([partial(store.advance, session.sid, read=read, to=read + 1)] * THREADS)
            assert results.count(True) == 1
            assert results.count(False) == THREADS - 1
        row = store.get(session.sid)
        assert row is not None
        assert row.counter == 3

    def test_of_100_threads_that_end_at_once_exactly_one_did(
        self, store: SessionStore, session: Session
    ) -> None:
        results = at_once([lambda: store.end(session.sid, "signed_out")] * THREADS)
        assert (results.count(True), results.count(False)) == (1, THREADS - 1)

    @pytest.mark.parametrize("window", [0, 10])
    def test_nothing_is_minted_after_an_end_raced(self, store: SessionStore, window: int) -> None:
        """Every condition that lets a pair be minted holds in the store before the end does, never after.

        Half of the callers have the current token and half the one before,
        so that advances, replays and 'same again' all race with the end.
        """
        watched = _Watched(store)
        issuer = Issuer(
            secret="s" * 32, store=watched, rotation=Rotation(window=timedelta(seconds=window)), now=store.now
        )
        first = issuer.sign_in("alice")
        second = issuer.refresh(first.refresh)
        tokens = [second.refresh] * 20 + ([first.refresh] * 20 if window else [])

        def refresh(token: str) -> Callable[[], object]:
            return lambda: issuer.refresh(token)

        work: list[Callable[[], object]] = [refresh(token) for token in tokens]
        work.insert(len(work) // 2, lambda: issuer.sign_out(first.sid))
        results = at_once(work)
        assert watched.order == ["end"]
        for result in results:
            assert not isinstance(result, errors.StoreUnavailable)
        for token in {first.refresh, second.refresh}:
            with pytest.raises(errors.SessionOver):
                issuer.refresh(token)


class _Watched:
    """A store that notes, behind "end", every advance that began after the end and succeeded.

    An advance that was under way meanwhile may fall on either side.
    """

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self.order: list[str] = []
        self.now = store.now
        self.create, self.get, self.list = store.create, store.get, store.list
        self.end_all, self.mark_seen, self.purge, self.close = (
            store.end_all,
            store.mark_seen,
            store.purge,
            store.close,
        )

    def advance(self, sid: str, *, read: int, to: int) -> bool:
        ended_before = "end" in self.order
        done = self._store.advance(sid, read=read, to=to)
        if done and ended_before:
            self.order.append("let out")
        return done

    def end(self, sid: str, why: object) -> bool:
        done = self._store.end(sid, why)  # type: ignore[arg-type]
        if done:
            self.order.append("end")
        return done

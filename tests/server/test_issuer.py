"""The issuer: what each verdict looks like to who asks, and what is told about it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from keyturn import errors
from keyturn.server import Issuer, Rotation, TokenPair, events
from keyturn.server.session_stores.memory import MemoryStore

from .clock import Clock
from .conftest import MakeIssuer
from .store_contract import at_once

STRICT = Rotation(window=timedelta(0))


def test_a_sign_in_is_one_row_and_a_pair_that_works(issuer: Issuer, store: MemoryStore) -> None:
    pair = issuer.sign_in("alice", claims={"role": "admin"})
    assert issuer.verify(pair.access).subject == "alice"
    assert (pair.subject, pair.generation, pair.expires_in) == ("alice", 0, 900)
    (session,) = issuer.sessions("alice")
    assert session == store.get(pair.sid)
    assert pair.session_expires_at == session.expires_at == session.started_at + 30 * 86400


def test_a_refresh_gives_a_new_pair_in_the_same_row_with_the_same_claims(
    issuer: Issuer, store: MemoryStore
) -> None:
    first = issuer.sign_in("alice", claims={"role": "admin"})
    second = issuer.refresh(first.refresh)
    assert second.refresh != first.refresh
    assert second.access != first.access
    assert (second.sid, second.generation) == (first.sid, 1)
    assert issuer.verify(second.access)["role"] == "admin"
    assert len(store._rows) == 1


def test_the_access_token_that_a_refresh_replaces_lives_on_until_its_exp(
    issuer: Issuer, clock: Clock
) -> None:
    first = issuer.sign_in("alice")
    issuer.refresh(first.refresh)
    clock.now = first.expires_at - 1
    assert issuer.verify(first.access).generation == 0


def test_a_thousand_rotations_are_one_row(issuer: Issuer, store: MemoryStore, clock: Clock) -> None:
    pair = issuer.sign_in("alice")
    for generation in range(1, 1001):
        clock.forward(11)
        pair = issuer.refresh(pair.refresh)
        assert pair.generation == generation
    assert len(store._rows) == 1


def test_a_lost_answer_inside_the_window_is_given_again(issuer: Issuer, clock: Clock) -> None:
    first = issuer.sign_in("alice")
    lost = issuer.refresh(first.refresh)
    clock.forward(9.9)
    again = issuer.refresh(first.refresh)
    assert again.refresh == lost.refresh
    assert again.access != lost.access


def test_the_current_token_inside_the_window_does_not_rotate(issuer: Issuer, clock: Clock) -> None:
    pair = issuer.refresh(issuer.sign_in("alice").refresh)
    for _ in range(9):
        clock.forward(1)
        assert issuer.refresh(pair.refresh).refresh == pair.refresh
    clock.forward(1)
    assert issuer.refresh(pair.refresh).refresh != pair.refresh


def test_an_old_token_after_the_window_ends_that_session_and_no_other(issuer: Issuer, clock: Clock) -> None:
    phone, laptop = issuer.sign_in("alice"), issuer.sign_in("alice")
    newer = issuer.refresh(phone.refresh)
    clock.forward(10)
    with pytest.raises(errors.TokenReused) as caught:
        issuer.refresh(phone.refresh)
    assert caught.value.sid == phone.sid
    with pytest.raises(errors.SessionOver):
        issuer.refresh(newer.refresh)
    assert [session.sid for session in issuer.sessions("alice")] == [laptop.sid]
    assert issuer.refresh(laptop.refresh).generation == 1


def test_with_a_window_of_0_every_token_is_good_once(make_issuer: MakeIssuer) -> None:
    issuer = make_issuer(rotation=STRICT)
    first = issuer.sign_in("alice")
    third = issuer.refresh(issuer.refresh(first.refresh).refresh)
    assert third.generation == 2
    with pytest.raises(errors.TokenReused):
        issuer.refresh(first.refresh)
    with pytest.raises(errors.SessionOver):
        issuer.refresh(third.refresh)


def test_a_token_ahead_of_the_store_moves_it_forward_up_to_max_ahead(
    make_issuer: MakeIssuer, store: MemoryStore, clock: Clock
) -> None:
    heard: list[events.Event] = []
    issuer = make_issuer(rotation=Rotation(max_ahead=3), on_event=heard.append)
    pair = issuer.sign_in("alice")
    before = store.get(pair.sid)
    assert before is not None
    later = []
    for _ in range(4):
        clock.forward(11)
        pair = issuer.refresh(pair.refresh)
        later.append(pair)
    store._rows[pair.sid] = before  # the writes of four rotations are lost
    with pytest.raises(errors.CounterTooFarAhead):
        issuer.refresh(later[3].refresh)
    assert store.get(pair.sid) == before
    heard.clear()
    moved = issuer.refresh(later[2].refresh)
    assert moved.generation == 4
    assert moved.refresh == later[3].refresh
    assert events.MovedForward(pair.sid, "alice", 4, lost=3) in heard


def test_a_session_is_over_at_its_absolute_limit_and_no_rotation_moves_it(
    make_issuer: MakeIssuer, clock: Clock
) -> None:
    issuer = make_issuer(session_lifetime=timedelta(minutes=60))
    started = clock.now
    pair = issuer.sign_in("alice")
    while clock.now < started + 3590:
        clock.forward(11)
        pair = issuer.refresh(pair.refresh)
        assert pair.expires_at <= started + 3600
        assert pair.session_expires_at == started + 3600
    clock.now = started + 3600
    with pytest.raises(errors.SessionExpired):
        issuer.refresh(pair.refresh)
    with pytest.raises(errors.TokenExpired):
        issuer.verify(pair.access)


def test_an_access_token_never_outlives_the_session(make_issuer: MakeIssuer, clock: Clock) -> None:
    clock.now += 0.7
    for limits in ({"session_lifetime": timedelta(seconds=60)}, {"idle_limit": timedelta(seconds=60)}):
        issuer = make_issuer(**limits)
        pair = issuer.sign_in("alice")
        assert (pair.expires_in, pair.expires_at) == (59, int(clock.now + 60))
        clock.forward(30)
        if "session_lifetime" in limits:
            assert issuer.refresh(pair.refresh).expires_in == 29


def test_the_session_goes_by_the_stores_clock_and_the_access_token_by_the_servers(
    make_issuer: MakeIssuer, clock: Clock
) -> None:
    """A server whose clock is a day ahead of its store's still caps a token by what the session has left."""
    issuer = make_issuer(session_lifetime=timedelta(minutes=5), now=lambda: clock.now + 86_400)
    pair = issuer.sign_in("alice")
    assert pair.expires_in == 300
    assert pair.expires_at == int(clock.now) + 86_400 + 300


def test_an_idle_session_is_over_and_a_rotation_keeps_it(make_issuer: MakeIssuer, clock: Clock) -> None:
    issuer = make_issuer(idle_limit=timedelta(minutes=30))
    pair = issuer.sign_in("alice")
    for _ in range(5):
        clock.forward(1799)
        pair = issuer.refresh(pair.refresh)
    clock.forward(1800)
    with pytest.raises(errors.SessionIdle):
        issuer.refresh(pair.refresh)
    assert list(issuer.sessions("alice")) == []


def test_a_sign_out_ends_one_session_at_once_for_refresh_and_for_live_checks(issuer: Issuer) -> None:
    gone, kept = issuer.sign_in("alice"), issuer.sign_in("alice")
    assert issuer.sign_out(gone.sid)
    assert not issuer.sign_out(gone.sid)
    assert not issuer.sign_out("nobody's")
    with pytest.raises(errors.SessionOver):
        issuer.refresh(gone.refresh)
    with pytest.raises(errors.SessionOver):
        issuer.verify(gone.access, live=True)
    assert issuer.verify(gone.access).sid == gone.sid  # until its exp, for who does not ask the store
    assert issuer.verify(kept.access, live=True).sid == kept.sid


def test_a_sign_out_everywhere_ends_all_of_a_subjects_sessions(issuer: Issuer) -> None:
    pairs = [issuer.sign_in("alice") for _ in range(3)]
    other = issuer.sign_in("bob")
    assert issuer.sign_out_everywhere("alice") == 3
    assert issuer.sign_out_everywhere("alice") == 0
    for pair in pairs:
        with pytest.raises(errors.SessionOver):
            issuer.refresh(pair.refresh)
    assert issuer.refresh(other.refresh).subject == "bob"


def test_a_superseded_refresh_token_still_signs_out(issuer: Issuer, clock: Clock) -> None:
    first = issuer.sign_in("alice")
    issuer.refresh(first.refresh)
    clock.forward(60)
    assert issuer.sign_out_token(first.refresh)
    with pytest.raises(errors.TokenForged):
        issuer.sign_out_token(first.refresh[:-1] + ("A" if first.refresh[-1] != "A" else "E"))


def test_a_live_check_names_why_a_session_does_not_go_on(
    make_issuer: MakeIssuer, clock: Clock, store: MemoryStore
) -> None:
    def live(issuer: Issuer, access: str) -> None:
        issuer.verify(access, live=True)

    # The access token's clock stands still, so that only the session runs out.
    stopped = {"now": lambda: 1_800_000_000.0, "access_lifetime": timedelta(days=90)}
    issuer = make_issuer(session_lifetime=timedelta(hours=1), idle_limit=timedelta(minutes=30), **stopped)
    pair = issuer.sign_in("alice")
    clock.forward(1800)
    with pytest.raises(errors.SessionIdle):
        live(issuer, pair.access)
    clock.forward(1800)
    with pytest.raises(errors.SessionExpired):
        live(issuer, pair.access)
    assert issuer.purge() == 1
    with pytest.raises(errors.SessionUnknown):
        live(issuer, pair.access)
    with pytest.raises(errors.SessionUnknown):
        issuer.refresh(pair.refresh)


def test_a_refresh_token_of_a_client_and_a_key_is_theirs_alone(issuer: Issuer) -> None:
    pair = issuer.sign_in("alice", client="app", key="thumb")
    for who in ({"key": "thumb"}, {"client": "other", "key": "thumb"}):
        with pytest.raises(errors.WrongClient):
            issuer.refresh(pair.refresh, **who)  # type: ignore[arg-type]
    with pytest.raises(errors.WrongKey):
        issuer.refresh(pair.refresh, client="app", key="other")
    assert issuer.refresh(pair.refresh, client="app", key="thumb").generation == 1


def test_the_recovery_lease_gives_a_lost_answer_again_until_the_answer_was_seen(
    make_issuer: MakeIssuer, clock: Clock
) -> None:
    issuer = make_issuer(rotation=Rotation(recovery=timedelta(hours=1)))
    for seen in (False, True):
        first = issuer.sign_in("alice", client="app")
        lost = issuer.refresh(first.refresh, client="app", authenticated=True)
        clock.forward(3000)
        if not seen:
            again = issuer.refresh(first.refresh, client="app", authenticated=True)
            assert again.refresh == lost.refresh
        else:
            # The row had an hour, and the token of that answer was not lost after all.
            clock.now -= 3000
            issuer.verify(lost.access)
            clock.forward(3000)
            with pytest.raises(errors.TokenReused):
                issuer.refresh(first.refresh, client="app", authenticated=True)


def test_a_seen_generation_is_written_once_and_only_for_a_recovery_lease(
    make_issuer: MakeIssuer, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    monkeypatch.setattr(store, "mark_seen", lambda sid, generation: written.append(generation))
    leased, plain = make_issuer(rotation=Rotation(recovery=timedelta(hours=1))), make_issuer()
    access = plain.refresh(plain.sign_in("alice").refresh).access
    for issuer in (plain, leased):
        for _ in range(3):
            issuer.verify(access)
    assert written == [1]


def test_a_store_that_fails_to_note_what_was_seen_is_asked_again(
    make_issuer: MakeIssuer, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def down(sid: str, generation: int) -> None:
        calls.append(generation)
        if len(calls) == 1:
            raise errors.StoreUnavailable("down")

    monkeypatch.setattr(store, "mark_seen", down)
    issuer = make_issuer(rotation=Rotation(recovery=timedelta(hours=1)))
    pair = issuer.sign_in("alice")
    with pytest.raises(errors.StoreUnavailable):
        issuer.verify(pair.access)
    issuer.verify(pair.access)
    issuer.verify(pair.access)
    assert calls == [0, 0]


# Races


def test_50_threads_with_one_token_all_get_the_same_successor(issuer: Issuer) -> None:
    first = issuer.sign_in("alice")
    pairs = at_once([lambda: issuer.refresh(first.refresh)] * 50)
    assert all(isinstance(pair, TokenPair) for pair in pairs)
    assert len({pair.refresh for pair in pairs if isinstance(pair, TokenPair)}) == 1
    assert {pair.generation for pair in pairs if isinstance(pair, TokenPair)} == {1}


def test_50_threads_with_one_token_under_a_window_of_0_are_one_winner_and_named_losers(
    make_issuer: MakeIssuer,
) -> None:
    heard: list[events.Event] = []
    issuer = make_issuer(rotation=STRICT, on_event=heard.append)
    first = issuer.sign_in("alice")
    results = at_once([lambda: issuer.refresh(first.refresh)] * 50)
    assert sum(isinstance(result, TokenPair) for result in results) == 1
    assert sum(isinstance(result, errors.TokenReused) for result in results) == 1
    assert sum(isinstance(result, errors.SessionOver) for result in results) == 48
    assert sum(isinstance(event, events.Reused) for event in heard) == 1
    assert sum(isinstance(event, events.Ended) for event in heard) == 1


class Interfering(MemoryStore):
    """A store in which something happens between a read and the write that follows it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.meanwhile: Callable[[], object] | None = None

    def advance(self, sid: str, *, read: int, to: int) -> bool:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().advance(sid, read=read, to=to)


@pytest.mark.parametrize("branch", ["advance", "same again", "replay", "forward"])
def test_no_branch_mints_when_the_session_ends_between_its_read_and_its_write(
    make_issuer: MakeIssuer, clock: Clock, branch: str
) -> None:
    store = Interfering(clock)
    issuer = make_issuer(store=store)
    first = issuer.sign_in("alice")
    token = first.refresh
    if branch in {"same again", "replay"}:
        second = issuer.refresh(first.refresh)
        token = second.refresh if branch == "same again" else first.refresh
    if branch == "forward":
        token = issuer._refresh_tokens.make(first.sid, 3)
    store.meanwhile = lambda: issuer.sign_out(first.sid)
    with pytest.raises(errors.SessionOver):
        issuer.refresh(token)
    assert store.meanwhile is None


def test_a_same_again_that_is_overtaken_by_a_rotation_decides_again(
    make_issuer: MakeIssuer, clock: Clock
) -> None:
    """The window ends between the read and the write, and another caller rotates: both get one successor."""
    store = Interfering(clock)
    issuer = make_issuer(store=store)
    pair = issuer.refresh(issuer.sign_in("alice").refresh)
    clock.forward(9.999)
    overtaking: list[TokenPair] = []

    def overtake() -> None:
        clock.forward(1)
        overtaking.append(issuer.refresh(pair.refresh))

    store.meanwhile = overtake
    assert issuer.refresh(pair.refresh).refresh == overtaking[0].refresh
    assert overtaking[0].generation == 2


def test_a_session_that_never_holds_still_is_a_store_that_is_down_in_the_end(
    make_issuer: MakeIssuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore(clock=clock)
    monkeypatch.setattr(store, "advance", lambda sid, read, to: False)
    issuer = make_issuer(store=store)
    with pytest.raises(errors.StoreUnavailable):
        issuer.refresh(issuer.sign_in("alice").refresh)


# What is told


def test_every_turn_of_a_session_is_told(make_issuer: MakeIssuer, clock: Clock) -> None:
    heard: list[events.Event] = []
    issuer = make_issuer(on_event=heard.append)
    first = issuer.sign_in("alice", client="app")
    sid = first.sid
    second = issuer.refresh(first.refresh, client="app")
    issuer.refresh(first.refresh, client="app")
    issuer.refresh(second.refresh, client="app")
    clock.forward(10)
    with pytest.raises(errors.TokenReused):
        issuer.refresh(first.refresh, client="app")
    other = issuer.sign_in("alice")
    issuer.sign_out_everywhere("alice")
    assert heard == [
        events.Started(sid, "alice", "app"),
        events.Refreshed(sid, "alice", 1),
        events.Replayed(sid, "alice", 1, successor=True, recovered=False),
        events.Replayed(sid, "alice", 1, successor=False, recovered=False),
        events.Ended(sid, "alice", "reuse"),
        events.Reused(sid, "alice", 1, behind=1),
        events.Started(other.sid, "alice", None),
        events.Ended(other.sid, "alice", "signed_out"),
    ]


def test_a_callback_that_fails_is_logged_and_disturbs_nobody(
    make_issuer: MakeIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: events.Event) -> None:
        raise ZeroDivisionError

    issuer = make_issuer(on_event=fail)
    assert issuer.refresh(issuer.sign_in("alice").refresh).generation == 1
    assert "on_event failed for a Refreshed" in caplog.text


def test_a_reuse_is_a_warning_in_the_log(
    make_issuer: MakeIssuer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    issuer = make_issuer(rotation=STRICT)
    first = issuer.sign_in("alice")
    issuer.refresh(first.refresh)
    with pytest.raises(errors.TokenReused):
        issuer.refresh(first.refresh)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.name == "keyturn.server"
    assert first.sid in record.getMessage()


# Arguments


@pytest.mark.parametrize(
    "arguments",
    [
        {"secret": "short"},
        {"secret": None},
        {"store": "redis://localhost"},
        {"name": ""},
        {"name": "né"},
        {"name": "a\nb"},
        {"audience": ""},
        {"access_lifetime": timedelta(0)},
        {"access_lifetime": 900},
        {"session_lifetime": timedelta(seconds=-1)},
        {"idle_limit": timedelta(0)},
        {"idle_limit": 30},
        {"remember": -1},
    ],
    ids=str,
)
def test_an_issuer_that_cannot_work_is_refused_when_it_is_made(
    make_issuer: MakeIssuer, arguments: dict[str, object]
) -> None:
    with pytest.raises(errors.ConfigurationError):
        make_issuer(**arguments)


@pytest.mark.parametrize(
    "name", ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "gen", "client_id", "cnf"]
)
def test_a_claim_of_keyturns_own_cannot_be_given(issuer: Issuer, name: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=name):
        issuer.sign_in("alice", claims={name: "x"})


@pytest.mark.parametrize(
    "claims",
    [
        {"x": object()},
        {"x": float("nan")},
        {"x": b"bytes"},
        {"x": "\ud800"},
        {"x": "y" * 5000},
        {"x": {1, 2}},
    ],
    ids=range(6),
)
def test_claims_that_no_token_can_carry_leave_no_session(
    issuer: Issuer, store: MemoryStore, claims: dict[str, object]
) -> None:
    with pytest.raises(errors.ConfigurationError):
        issuer.sign_in("alice", claims=claims)  # type: ignore[arg-type]
    assert store._rows == {}


@pytest.mark.parametrize("subject", ["", "x" * 256, "a\0b", "\ud800", None, 7, b"alice"], ids=range(7))
def test_a_subject_that_no_store_can_keep_is_refused(issuer: Issuer, subject: object) -> None:
    with pytest.raises(errors.ConfigurationError):
        issuer.sign_in(subject)  # type: ignore[arg-type]


def test_claims_changed_after_the_sign_in_change_no_session(issuer: Issuer) -> None:
    roles: list[str] = ["reader"]
    pair = issuer.sign_in("alice", claims={"roles": roles})
    roles.append("admin")
    assert issuer.verify(issuer.refresh(pair.refresh).access)["roles"] == ["reader"]


def test_one_issuer_serves_many_threads(issuer: Issuer) -> None:
    def live(number: int) -> int:
        pair = issuer.sign_in(f"user {number}")
        for _ in range(5):
            pair = issuer.refresh(pair.refresh)
            issuer.verify(pair.access, live=True)
        return issuer.sign_out_everywhere(f"user {number}")

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(live, range(64))) == [1] * 64

"""Credentials in a shared store, two objects for two processes: what is found, bought, saved and told."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography.fernet import Fernet

import keyturn
from keyturn.client import events, grants, token_stores
from keyturn.client.entry import Entry
from keyturn.client.errand import Errand
from keyturn.client.grants import Grant
from keyturn.client.httpx2 import Auth
from keyturn.client.record import Failure, Marker, Record, Version, fingerprint
from keyturn.client.shelf import shelf
from keyturn.client.snapshot import Snapshot
from keyturn.client.token_stores import Lease, TokenStore, new_store
from keyturn.client.token_stores.file import FileStore
from keyturn.client.token_stores.file_lease import FileLease
from keyturn.clocks import now
from keyturn.testing import StrictServer
from tests.kit import Log, in_threads, oauth2
from tests.waiting import WITHIN, start, until

DOWN = keyturn.TokenStoreUnavailable("the store is down, says the test")


class Place:
    """A store, and credentials over it as several processes would make them."""

    def __init__(self, url: str, server: StrictServer) -> None:
        self.url, self.server = url, server
        self._open: list[keyturn.Credentials] = []

    def credentials(
        self,
        tokens: Any = None,
        *,
        grant: Grant | None = None,
        name: str = "alice",
        **options: Any,
    ) -> keyturn.Credentials:
        """Return credentials of their own, as another process would have them."""
        options = dict[str, Any](origins=[self.server.url], retry_for=timedelta(seconds=2)) | options
        grant = oauth2(self.server, timeout=timedelta(seconds=5)) if grant is None else grant
        made = keyturn.Credentials(grant, tokens=tokens, store=self.url, name=name, **options)
        self._open.append(made)
        return made

    def close(self) -> None:
        """Close all of them."""
        for one in self._open:
            one.close()

    def on_loop(self, work: Callable[[TokenStore], Awaitable[Any]]) -> Any:
        """Return what `work(store)` returns, on keyturn's loop."""

        async def run() -> Any:
            store = new_store(self.url)
            try:
                return await work(store)
            finally:
                await store.aclose()

        errand = Errand(run, longest=WITHIN)
        errand.take_off()
        return errand.result(WITHIN)

    def record(self, name: str = "alice") -> Record:
        """Return the record as it stands."""
        record = self.on_loop(lambda store: store.read(name)).record
        assert isinstance(record, Record)
        return record

    def write(self, record: Record, over: Version | None) -> None:
        """Write a record as another process would."""
        assert self.on_loop(lambda store: store.write(record.name, record, over=over))

    def expire(self) -> None:
        """Have the record's access token be over, as time would."""
        record = self.record()
        self.write(replace(record, expires_at=now() - 1.0), record.version)

    def leave_marker(self, ago: float = 0.0) -> None:
        """Have it look as if a holder had died in the middle of an exchange."""
        record = self.record()
        refresh = json.loads(record.sealed or "")["refresh"]
        marker = Marker(
            epoch=record.epoch,
            generation=record.generation,
            fingerprint=fingerprint(refresh),
            at=now() - ago,
        )
        self.write(replace(record, marker=marker, expires_at=now() - 1.0), record.version)


@pytest.fixture
def place(tmp_path: Path, strict_server: StrictServer) -> Iterator[Place]:
    """A directory for a file store."""
    place = Place(f"file://{tmp_path}/tokens", strict_server)
    yield place
    place.close()


class Faulty(FileStore):
    """A file store whose operations fail while they are in `fails`, by count or for good."""

    fails: dict[str, int]

    def _fault(self, what: str) -> None:
        left = self.fails.get(what, 0)
        if left:
            self.fails[what] = left - 1
            raise DOWN.again()

    async def read(self, name: str) -> token_stores.Reading:
        """Read, or fail."""
        self._fault("read")
        return await super().read(name)

    async def write(
        self, name: str, record: Record, *, over: Version | None, under: Lease | None = None
    ) -> bool:
        """Write, or fail: markers and saves apart."""
        kind = "mark" if record.marker is not None else "save"
        self._fault(kind)
        written = await super().write(name, record, over=over, under=under)
        self._fault(f"{kind}, unheard")
        return written

    async def try_lease(self, name: str, seconds: float) -> FileLease | None:
        """Lease, or fail."""
        self._fault("lease")
        return await super().try_lease(name, seconds)


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often each operation of a store is to fail from now on."""
    fails: dict[str, int] = {}

    def make(url: str) -> TokenStore:
        store = Faulty.from_url(url)
        store.fails = fails
        return store

    monkeypatch.setattr("keyturn.client.shelf.new_store", make)
    return fails


def test_a_save_whose_answer_is_lost_has_been_saved(place: Place, fails: dict[str, int]) -> None:
    log = Log()
    here = place.credentials(place.server.sign_in(), on_event=log)
    held = here.get_tokens()
    fails["save, unheard"] = 1

    newer = here.renew(held)
    here.close()

    assert place.record().version == (newer.epoch, 1)
    assert len(log.of(events.SaveFailed)) == 1
    assert here.tokens is None


# What is there, and what it begins with


def test_the_first_use_takes_what_the_store_has_and_refreshes_nothing(place: Place) -> None:
    first = place.credentials(place.server.sign_in()).get_tokens()
    second = place.credentials()

    assert second.tokens is None
    found = second.get_tokens()

    assert (found.epoch, found.generation, found.access) == (first.epoch, 0, first.access)
    assert place.server.stats.refreshes == 0


def test_an_expired_record_is_refreshed_once_by_whoever_comes_first(place: Place) -> None:
    place.credentials(place.server.sign_in()).get_tokens()
    place.expire()
    others = [place.credentials() for _ in range(8)]

    found = in_threads(8, lambda i: others[i].get_tokens())

    assert {(one.generation, one.access) for one in found} == {(1, found[0].access)}
    assert (place.server.stats.refreshes, place.server.stats.reuses) == (1, 0)


def test_what_is_refused_everywhere_is_refreshed_once(place: Place) -> None:
    seed = place.server.sign_in()
    others = [place.credentials(seed) for _ in range(8)]
    held = [one.get_tokens() for one in others]

    renewed = in_threads(8, lambda i: others[i].renew(held[i]))

    assert {one.generation for one in renewed} == {1}
    assert len({one.access for one in renewed}) == 1
    assert (place.server.stats.refreshes, place.server.stats.reuses) == (1, 0)


def test_a_seed_is_used_only_where_there_is_no_record(place: Place) -> None:
    seed, later = place.server.sign_in(), place.server.sign_in()
    place.credentials(seed).get_tokens()
    place.expire()
    newest = place.credentials(seed).get_tokens()

    assert place.credentials(seed).get_tokens().access == newest.access
    assert place.credentials(later).get_tokens().access == newest.access
    assert place.credentials(lambda: later).get_tokens().access == newest.access
    assert place.record().version == (newest.epoch, 1)


def test_reseeding_takes_a_seed_that_is_new_and_begins_an_epoch(place: Place) -> None:
    seed, later = place.server.sign_in(), place.server.sign_in()
    old = place.credentials(seed).get_tokens()

    assert place.credentials(seed, reseed=True).get_tokens().epoch == old.epoch
    new = place.credentials(later, reseed=True).get_tokens()
    assert (new.access, new.generation) == (later.access, 0)
    assert new.epoch != old.epoch
    assert place.credentials(lambda: later, reseed=True).get_tokens().epoch == new.epoch


def test_reseeding_happens_once_and_not_again_after_somebody_elses(place: Place) -> None:
    one, other = place.server.sign_in(), place.server.sign_in()
    first = place.credentials(one, reseed=True)
    first.get_tokens()
    second = place.credentials(other, reseed=True).get_tokens()

    with pytest.raises(keyturn.SessionEnded, match="anew"):
        first.renew(first.get_tokens())
    assert first.get_tokens().epoch == second.epoch


def test_an_expired_seed_is_refreshed_on_the_first_flight(place: Place) -> None:
    found = place.credentials(place.server.sign_in(ttl=-1.0)).get_tokens()

    assert found.generation == 1
    assert place.server.stats.refreshes == 1


def test_without_record_and_seed_there_is_nobody_until_somebody_signs_in_elsewhere(place: Place) -> None:
    waits, other = place.credentials(), place.credentials()
    for _ in range(2):
        with pytest.raises(keyturn.NotSignedIn, match="sign in first"):
            waits.get_tokens()

    other.sign_in(place.server.sign_in())

    assert waits.get_tokens().access == other.get_tokens().access


def test_a_service_that_signs_in_by_itself_does_so_once_for_all(place: Place) -> None:
    def make() -> keyturn.Credentials:
        grant = grants.ClientCredentials(place.server.url + "/token", client_id="tests", client_secret="s")
        return place.credentials(grant=grant)

    all_of_them = [make() for _ in range(4)]
    found = in_threads(4, lambda i: all_of_them[i].get_tokens())
    assert len({one.access for one in found}) == 1
    assert place.server.stats.issued == 1

    all_of_them[0].sign_out()
    for one, held in zip(all_of_them[1:], found[1:], strict=True):
        with pytest.raises(keyturn.SessionEnded):
            one.renew(held)
    with pytest.raises(keyturn.SessionEnded):
        all_of_them[0].get_tokens()

    assert make().get_tokens().generation == 0, "whoever is new signs in anew"
    assert place.server.stats.issued == 2


def test_an_expired_pair_that_others_saved_is_no_answer_to_who_waits_for_the_first(place: Place) -> None:
    place.credentials(place.server.sign_in()).get_tokens()
    place.expire()
    here = place.credentials()
    seen = place.on_loop(lambda store: store.read("alice")).record
    expired = Snapshot.of(keyturn.Tokens("old", "r", now() - 1.0), seen.epoch, 0, now())

    here.learn(expired, None)

    assert here.tokens is None
    assert here.get_tokens().generation == 1


# Who signs in and out


def test_a_sign_out_is_seen_before_the_next_refresh_and_nothing_is_sent(place: Place) -> None:
    here, there = place.credentials(place.server.sign_in()), place.credentials()
    here.get_tokens()
    held = there.get_tokens()

    here.sign_out()

    assert place.record().ended == "signed_out"
    with pytest.raises(keyturn.SessionEnded) as raised:
        there.renew(held)
    assert (raised.value.reason, raised.value.epoch) == ("signed_out", held.epoch)
    with pytest.raises(keyturn.SessionEnded):
        there.get_tokens()
    assert place.server.stats.refreshes == 0


def test_a_tombstone_is_a_record_and_no_seed_takes_its_place(place: Place) -> None:
    seed = place.server.sign_in()
    here = place.credentials(seed)
    here.get_tokens()
    here.sign_out()

    for later in (seed, place.server.sign_in()):
        with pytest.raises(keyturn.SessionEnded):
            place.credentials(later).get_tokens()


def test_a_sign_out_before_the_first_use_ends_what_the_store_has(place: Place) -> None:
    place.credentials(place.server.sign_in()).get_tokens()

    place.credentials().sign_out()

    assert place.record().ended == "signed_out"


def test_a_sign_in_is_a_new_epoch_for_everyone_and_nothing_crosses_it(place: Place) -> None:
    here, there = place.credentials(place.server.sign_in()), place.credentials()
    here.get_tokens()
    old = there.get_tokens()

    here.sign_in(place.server.sign_in("bob"))

    with pytest.raises(keyturn.SessionEnded) as raised:
        there.renew(old)
    assert raised.value.reason == "replaced"
    assert there.get_tokens().access == here.get_tokens().access
    assert place.server.stats.refreshes == 0


def test_whoever_signed_out_comes_back_when_somebody_signs_in_elsewhere(place: Place) -> None:
    here, there = place.credentials(place.server.sign_in()), place.credentials()
    here.get_tokens()
    here.sign_out()
    there.sign_in(place.server.sign_in())

    def is_back() -> bool:
        try:
            return here.get_tokens().access == there.get_tokens().access
        except keyturn.SessionEnded:
            return False

    until(is_back)


def test_a_sign_out_revokes_what_the_store_has_which_may_be_newer(place: Place) -> None:
    def make(tokens: keyturn.Tokens | None = None) -> keyturn.Credentials:
        return place.credentials(tokens, grant=oauth2(place.server, revoke_url=place.server.url + "/revoke"))

    here, there = make(place.server.sign_in()), make()
    first, held = here.get_tokens(), there.get_tokens()
    newer = here.renew(first)
    assert newer.generation == held.generation + 1

    there.sign_out()

    assert place.server.stats.revocations == 1
    assert not place.server.alive(newer)
    assert place.server.stats.reuses == 0


def test_a_refusal_by_the_server_ends_the_session_for_everyone(place: Place) -> None:
    here, there = place.credentials(place.server.sign_in()), place.credentials()
    held, _ = here.get_tokens(), there.get_tokens()
    place.server.revoke()

    for one in (here, there):
        with pytest.raises(keyturn.SessionEnded) as raised:
            one.renew(held if one is here else one.get_tokens())
        assert raised.value.reason == "refused"

    assert place.record().ended == "refused"
    assert place.server.stats.refreshes == 1


def test_who_brings_a_seed_to_a_session_that_is_over_is_told_what_would_use_it(place: Place) -> None:
    here = place.credentials(place.server.sign_in())
    here.get_tokens()
    here.sign_out()

    with pytest.raises(keyturn.SessionEnded, match="reseed=True"):
        place.credentials(place.server.sign_in()).get_tokens()


def test_a_pair_that_was_bought_before_anybody_waited_is_no_refresh_of_theirs(place: Place) -> None:
    seed = place.server.sign_in()
    here, there = place.credentials(seed), place.credentials(seed)
    held, also = here.get_tokens(), there.get_tokens()
    here.renew(held)
    place.server.expire()

    with httpx2.Client(base_url=place.server.url, auth=Auth(there), verify=False, trust_env=False) as api:
        assert api.get("/x").status_code == 200

    assert also.generation == 0
    assert (place.server.stats.refreshes, place.server.stats.reuses) == (2, 0)


def test_a_refusal_ends_nothing_where_the_record_is_newer_by_then(place: Place) -> None:
    there = place.credentials(place.server.sign_in())
    first = there.get_tokens()

    async def refused(tokens: keyturn.Tokens, http: object) -> keyturn.Tokens:
        newer = Snapshot.of(replace_access(tokens), first.epoch, 1, now())
        await rewrite(newer)
        raise keyturn.SessionEnded("spent before, says the server")

    def replace_access(tokens: keyturn.Tokens) -> keyturn.Tokens:
        return keyturn.Tokens("newer", "newer-refresh", now() + 60.0, 60.0)

    async def rewrite(newer: Snapshot) -> None:
        store = new_store(place.url)
        record = (await store.read("alice")).record
        assert record is not None
        sealed = json.dumps(
            {**json.loads(record.sealed or ""), "access": "newer", "refresh": "newer-refresh"}
        )
        after = replace(record, generation=1, sealed=sealed, marker=None, expires_at=now() + 60.0)
        assert await store.write("alice", after, over=record.version)

    here = place.credentials(grant=grants.Call(refused))
    found = here.renew(here.get_tokens())

    assert (found.access, found.epoch, found.generation) == ("newer", first.epoch, 1)


# A holder that died


def test_what_a_dead_holder_may_have_spent_is_not_sent_again_unasked(place: Place) -> None:
    place.credentials(place.server.sign_in()).get_tokens()
    place.leave_marker()
    others = [place.credentials() for _ in range(3)]

    for one in others:
        with pytest.raises(keyturn.OutcomeUnknown, match="retry_unknown"):
            one.get_tokens()
    assert place.server.stats.refreshes == 0

    assert others[0].retry_unknown().generation == 1
    until(lambda: knows_again(others[1]))
    assert place.server.stats.refreshes == 1


@pytest.mark.parametrize("window", [None, 30.0])
def test_a_retry_that_could_not_be_sent_leaves_the_doubt_as_it_was(
    place: Place, window: float | None
) -> None:
    options: dict[str, Any] = {} if window is None else {"replay_window": timedelta(seconds=window)}
    seconds = timedelta(seconds=5)
    away = grants.OAuth2("http://127.0.0.1:9/token", client_id="tests", timeout=seconds, **options)
    place.credentials(place.server.sign_in()).get_tokens()
    place.leave_marker(ago=1.0)
    doubt = place.record().marker
    here = place.credentials(grant=away, retry_for=timedelta(0))

    with pytest.raises(keyturn.RefreshError):
        here.retry_unknown()

    assert place.record().marker == doubt
    with pytest.raises(keyturn.OutcomeUnknown):
        place.credentials().get_tokens()
    assert place.server.stats.refreshes == 0


@pytest.mark.parametrize("window", [None, 30.0])
def test_who_cannot_write_his_marker_leaves_the_doubt_as_it_was(
    place: Place, fails: dict[str, int], window: float | None
) -> None:
    options: dict[str, Any] = {} if window is None else {"replay_window": timedelta(seconds=window)}
    place.credentials(place.server.sign_in()).get_tokens()
    place.leave_marker(ago=1.0)
    doubt = place.record().marker
    here = place.credentials(grant=oauth2(place.server, **options), retry_for=timedelta(0))
    fails["mark, unheard"] = 1

    with pytest.raises(keyturn.TokenStoreUnavailable):
        here.retry_unknown()

    assert place.record().marker == doubt
    assert place.server.stats.refreshes == 0


def test_a_marker_that_was_written_and_whose_answer_was_lost_is_taken_back(
    place: Place, fails: dict[str, int]
) -> None:
    here = place.credentials(place.server.sign_in(), retry_for=timedelta(0))
    held = here.get_tokens()
    fails["mark, unheard"] = 1

    with pytest.raises(keyturn.TokenStoreUnavailable):
        here.renew(held)

    assert place.record().marker is None
    assert place.server.stats.refreshes == 0


def test_a_flight_that_is_given_up_twice_before_anything_was_sent_leaves_no_marker(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    noting, goes_on = threading.Event(), threading.Event()
    fail = Entry.fail

    async def slowly(*args: Any, **options: Any) -> None:
        noting.set()
        await asyncio.to_thread(goes_on.wait, WITHIN)
        await fail(*args, **options)

    monkeypatch.setattr(Entry, "fail", slowly)
    away = grants.OAuth2("http://127.0.0.1:9/token", client_id="tests")
    here = place.credentials(place.server.sign_in(), grant=away, retry_for=timedelta(seconds=60))
    held = here.get_tokens()
    asking = start(lambda: here.renew(held))
    until(lambda: place.record().marker is not None)
    flight = here._flight
    assert flight is not None
    flight.settle(0.0)
    assert noting.wait(WITHIN)
    flight.settle(0.0)
    goes_on.set()

    with pytest.raises(keyturn.KeyturnError):
        asking.result(WITHIN)
    until(lambda: place.record().marker is None)


def test_who_waits_for_the_first_tokens_while_somebody_signs_out_here_is_told_so(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, goes_on, try_lease = threading.Event(), threading.Event(), FileStore.try_lease

    async def slowly(self: FileStore, name: str, seconds: float) -> FileLease | None:
        asked.set()
        await asyncio.to_thread(goes_on.wait, WITHIN)
        return await try_lease(self, name, seconds)

    monkeypatch.setattr(FileStore, "try_lease", slowly)
    here = place.credentials(place.server.sign_in(ttl=-1.0))
    asking = start(here.get_tokens)
    assert asked.wait(WITHIN)
    keeper = here._keeper
    assert keeper is not None
    keeper.leaves(None)  # what a sign-out does first, before it waits for the lease too
    goes_on.set()

    with pytest.raises(keyturn.SessionEnded) as caught:
        asking.result(WITHIN)
    assert caught.value.reason == "signed_out"
    assert place.server.stats.refreshes == 0


def test_a_marker_is_no_younger_than_what_was_sent(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    read = FileStore.read

    async def slowly(self: FileStore, name: str) -> token_stores.Reading:
        await asyncio.sleep(0.2)
        return await read(self, name)

    monkeypatch.setattr(FileStore, "read", slowly)
    place.server.hold_refresh()
    here = place.credentials(place.server.sign_in(ttl=-1.0))
    asking = start(here.get_tokens)
    until(lambda: place.server.stats.refreshes == 1)
    sent_before = now()

    marker = place.record().marker
    assert marker is not None
    assert marker.at <= sent_before
    place.server.release()
    asking.result(WITHIN)


def knows_again(credentials: keyturn.Credentials) -> bool:
    """Tell whether an unknown outcome is over."""
    try:
        return credentials.get_tokens().generation == 1
    except keyturn.OutcomeUnknown:
        return False


def test_a_sign_in_elsewhere_is_a_way_out_of_an_unknown_outcome(place: Place) -> None:
    place.credentials(place.server.sign_in()).get_tokens()
    place.leave_marker()
    here, there = place.credentials(), place.credentials()
    with pytest.raises(keyturn.OutcomeUnknown):
        here.get_tokens()

    there.sign_in(place.server.sign_in())

    def is_back() -> bool:
        try:
            return here.get_tokens().generation == 0
        except keyturn.RefreshError:
            return False
        except keyturn.SessionEnded as error:
            return error.reason != "replaced"

    until(is_back)


@pytest.mark.parametrize(("ago", "sent"), [(0.0, True), (8.9, True), (9.5, False)])
def test_a_marker_is_retried_inside_the_window_and_not_after(place: Place, ago: float, sent: bool) -> None:
    place.server.configure(window=10.0)
    grant = oauth2(place.server, replay_window=timedelta(seconds=10))
    place.credentials(place.server.sign_in()).get_tokens()
    place.leave_marker(ago)
    here = place.credentials(grant=grant)

    if sent:
        assert here.get_tokens().generation == 1
        assert place.record().marker is None
    else:
        with pytest.raises(keyturn.OutcomeUnknown):
            here.get_tokens()
    assert place.server.stats.refreshes == int(sent)


def test_a_retry_that_fails_leaves_the_marker_and_its_time(place: Place) -> None:
    grant = oauth2(place.server, replay_window=timedelta(seconds=10))
    place.credentials(place.server.sign_in()).get_tokens()
    place.leave_marker(8.0)
    before = place.record().marker
    place.server.drop_refresh(times=9)

    with pytest.raises(keyturn.OutcomeUnknown):
        place.credentials(grant=grant).get_tokens()

    assert place.record().marker == before


def test_a_valid_token_with_a_marker_is_used(place: Place) -> None:
    here = place.credentials(place.server.sign_in())
    held = here.get_tokens()
    place.leave_marker()
    record = place.record()
    place.write(replace(record, expires_at=now() + 60.0), record.version)

    assert place.credentials().get_tokens().access == held.access


def test_a_marker_that_was_never_followed_by_a_request_stands_in_nobodys_way(
    place: Place, fails: dict[str, int]
) -> None:
    here = place.credentials(place.server.sign_in())
    held = here.get_tokens()
    fails["mark, unheard"] = 1

    assert here.renew(held).generation == 1
    assert place.server.stats.refreshes == 1


# A refresh that fails


def test_who_waits_for_a_refresh_that_fails_elsewhere_is_told_and_sends_nothing(place: Place) -> None:
    here, there = place.credentials(place.server.sign_in()), place.credentials()
    held, also = here.get_tokens(), there.get_tokens()
    place.server.hold_refresh("before")
    place.server.fail_refresh(400, body={"error": "invalid_client"})
    leader = start(lambda: here.renew(held))
    place.server.wait_for(refreshes=1)
    follower = start(lambda: there.renew(also))
    until(lambda: waits(there))
    place.server.release()

    for one in (leader, follower):
        with pytest.raises(keyturn.RefreshMisconfigured):
            one.result(WITHIN)
    assert place.server.stats.refreshes == 1
    record = place.record()
    assert record.marker is None
    assert record.failure is not None
    assert (record.failure.kind, record.failure.error, record.failure.status) == (
        "misconfigured",
        "RefreshMisconfigured",
        400,
    )


def waits(credentials: keyturn.Credentials) -> bool:
    """Tell whether credentials wait for another process's refresh."""
    keeper = credentials._keeper
    return keeper is not None and keeper._waits > 0


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("misconfigured", keyturn.RefreshMisconfigured),
        ("unknown", keyturn.OutcomeUnknown),
        ("unavailable", keyturn.RefreshUnavailable),
    ],
)
def test_an_old_failure_is_nobodys_now(place: Place, kind: Any, error: type[keyturn.KeyturnError]) -> None:
    here = place.credentials(place.server.sign_in())
    held = here.get_tokens()
    record = place.record()
    failure = Failure(kind=kind, at=now() - 1.0, error=error.__name__, message="long ago")
    place.write(replace(record, failure=failure), record.version)

    assert here.renew(held).generation == 1
    assert place.record().failure is None


def test_an_unknown_outcome_is_left_in_the_record_and_known_to_all(place: Place) -> None:
    here, there = place.credentials(place.server.sign_in()), place.credentials()
    held, also = here.get_tokens(), there.get_tokens()
    place.server.drop_refresh()

    with pytest.raises(keyturn.OutcomeUnknown):
        here.renew(held)
    with pytest.raises(keyturn.OutcomeUnknown):
        there.renew(also)

    assert place.server.stats.refreshes == 1
    assert place.record().marker is not None


# A store that fails


def test_a_fresh_token_touches_no_store(place: Place, fails: dict[str, int]) -> None:
    here = place.credentials(place.server.sign_in())
    held = here.get_tokens()
    fails.update(dict.fromkeys(("read", "lease", "save", "mark"), 1000))

    assert here.get_tokens() is held


@pytest.mark.parametrize("what", ["lease", "read", "mark"])
def test_without_the_store_nothing_is_sent_and_what_is_valid_goes_on(
    place: Place, fails: dict[str, int], what: str
) -> None:
    here = place.credentials(place.server.sign_in(), retry_for=timedelta(seconds=0.5))
    held = here.get_tokens()
    fails[what] = 1000

    with pytest.raises(keyturn.TokenStoreUnavailable):
        here.renew(held)
    assert here.get_tokens() is held
    assert place.server.stats.refreshes == 0

    fails.clear()
    assert here.renew(held).generation == 1


@pytest.mark.parametrize("what", ["lease", "read", "mark"])
def test_a_store_that_is_away_for_a_moment_is_waited_for(
    place: Place, fails: dict[str, int], what: str
) -> None:
    here = place.credentials(place.server.sign_in())
    held = here.get_tokens()
    fails[what] = 2

    assert here.renew(held).generation == 1
    assert place.server.stats.refreshes == 1


def test_a_save_that_fails_keeps_the_pair_and_the_lease_and_is_tried_again(
    place: Place, fails: dict[str, int]
) -> None:
    log = Log()
    here, there = place.credentials(place.server.sign_in(), on_event=log), place.credentials()
    held, also = here.get_tokens(), there.get_tokens()
    fails["save"] = 3

    newer = here.renew(held)

    assert here.get_tokens() is newer
    assert there.renew(also).access == newer.access, "who waits is given it when it was saved"
    assert place.record().version == (held.epoch, 1)
    assert [(one.attempts, type(one.cause)) for one in log.of(events.SaveFailed)] == [
        (1, keyturn.TokenStoreUnavailable),
        (2, keyturn.TokenStoreUnavailable),
        (3, keyturn.TokenStoreUnavailable),
    ]
    assert place.server.stats.refreshes == 1


def test_closing_waits_for_a_save_that_is_tried_again(place: Place, fails: dict[str, int]) -> None:
    here = place.credentials(place.server.sign_in())
    held = here.get_tokens()
    fails["save"] = 2

    newer = here.renew(held)
    assert not here.is_expendable
    here.close()

    assert place.record().version == (newer.epoch, newer.generation)


def test_a_sign_out_that_the_store_is_not_told_of_holds_here_and_is_made_up_for(
    place: Place, fails: dict[str, int]
) -> None:
    here, there = place.credentials(place.server.sign_in()), place.credentials()
    here.get_tokens()
    also = there.get_tokens()
    fails["save"] = 1

    with pytest.raises(keyturn.TokenStoreUnavailable):
        here.sign_out()
    for _ in range(2):
        with pytest.raises(keyturn.SessionEnded):
            here.get_tokens()
    assert there.get_tokens() is also

    def is_told() -> bool:
        with pytest.raises(keyturn.SessionEnded):
            here.get_tokens()
        return place.record().ended == "signed_out"

    until(is_told)


def test_a_sign_in_that_the_store_is_not_told_of_changes_nothing(place: Place, fails: dict[str, int]) -> None:
    here = place.credentials(place.server.sign_in())
    held = here.get_tokens()
    fails["save"] = 1

    with pytest.raises(keyturn.TokenStoreUnavailable):
        here.sign_in(place.server.sign_in())

    assert here.get_tokens() is held


def test_what_a_driver_raises_lands_as_an_error_of_ours_without_its_text(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = place.credentials(place.server.sign_in(), retry_for=timedelta(0))
    held = here.get_tokens()

    async def broken(*_: object) -> None:
        raise LookupError("a secret")

    monkeypatch.setattr(FileStore, "try_lease", broken)
    with pytest.raises(keyturn.TokenStoreUnavailable, match="LookupError") as raised:
        here.renew(held)
    assert "secret" not in str(raised.value)
    with pytest.raises(keyturn.TokenStoreUnavailable, match="LookupError"):
        here.sign_in(place.server.sign_in())


def test_a_record_that_was_lost_is_nothing_to_guess_about(place: Place) -> None:
    here = place.credentials(place.server.sign_in())
    held = here.get_tokens()
    assert place.on_loop(lambda store: store.remove("alice"))

    with pytest.raises(keyturn.OutcomeUnknown, match="lost"):
        here.renew(held)
    assert place.server.stats.refreshes == 0

    assert here.retry_unknown().generation == 1
    assert place.record().generation == 1


# Times, secrets, arguments


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_times_in_a_record_are_the_stores(place: Place, ahead: float) -> None:
    def clock() -> float:
        return now() + ahead

    here = place.credentials(place.server.sign_in(ttl=-1.0))
    there = place.credentials(clock=clock)
    mine, other = here.get_tokens(), there.get_tokens()
    renewed = there.renew(other)

    assert mine.left(now()) == pytest.approx(other.left(clock()), abs=1.0)
    assert renewed.left(clock()) == pytest.approx(60.0, abs=5.0)
    assert place.record().expires_at == pytest.approx(now() + 60.0, abs=5.0)
    assert here.renew(mine).left(now()) == pytest.approx(60.0, abs=5.0)
    assert place.server.stats.refreshes == 2


def test_what_is_stored_is_encrypted_with_keys_and_no_use_without(place: Place, tmp_path: Path) -> None:
    old, new = Fernet.generate_key(), Fernet.generate_key()
    seed = place.server.sign_in()
    place.credentials(seed, encryption_keys=[old]).get_tokens()

    found = place.credentials(encryption_keys=[old, new]).get_tokens()

    assert found.access == seed.access
    for text in (path.read_text() for path in tmp_path.rglob("*.json")):
        assert seed.access not in text
        assert str(seed.refresh) not in text
    with pytest.raises(keyturn.RefreshMisconfigured, match="encrypt"):
        place.credentials().get_tokens()
    place.credentials().sign_out()
    assert place.record().ended == "signed_out"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a" * 256}, "name"),
        ({"name": 7}, "name"),
        ({"store": "mongodb://there"}, "mongodb"),
        ({"store": "tokens"}, "URL"),
        ({"store": None}, "URL"),
        ({"encryption_keys": ["short"]}, "32 bytes"),
        ({"encryption_keys": []}, "empty"),
        ({"encryption_keys": Fernet.generate_key()}, "list"),
        ({"store": "memory://", "reseed": True}, "shared store"),
        ({"store": "memory://", "encryption_keys": [Fernet.generate_key()]}, "shared store"),
    ],
)
def test_arguments_that_cannot_work_are_refused_at_once(
    place: Place, options: dict[str, Any], says: str
) -> None:
    given = {"store": place.url, "name": "alice", "origins": [place.server.url]} | options

    with pytest.raises(keyturn.ConfigurationError, match=says):
        keyturn.Credentials(oauth2(place.server), **given)
    assert place.url not in shelf._users


# Events, adoption, leaving


def test_events_tell_what_was_found_bought_and_heard(place: Place) -> None:
    one, other = Log(), Log()
    here = place.credentials(place.server.sign_in(), on_event=one)
    there = place.credentials(on_event=other)
    held, also = here.get_tokens(), there.get_tokens()
    here.renew(held)
    there.renew(also)
    there.sign_out()
    with pytest.raises(keyturn.SessionEnded):
        here.renew(here.get_tokens())

    until(lambda: len(one.of(events.Landing)) == 3)
    assert [type(event) for event in one.of(events.Landing)] == [
        events.Loaded,
        events.Refreshed,
        events.Ended,
    ]
    assert [type(event) for event in other.of(events.Landing)] == [events.Loaded, events.Found]
    assert [event.generation for event in other.of(events.Found)] == [1]
    assert len(other.of(events.SignedOut)) == 1


def test_a_pair_that_came_with_a_response_is_saved(place: Place) -> None:
    here = place.credentials(place.server.sign_in())
    held = here.get_tokens()

    assert here.adopt(keyturn.Tokens("newer", "newer-refresh", now() + 60.0), held)

    until(lambda: place.record().version == (held.epoch, 1))
    assert place.credentials().get_tokens().access == "newer"


def test_a_pool_lets_go_of_what_the_store_keeps_and_finds_it_again(place: Place) -> None:
    pool = keyturn.CredentialsPool(
        oauth2(place.server),
        origins=[place.server.url],
        tokens=place.server.sign_in,
        store=place.url,
        most_idle=2,
    )
    with pool:
        names = [f"tenant {i}" for i in range(6)]
        first = {name: pool[name].get_tokens().access for name in names}
        renewed = pool["tenant 0"].renew(pool["tenant 0"].get_tokens()).access
        pool["tenant 5"].get_tokens()
        gc.collect()
        assert len(pool) <= 3

        assert pool["tenant 0"].get_tokens().access == renewed
        assert pool["tenant 1"].get_tokens().access == first["tenant 1"]
    until(lambda: place.url not in shelf._users)


def test_who_is_forgotten_lets_go_of_the_store(place: Place) -> None:
    store, here = place.url, place.credentials(place.server.sign_in())
    here.get_tokens()
    place._open.clear()
    del here
    gc.collect()

    until(lambda: store not in shelf._users)


def test_closed_credentials_let_go_of_the_store_and_change_nothing_in_it(place: Place) -> None:
    used, unused = place.credentials(place.server.sign_in()), place.credentials()
    used.get_tokens()

    used.close()
    assert shelf._users[place.url] == 1
    unused.close()

    assert place.url not in shelf._users
    assert place.record().ended is None
    with pytest.raises(keyturn.CredentialsClosed):
        used.get_tokens()


# Every kind of caller


def test_the_async_twins_do_the_same(place: Place) -> None:
    async def main() -> None:
        here, there = place.credentials(), place.credentials()
        await here.asign_in(place.server.sign_in())
        found = await there.aget_tokens()
        assert found.access == (await here.aget_tokens()).access
        assert (await there.arenew(found)).generation == 1
        await here.asign_out()
        with pytest.raises(keyturn.SessionEnded):
            await there.arenew(await there.aget_tokens())
        await here.aclose()

    asyncio.run(main())


def test_a_caller_who_gives_up_leaves_the_rest_waiting(place: Place) -> None:
    here, there = place.credentials(place.server.sign_in()), place.credentials()
    held, also = here.get_tokens(), there.get_tokens()
    place.server.hold_refresh("before")
    leader = start(lambda: here.renew(held))
    place.server.wait_for(refreshes=1)
    patient = start(lambda: there.renew(also))
    with pytest.raises(keyturn.RefreshTimeout):
        there.renew(also, timeout=0.05)
    place.server.release()

    assert leader.result(WITHIN).access == patient.result(WITHIN).access
    assert place.server.stats.refreshes == 1


def test_a_sign_out_on_keyturns_own_thread_waits_for_nothing(place: Place) -> None:
    done = threading.Event()

    def sign_out(event: events.Event) -> None:
        if isinstance(event, events.Refreshed):
            here.sign_out()
            done.set()

    here = place.credentials(place.server.sign_in(), on_event=sign_out)
    here.renew(here.get_tokens())

    assert done.wait(WITHIN)
    until(lambda: place.record().ended == "signed_out")

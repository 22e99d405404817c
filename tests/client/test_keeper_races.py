"""Credentials in a shared store, stopped at one operation of it while something else happens."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import keyturn
from keyturn.client import entry, events, grants, loop, schedule, token_stores, wait
from keyturn.client.errand import Errand
from keyturn.client.flight import Flight
from keyturn.client.record import Failure, Record, Version
from keyturn.client.shelf import shelf
from keyturn.client.snapshot import Snapshot
from keyturn.client.token_stores import Changed, Lease, TokenStore
from keyturn.client.token_stores.file import FileStore
from keyturn.clocks import monotonic, now
from keyturn.testing import StrictServer
from tests.client.test_keeper import Place
from tests.kit import Log, oauth2
from tests.waiting import WITHIN, start, until


class Pause:
    """One operation of a store that is stopped: `reached` tells when, `go` lets it go on."""

    def __init__(self, what: str) -> None:
        self.what, self.reached, self._on = what, threading.Event(), threading.Event()

    def wait(self) -> None:
        """Wait until the operation is there."""
        assert self.reached.wait(WITHIN), f"nobody came to {self.what}"

    def go(self) -> None:
        """Let the operation go on."""
        self._on.set()

    async def stop(self) -> None:
        """Stop here."""
        self.reached.set()
        await loop.on_thread(self._on.wait, "tests-pause")


@dataclass
class Script:
    """What befalls a store: where it stops, what it raises, what it has done."""

    pauses: list[Pause] = field(default_factory=list)
    errors: dict[str, list[Exception]] = field(default_factory=dict)
    lost: bool = False  # whether leases that are held are lost
    notifies: bool = False
    ahead: float = 0.0  # by how many seconds time has jumped
    done: list[str] = field(default_factory=list)
    on: dict[str, Callable[[], None]] = field(default_factory=dict)

    def pause(self, what: str) -> Pause:
        """Stop the next operation of that kind, as in "save" (before it) and "saved" (after it)."""
        pause = Pause(what)
        self.pauses.append(pause)
        return pause

    async def at(self, what: str) -> None:
        """Come to an operation."""
        self.done.append(what)
        if what in self.on:
            self.on[what]()
        for pause in self.pauses:
            if pause.what == what and not pause.reached.is_set():
                await pause.stop()
                break
        if self.errors.get(what):
            raise self.errors[what].pop(0)


class HeldLease:
    """A file's lease whose release can be stopped, and which can be lost."""

    def __init__(self, inner: Lease, script: Script) -> None:
        self.inner, self._script, self._gone = inner, script, False
        script.lost = False

    @property
    def held(self) -> bool:
        """Tell whether it is held."""
        self._gone = self._gone or self._script.lost
        return self.inner.held and not self._gone

    async def release(self) -> None:
        """Give it up."""
        await self.inner.release()
        await self._script.at("released")


class Scripted(FileStore):
    """A file store that follows a script; it notifies the watchers of this process, if told to."""

    script: Script
    watchers: dict[str, list[Changed]]

    async def read(self, name: str) -> token_stores.Reading:
        """Read."""
        await self.script.at("reading")
        reading = await super().read(name)
        await self.script.at("read")
        return replace(reading, now=reading.now + self.script.ahead)

    async def write(
        self, name: str, record: Record, *, over: Version | None, under: Lease | None = None
    ) -> bool:
        """Write: "mark", "bury", "note" (the same pair without a marker) or "save"."""
        kind = "save"
        if record.ended is not None:
            kind = "bury"
        elif record.marker is not None:
            kind = "mark"
        elif over == record.version:
            kind = "note"
        await self.script.at(kind)
        inner = under.inner if isinstance(under, HeldLease) else under
        stands = under is None or under.held
        written = stands and await super().write(name, record, over=over, under=inner)
        if written:
            self._tell(name, record.version)
        await self.script.at({"bury": "buried", "note": "noted"}.get(kind, kind.rstrip("e") + "ed"))
        return written

    async def try_lease(self, name: str, seconds: float) -> Any:
        """Lease."""
        await self.script.at("lease")
        lease = await super().try_lease(name, seconds)
        await self.script.at("leased" if lease is not None else "refused")
        return None if lease is None else HeldLease(lease, self.script)

    def watch(self, name: str, changed: Changed) -> None:
        """Have it told."""
        self.watchers.setdefault(name, []).append(changed)

    def unwatch(self, name: str, changed: Changed) -> None:
        """Have it told no more."""
        self.watchers[name].remove(changed)

    def _tell(self, name: str, version: Version) -> None:
        if self.script.notifies:
            for changed in list(self.watchers.get(name, ())):
                changed(version)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """What befalls the stores that are opened from now on."""
    script = Script()

    def make(url: str) -> TokenStore:
        store = Scripted.from_url(url)
        store.script, store.watchers = script, {}
        store.notifies = script.notifies
        return store

    monkeypatch.setattr("keyturn.client.shelf.new_store", make)
    yield script
    for pause in script.pauses:
        pause.go()


@pytest.fixture
def place(tmp_path: Path, strict_server: StrictServer, script: Script) -> Iterator[Place]:
    """A directory for a file store."""
    place = Place(f"file://{tmp_path}/tokens", strict_server)
    yield place
    for pause in script.pauses:
        pause.go()
    place.close()


def look(credentials: keyturn.Credentials) -> None:
    """Have the record looked at."""
    assert credentials._keeper is not None
    credentials._keeper.look_soon()


def looks_again(credentials: keyturn.Credentials) -> None:
    """Have it be long ago that the record was looked at."""
    assert credentials._keeper is not None
    credentials._keeper._looked_at = -math.inf


def on_loop(work: Callable[[], Any]) -> Any:
    """Return what the coroutine that `work()` returns comes to, on keyturn's loop."""
    errand = Errand[Any](work, longest=WITHIN)
    errand.take_off()
    return errand.result(WITHIN)


# An epoch that is over stays over


def test_a_tombstone_stands_however_much_newer_a_pair_of_that_sign_in_is(
    place: Place, script: Script
) -> None:
    here, there = place.credentials(place.server.sign_in()), place.credentials()
    held = here.get_tokens()
    saving = script.pause("save")
    assert here.adopt(place.server.sign_in(), held)
    saving.wait()
    adopted = here.tokens
    assert adopted is not None
    assert here.adopt(place.server.sign_in(), adopted)

    there.sign_out()
    saving.go()

    until(lambda: here.tokens is None)
    assert place.record().ended == "signed_out"


def test_nobody_is_signed_in_again_while_a_sign_out_waits_for_an_exchange(place: Place) -> None:
    here = place.credentials(place.server.sign_in())
    held = here.get_tokens()
    place.server.hold_refresh("before")
    leader = start(lambda: here.renew(held))
    place.server.wait_for(refreshes=1)
    leaving = start(here.sign_out)
    until(lambda: here.tokens is None)
    looks_again(here)

    asking = start(here.get_tokens)
    until(lambda: asking.done() or here._flight is not None)
    place.server.release()

    for one in (leader, asking):
        with pytest.raises(keyturn.SessionEnded):
            one.result(WITHIN)
    leaving.result(WITHIN)
    assert here.tokens is None
    assert place.record().ended == "signed_out"


@pytest.mark.parametrize("what", ["sign_out", "sign_in"])
def test_an_old_reading_undoes_nothing_that_people_did_since(place: Place, script: Script, what: str) -> None:
    script.notifies = True
    here = place.credentials(place.server.sign_in())
    held = here.get_tokens()
    reading = script.pause("read")
    look(here)
    reading.wait()

    if what == "sign_out":
        here.sign_out()
    else:
        here.sign_in(place.server.sign_in("bob"))
    reading.go()
    assert here._keeper is not None
    until(lambda: here._keeper is not None and here._keeper._looking is None)

    current = here.tokens
    assert current is None if what == "sign_out" else current is not None and current.epoch != held.epoch


def test_an_old_tombstone_does_not_end_a_sign_in_that_came_since(place: Place, script: Script) -> None:
    script.notifies = True
    here, there = place.credentials(place.server.sign_in()), place.credentials()
    here.get_tokens()
    reading = script.pause("read")
    script.pauses.clear()
    there.sign_out()
    until(lambda: here.tokens is None)
    script.pauses.append(reading)
    look(here)
    reading.wait()

    here.sign_in(place.server.sign_in("bob"))
    reading.go()
    until(lambda: here._keeper is not None and here._keeper._looking is None)

    assert here.tokens is not None


def test_a_sign_out_right_after_a_sign_in_is_the_last_word(place: Place, script: Script) -> None:
    here = place.credentials()
    released = script.pause("released")
    signing_in = start(lambda: here.sign_in(place.server.sign_in()))
    released.wait()

    here.sign_out()
    released.go()
    signing_in.result(WITHIN)

    assert place.record().ended == "signed_out"
    assert here.tokens is None


def test_a_sign_out_that_the_store_was_not_told_of_holds_here_before_any_use(
    place: Place, script: Script
) -> None:
    place.credentials(place.server.sign_in()).get_tokens()
    here = place.credentials()
    script.errors["bury"] = [keyturn.TokenStoreUnavailable("down, says the test")]

    with pytest.raises(keyturn.TokenStoreUnavailable):
        here.sign_out()
    looks_again(here)
    with pytest.raises(keyturn.SessionEnded):
        here.get_tokens()

    until(lambda: place.record().ended == "signed_out")


def test_a_sign_out_is_made_up_for_though_nobody_uses_the_credentials_again(
    place: Place, script: Script
) -> None:
    here = place.credentials(place.server.sign_in())
    here.get_tokens()
    script.errors["bury"] = [keyturn.TokenStoreUnavailable("down, says the test") for _ in range(2)]

    with pytest.raises(keyturn.TokenStoreUnavailable):
        here.sign_out()

    until(lambda: place.record().ended == "signed_out")


def test_a_sign_out_that_is_made_up_for_ends_no_later_sign_in(place: Place, script: Script) -> None:
    place.credentials(place.server.sign_in()).get_tokens()
    here, there = place.credentials(), place.credentials()
    script.errors["bury"] = [keyturn.TokenStoreUnavailable("down, says the test")]
    again = script.pause("read")
    script.pauses.clear()
    script.on["bury"] = lambda: script.pauses.append(again)

    with pytest.raises(keyturn.TokenStoreUnavailable):
        here.sign_out()
    again.wait()
    script.on.clear()
    there.sign_in(place.server.sign_in("bob"))
    again.go()
    looks_again(here)

    assert here.get_tokens().access == there.get_tokens().access
    assert place.record().ended is None


# Closing


def test_closed_credentials_sign_nobody_in(place: Place) -> None:
    here, there = place.credentials(place.server.sign_in()), place.credentials()
    here.get_tokens()
    there.get_tokens()
    here.close()

    with pytest.raises(keyturn.CredentialsClosed):
        here.sign_in(place.server.sign_in("bob"))

    assert place.record().generation == 0
    assert place.record().epoch == there.get_tokens().epoch


@pytest.mark.parametrize("leaves", ["close", "sign_out"])
def test_what_was_sent_is_saved_though_the_credentials_are_closed(place: Place, leaves: str) -> None:
    here = place.credentials(place.server.sign_in())
    held = here.get_tokens()
    place.server.hold_refresh("before")
    leader = start(lambda: here.renew(held))
    place.server.wait_for(refreshes=1)
    if leaves == "sign_out":
        start(here.sign_out)
        until(lambda: here.tokens is None)

    here.close(timeout=0.01)
    place.server.release()

    with pytest.raises(keyturn.KeyturnError):
        leader.result(WITHIN)
    if leaves == "close":
        until(lambda: place.record().generation == 1)
        assert place.record().marker is None
    else:
        until(lambda: place.record().ended == "signed_out")
    until(lambda: place.url not in shelf._users)
    until(lambda: not [one for one in loop._in_air if isinstance(one, Errand | Flight)])


def test_a_sign_out_that_was_begun_is_told_though_the_credentials_are_closed(
    place: Place, script: Script
) -> None:
    here = place.credentials(place.server.sign_in())
    here.get_tokens()
    burying = script.pause("reading")
    with pytest.raises(keyturn.RefreshTimeout):
        here.sign_out(timeout=0.01)
    burying.wait()

    here.close(timeout=0.01)
    burying.go()

    until(lambda: place.record().ended == "signed_out")
    until(lambda: place.url not in shelf._users)


def test_a_holder_that_closes_before_it_sent_leaves_no_marker(place: Place, script: Script) -> None:
    here = place.credentials(place.server.sign_in())
    held = here.get_tokens()
    marking = script.pause("mark")
    leader = start(lambda: here.renew(held))
    marking.wait()

    closing = start(here.close)
    until(lambda: here._flight is None or here._flight._given_up)
    marking.go()
    with pytest.raises(keyturn.KeyturnError):
        leader.result(WITHIN)
    closing.result(WITHIN)

    assert place.record().marker is None
    assert place.credentials().get_tokens().generation == 0
    assert place.server.stats.refreshes == 0


def test_the_exit_does_not_wait_out_a_pause_before_the_next_save(
    place: Place, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = place.credentials(place.server.sign_in())
    held = here.get_tokens()
    script.errors["save"] = [keyturn.TokenStoreUnavailable("down, says the test")]
    monkeypatch.setattr(schedule, "backoff", lambda *_: 1000.0)
    here.renew(held)
    assert here._keeper is not None
    saving = here._keeper._saving
    assert saving is not None

    assert saving.settle(WITHIN)

    assert place.record().generation == 1


def test_the_exit_waits_for_all_together_as_long_as_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]

    class Stuck:
        longest = 5.0

        def settle(self, timeout: float | None = None) -> bool:
            clock[0] += self.longest if timeout is None else timeout
            return False

    monkeypatch.setattr(loop, "monotonic", lambda: clock[0])
    monkeypatch.setattr(loop, "_last", [])
    monkeypatch.setattr(loop, "_in_air", dict.fromkeys([Stuck() for _ in range(100)]))

    loop._settle_at_exit()

    assert clock[0] == pytest.approx(105.0)


# What is held here is ahead of the record


def test_who_is_refused_gets_no_older_tokens_and_no_refused_ones_from_a_record_behind(
    place: Place, script: Script
) -> None:
    here = place.credentials(place.server.sign_in())
    held = here.get_tokens()
    saving = script.pause("save")
    here.adopt(place.server.sign_in(), held)
    saving.wait()
    adopted = here.tokens
    assert adopted is not None

    renewed = start(lambda: here.renew(adopted))
    found = renewed.result(WITHIN)
    saving.go()

    assert (found.generation, place.server.stats.refreshes) == (2, 1)


# What a driver raises, and what breaks off


def test_a_pair_is_kept_whatever_a_driver_raises_when_it_is_saved(place: Place, script: Script) -> None:
    log = Log()
    here = place.credentials(place.server.sign_in(), on_event=log)
    held = here.get_tokens()
    script.errors["save"] = [LookupError("a secret"), ZeroDivisionError("a secret")]

    newer = here.renew(held)

    assert here.get_tokens() is newer
    until(lambda: place.record().generation == 1)
    causes = [str(one.cause) for one in log.of(events.SaveFailed)]
    assert ["LookupError" in causes[0], "ZeroDivisionError" in causes[1]] == [True, True]
    assert "secret" not in "".join(causes)


def test_a_sign_out_that_a_driver_fails_at_is_no_success(place: Place, script: Script) -> None:
    here = place.credentials(place.server.sign_in())
    here.get_tokens()
    script.errors["bury"] = [LookupError("a secret")]

    with pytest.raises(keyturn.TokenStoreUnavailable, match="LookupError") as raised:
        here.sign_out()
    assert "secret" not in str(raised.value)
    assert here.tokens is None


def test_a_failure_that_cannot_be_noted_is_told_all_the_same(place: Place, script: Script) -> None:
    here = place.credentials(place.server.sign_in())
    held = here.get_tokens()
    place.server.fail_refresh(400, body={"error": "invalid_client"})
    script.errors["note"] = [LookupError("a secret")]

    with pytest.raises(keyturn.RefreshMisconfigured):
        here.renew(held)


def test_work_that_is_broken_off_is_no_success() -> None:
    async def broken_off() -> None:
        raise asyncio.CancelledError

    errand = Errand(broken_off, longest=WITHIN)
    errand.take_off()

    with pytest.raises(keyturn.TokenStoreUnavailable):
        errand.result(WITHIN)


# Times


def test_a_token_is_not_sent_again_after_its_window_has_passed_during_the_marking(
    place: Place, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = oauth2(place.server, replay_window=timedelta(seconds=10))
    place.credentials(place.server.sign_in()).get_tokens()
    place.leave_marker(6.0)
    monkeypatch.setattr(entry, "monotonic", lambda: monotonic() + script.ahead)
    script.on["marked"] = lambda: setattr(script, "ahead", 5.0)

    with pytest.raises(keyturn.OutcomeUnknown):
        place.credentials(grant=grant).get_tokens()
    assert place.server.stats.refreshes == 0


def test_who_has_lost_the_lease_between_two_tries_takes_it_anew(place: Place, script: Script) -> None:
    tries: list[int] = []

    async def bought(tokens: keyturn.Tokens, http: object) -> keyturn.Tokens:
        tries.append(script.done.count("leased"))
        if len(tries) == 1:
            script.lost = True
            raise keyturn.RefreshUnavailable("not now, says the test")
        return keyturn.Tokens("newer", "newer-refresh", now() + 60.0)

    here = place.credentials(place.server.sign_in(), grant=grants.Call(bought))
    held = here.get_tokens()
    before = script.done.count("leased")

    assert here.renew(held).access == "newer"
    assert [one - before for one in tries] == [1, 2]


def test_a_clock_of_ours_that_jumps_during_an_exchange_dates_no_record_wrong(
    place: Place, script: Script
) -> None:
    ahead = [0.0]

    def clock() -> float:
        return now() + ahead[0]

    here = place.credentials(place.server.sign_in(), clock=clock)
    held = here.get_tokens()
    script.on["marked"] = lambda: ahead.__setitem__(0, 3600.0)

    assert here.renew(held).left(clock()) == pytest.approx(60.0, abs=5.0)
    assert place.record().expires_at == pytest.approx(now() + 60.0, abs=5.0)


def test_min_ttl_holds_on_the_first_use(place: Place) -> None:
    place.server.configure(ttl=600.0)
    place.credentials(place.server.sign_in(ttl=600.0)).get_tokens()
    record = place.record()
    place.write(replace(record, expires_at=now() + 20.0), record.version)

    found = place.credentials().get_tokens(min_ttl=timedelta(seconds=60))

    assert found.left(now()) > 60.0
    assert place.server.stats.refreshes == 1


# Beginning


def test_whoever_signs_in_by_itself_does_not_do_so_after_a_sign_out_here(place: Place) -> None:
    grant = grants.ClientCredentials(place.server.url + "/token", client_id="tests", client_secret="s")
    here = place.credentials(grant=grant)

    here.sign_out()
    looks_again(here)

    with pytest.raises(keyturn.SessionEnded):
        here.get_tokens()
    assert place.server.stats.issued == 0


def test_a_tombstone_that_is_heard_of_first_does_not_keep_a_service_from_signing_in(
    place: Place, script: Script
) -> None:
    script.notifies = True

    def make() -> keyturn.Credentials:
        grant = grants.ClientCredentials(place.server.url + "/token", client_id="tests", client_secret="s")
        return place.credentials(grant=grant)

    before = make()
    before.get_tokens()
    before.sign_out()
    here = make()
    leasing = script.pause("lease")
    asking = start(here.get_tokens)
    leasing.wait()

    look(here)
    until(lambda: here._keeper is not None and here._keeper._looking is None)
    on_loop(lambda: asyncio.sleep(0))
    leasing.go()

    assert asking.result(WITHIN).generation == 0


def test_a_lease_of_a_flight_is_released_though_another_save_is_pending(place: Place, script: Script) -> None:
    here = place.credentials(place.server.sign_in())
    held = here.get_tokens()
    leasing = script.pause("leased")
    leader = start(lambda: here.renew(held))
    leasing.wait()
    assert here._keeper is not None
    elsewhere = Errand(lambda: asyncio.sleep(0.0), longest=1.0)
    here._keeper._saving = elsewhere  # as one whose lease was lost has it
    leasing.go()
    leader.result(WITHIN)
    here._keeper._saving = None

    assert here.renew(here.get_tokens()).generation == 2


# What keeps two holders apart


def test_a_late_save_loses_to_a_sign_in_that_did_not_wait(place: Place, script: Script) -> None:
    here, there = place.credentials(place.server.sign_in()), place.credentials()
    held = here.get_tokens()
    saving = script.pause("save")
    leader = start(lambda: here.renew(held))
    saving.wait()
    first = Snapshot.first(place.server.sign_in("bob"), now())
    signs_in = there._keeper
    assert signs_in is not None
    on_loop(lambda: signs_in.sign_in(first, may_wait=False))
    saving.go()

    with pytest.raises(keyturn.SessionEnded) as raised:
        leader.result(WITHIN)
    assert raised.value.reason == "replaced"
    assert place.record().version == (first.epoch, 0)


def test_a_late_save_gives_way_to_what_it_has_no_key_for(place: Place, script: Script) -> None:
    here = place.credentials(place.server.sign_in(), retry_for=timedelta(0))
    held = here.get_tokens()
    saving = script.pause("save")
    leader = start(lambda: here.renew(held))
    saving.wait()
    record = place.record()
    place.write(replace(record, epoch="of-another", generation=0, marker=None), record.version)
    saving.go()

    with pytest.raises(keyturn.RefreshMisconfigured, match="sealed"):
        leader.result(WITHIN)
    assert place.record().version == ("of-another", 0)
    assert here._keeper is not None
    assert here._keeper.is_settled


def test_a_sign_in_waits_for_an_exchange_elsewhere(place: Place, script: Script) -> None:
    here, there = place.credentials(place.server.sign_in()), place.credentials()
    held = here.get_tokens()
    place.server.hold_refresh("before")
    leader = start(lambda: here.renew(held))
    place.server.wait_for(refreshes=1)

    signing_in = start(lambda: there.sign_in(place.server.sign_in("bob")))
    until(lambda: "refused" in script.done)
    assert place.record().version == (held.epoch, 0)
    place.server.release()

    leader.result(WITHIN)
    signing_in.result(WITHIN)
    assert place.record().epoch != held.epoch


def test_who_is_cancelled_while_asking_for_the_lease_does_not_keep_it(place: Place, script: Script) -> None:
    here, there = place.credentials(place.server.sign_in()), place.credentials()
    held, also = here.get_tokens(), there.get_tokens()
    leasing = script.pause("leased")
    leader = start(lambda: here.renew(held))
    leasing.wait()

    here.close()
    with pytest.raises(keyturn.KeyturnError):
        leader.result(WITHIN)
    leasing.go()

    assert there.renew(also).generation == 1


def test_no_marker_is_written_without_the_lease(place: Place, script: Script) -> None:
    here = place.credentials(place.server.sign_in())
    held = here.get_tokens()
    marking, again = script.pause("mark"), Pause("lease")
    leader = start(lambda: here.renew(held))
    marking.wait()
    script.lost = True
    script.pauses.append(again)
    marking.go()

    again.wait()
    assert place.record().marker is None
    again.go()
    assert leader.result(WITHIN).generation == 1


# What the store has lost, or leaves to be said


def test_a_record_that_was_lost_is_written_back_by_who_looks(place: Place) -> None:
    here = place.credentials(place.server.sign_in())
    held = here.get_tokens()
    assert place.on_loop(lambda store: store.remove("alice"))

    look(here)

    until(lambda: place.on_loop(lambda store: store.read("alice")).record is not None)
    assert place.record().version == (held.epoch, 0)


def test_a_record_that_is_lost_during_an_exchange_comes_back_with_its_marker(place: Place) -> None:
    here = place.credentials(place.server.sign_in())
    held = here.get_tokens()
    place.server.hold_refresh("before")
    leader = start(lambda: here.renew(held))
    place.server.wait_for(refreshes=1)
    assert place.on_loop(lambda store: store.remove("alice"))

    look(here)

    until(lambda: place.on_loop(lambda store: store.read("alice")).record is not None)
    assert place.record().marker is not None
    place.server.release()
    assert leader.result(WITHIN).generation == 1
    assert (place.record().generation, place.record().marker) == (1, None)


def test_an_end_point_that_asked_another_process_for_a_pause_gets_it(place: Place) -> None:
    here = place.credentials(place.server.sign_in())
    held = here.get_tokens()
    record = place.record()
    asked = Failure(
        kind="unavailable",
        at=now(),
        error="RefreshUnavailable",
        message="not now",
        status=503,
        not_before=now() + 1000.0,
    )
    place.write(replace(record, failure=asked), record.version)

    with pytest.raises(keyturn.RefreshUnavailable) as raised:
        here.renew(held)
    assert raised.value.retry_after == pytest.approx(1000.0, abs=WITHIN)
    assert place.server.stats.refreshes == 0


def test_a_save_of_ours_is_no_news_to_us(place: Place, script: Script) -> None:
    script.notifies = True
    log = Log()
    here = place.credentials(place.server.sign_in(), on_event=log)
    held = here.get_tokens()
    script.done.clear()

    here.renew(held)
    here.sign_in(place.server.sign_in("bob"))

    assert script.done.count("reading") == 3, "before the lease, inside it, and for the sign-in"
    assert not log.of(events.Adopted)


def test_who_can_do_without_does_not_wait_for_a_holder_that_hangs(
    place: Place, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = place.credentials(place.server.sign_in()), place.credentials()
    held, also = here.get_tokens(), there.get_tokens()
    monkeypatch.setattr(wait.Wait, "is_long", True)
    place.server.hold_refresh("before")
    leader = start(lambda: here.renew(held))
    place.server.wait_for(refreshes=1)

    found = start(lambda: there.get_tokens(min_ttl=timedelta(hours=1)))

    assert found.result(WITHIN) is also
    place.server.release()
    leader.result(WITHIN)

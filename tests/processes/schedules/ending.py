"""Ending: all faults end, and everybody is answered, after one sign-in where nothing less can help.

Whether a sign-in was in order is decided by what lies in the store and what
the server says of it, not by what processes say. Then the server refuses all
access tokens once more: one exchange, and no more, answers everybody, and it
is of the refresh token in the record, so the record was the newest live pair.
"""

from __future__ import annotations

import time
from collections import Counter

import httpx2

from keyturn.client.record import Record
from keyturn.client.sealing import Sealing
from keyturn.tokens import Tokens
from tests.processes.schedules import judge
from tests.processes.schedules.account import SWEEPER
from tests.processes.schedules.grounds import Unread
from tests.processes.schedules.stage import BOUND, Actor, Stage
from tests.processes.settings import written

_RECOVERS_WITHIN = 20.0  # seconds, after a fault or a sign-in; whoever hears of nothing asks again
_REQUESTS = 2
_LIFE = 60.0


def end(stage: Stage) -> None:
    """Bring a schedule to its end, and check that."""
    account = stage.account
    account.say("-- all faults end")
    stage.ground.mend()
    _use_up_faults(stage)
    stage.server.configure(refresh_delay=0.0, ttl=_LIFE)
    stage.let_all_go()
    stage.settle()
    account.ended = time.monotonic()
    stage.begin_again()
    stage.look()
    if _all_are_answered(stage):
        _one_more_expiry(stage)
    for actor in stage.actors:
        stage.history(actor)
        if actor.worker.complaints():
            account.breaks(f"{actor.name} complains: {actor.worker.complaints()}")
    if stage.schedule.seed % 4 == 0:
        for actor in stage.actors:
            if not actor.worker.leave():
                account.breaks(f"{actor.name} does not end")
    account.arrivals, account.stats, account.sent = stage.arrivals(), stage.server.stats, stage.sent()


def _use_up_faults(stage: Stage) -> None:
    """Meet whatever drop or failure still waits for an exchange."""
    if not stage.schedule.has("drop", "fail"):
        return
    form = {"grant_type": "refresh_token", "refresh_token": "none", "client_id": SWEEPER}
    with httpx2.Client(verify=False, trust_env=False) as client:
        for _ in range(20):
            try:
                answer = client.post(stage.server.url + "/token", data=form, timeout=BOUND)
            except httpx2.TransportError:
                continue
            if answer.status_code == 400:
                return
    raise AssertionError("the server has more faults than were asked for")


def _all_are_answered(stage: Stage) -> bool:
    account, since, signed_in = stage.account, time.monotonic(), False
    rounds, expires = 0, True
    while True:
        if expires:
            stage.server.expire()
        outcomes = _storm(stage)
        said = sum(outcomes.values(), Counter[str]())
        record = _record(stage)
        expires = set(said) == {"200"}  # who was behind catches up first
        if set(said) == {"200"}:
            versions = {actor.name: _version(stage, actor) for actor in stage.actors}
            if record is not None and set(versions.values()) == {record.version}:
                return True
            rounds += 1
            if rounds > 5:
                account.breaks(f"the record, {record}, is not what everybody has: {versions}")
                return False
            continue
        why = None if signed_in else _why_a_sign_in(stage, record)
        if why is not None:
            account.signed_in_at_the_end.append(why)
            account.say(f"   a sign-in is needed: {why}")
            stage.ask(stage.actors[0], "sign_in", tokens=written(stage.signed_in()))
            stage.settle()
            signed_in, since = True, time.monotonic()
        elif time.monotonic() - since > _RECOVERS_WITHIN:
            told = {name: dict(counted) for name, counted in outcomes.items()}
            account.breaks(
                f"not everybody is answered after all faults have ended: {told}; the record: {record},"
                f" its session {'lives' if _lives(stage, record) else 'does not live'}"
            )
            return False
        else:
            time.sleep(0.25)


def _storm(stage: Stage) -> dict[str, Counter[str]]:
    asked = {actor.name: stage.get(actor, _REQUESTS) for actor in stage.actors}
    stage.settle()
    return {name: Counter(one.outcomes) for name, one in asked.items()}


def _why_a_sign_in(stage: Stage, record: Record | None) -> str | None:
    """Return why nothing less helps, None where something may yet."""
    schedule = stage.schedule
    if record is None:
        return "the store has lost the record"
    if record.ended is not None:
        return record.ended
    if not _lives(stage, record):
        return "the session has ended at the server"
    if record.marker is None:
        return None
    age = time.time() - record.marker.at
    if schedule.window and age < schedule.window - judge.margin(schedule):
        return None
    return "marked" if not schedule.window else "marked, and the window is over"


def _lives(stage: Stage, record: Record | None) -> bool:
    tokens = _opened(record)
    return tokens is not None and stage.server.alive(tokens)


def _opened(record: Record | None) -> Tokens | None:
    if record is None or record.sealed is None:
        return None
    return Sealing.of(()).open(record.name, record.epoch, record.sealed, expires_at=None, lifetime=None)


def _record(stage: Stage) -> Record | None:
    stage.look()
    for _ in range(100):
        try:
            return stage.ground.read(stage.name)
        except Unread:
            time.sleep(0.05)
    stage.account.breaks("the store does not answer after all faults have ended")
    return None


def _version(stage: Stage, actor: Actor) -> tuple[str, int] | None:
    answer = stage.answered(actor, "tokens")
    return None if answer is None or "epoch" not in answer else (answer["epoch"], answer["generation"])


def _one_more_expiry(stage: Stage) -> None:
    before = stage.server.stats
    stage.server.expire()
    outcomes = _storm(stage)
    after = stage.server.stats
    if any(set(one) != {"200"} for one in outcomes.values()):
        stage.account.breaks(f"the last refresh does not answer everybody: {outcomes}")
    if (after.refreshes, after.reuses) != (before.refreshes + 1, before.reuses):
        exchanges = after.refreshes - before.refreshes
        stage.account.breaks(f"the last refresh took {exchanges} exchanges, {after.reuses} reuses")

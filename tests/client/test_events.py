"""Events: what is told, to whom, and that a callback cannot break anything."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import pytest

import keyturn
from keyturn.client import events

HEAD: dict[str, Any] = {"name": "alice", "epoch": "00ff", "generation": 3}
FIGURES: dict[str, Any] = {"flight": 7, "waiters": 2, "duration": 0.25049, "attempts": 1}
REFUSED = keyturn.SessionEnded("the session has ended: 400, invalid_grant", reason="refused")
AWAY = keyturn.RefreshUnavailable("the refresh end point cannot be reached (ConnectError)")
OVER: dict[str, Any] = {"flight": 7, "duration": 1.5}
AT = "epoch 00ff, generation 3"
LANDED = f"{AT}, flight 7, waiters 2, duration 0.25, attempts 1"

EACH: list[tuple[events.Event, int, str]] = [
    (events.SignedIn(**HEAD), logging.INFO, f"alice signed in: {AT}"),
    (events.SignedOut(**HEAD), logging.INFO, f"alice signed out: {AT}"),
    (events.Refreshing(**HEAD, flight=7), logging.DEBUG, f"alice refreshing: {AT}, flight 7"),
    (events.Refreshed(**HEAD, **FIGURES), logging.INFO, f"alice refreshed: {LANDED}"),
    (events.Loaded(**HEAD, **FIGURES, found=True), logging.DEBUG, f"alice loaded: {LANDED}, found True"),
    (events.Found(**HEAD, **FIGURES), logging.INFO, f"alice found: {LANDED}"),
    (events.Overtaken(**HEAD, **FIGURES), logging.INFO, f"alice overtaken: {LANDED}"),
    (events.Ended(**HEAD, **FIGURES, cause=REFUSED), logging.WARNING, f"alice ended: {LANDED}: {REFUSED}"),
    (events.Failed(**HEAD, **FIGURES, cause=AWAY), logging.WARNING, f"alice failed: {LANDED}: {AWAY}"),
    (events.Waiting(**HEAD, flight=7), logging.DEBUG, f"alice waiting: {AT}, flight 7"),
    (
        events.Waited(**HEAD, **OVER, result="renewed", cause=None),
        logging.DEBUG,
        f"alice waited: {AT}, flight 7, duration 1.5, result renewed",
    ),
    (events.Adopted(**HEAD), logging.DEBUG, f"alice adopted: {AT}"),
    (
        events.SaveFailed(**HEAD, attempts=2, cause=AWAY),
        logging.WARNING,
        f"alice save failed: {AT}, attempts 2: {AWAY}",
    ),
    (events.Replayed(**HEAD, replays=1), logging.DEBUG, f"alice replayed: {AT}, replays 1"),
]
kinds = pytest.mark.parametrize(
    ("event", "level", "text"), EACH, ids=[type(event).__name__ for event, *_ in EACH]
)


def raises(error: BaseException) -> Callable[[events.Event], None]:
    """Return a callback that raises."""

    def callback(event: events.Event) -> None:
        raise error

    return callback


def test_every_kind_of_event_is_tested_here() -> None:
    public = {
        kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.Event)
    }

    assert {type(event) for event, *_ in EACH} == public - {events.Event, events.Landing}


@kinds
def test_an_event_is_logged_once_at_the_level_of_its_weight_and_comes_along_as_a_record(
    event: events.Event, level: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "keyturn.client")

    events.announce(event, None)

    [record] = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == (
        "keyturn.client",
        level,
        f"keyturn: {text}",
    )
    assert record.__dict__["event"] is event


@kinds
def test_the_callback_is_given_the_event_even_where_nothing_is_logged(
    event: events.Event, level: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "keyturn.client")
    told: list[events.Event] = []

    events.announce(event, told.append)

    assert told == [event]
    assert caplog.records == []


@pytest.mark.parametrize(
    "error",
    [ValueError("no"), keyturn.KeyturnError("no"), StopIteration(), RecursionError(), SystemExit(1)],
    ids=lambda error: type(error).__name__,
)
def test_a_callback_that_raises_is_logged_and_nobody_else_notices(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "keyturn.client")

    events.announce(EACH[0][0], raises(error))

    [record] = caplog.records
    assert record.getMessage() == "the on_event callback failed on SignedIn"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_a_callback_does_not_swallow_the_users_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt):
        events.announce(EACH[1][0], raises(KeyboardInterrupt()))


def test_several_callbacks_are_told_in_order_whichever_of_them_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    event, told = EACH[0][0], list[tuple[str, events.Event]]()

    events.announce(
        event,
        events.to_all(
            lambda event: told.append(("first", event)),
            raises(ValueError("no")),
            lambda event: told.append(("last", event)),
        ),
    )

    assert told == [("first", event), ("last", event)]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@kinds
def test_an_event_is_heard_by_a_callback_or_by_a_logger_of_its_level(
    event: events.Event, level: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    for threshold in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        caplog.set_level(threshold, "keyturn.client")
        assert events.heard(type(event), None) is (level >= threshold)
        assert events.heard(type(event), lambda _: None)


@kinds
def test_a_callback_does_not_hear_how_it_waits_itself_and_of_everything_else_that_it_does(
    event: events.Event, level: int, text: str
) -> None:
    heard = list[bool]()

    def callback(_: events.Event) -> None:
        events.announce(EACH[0][0], lambda _: None)  # and is inside after that still
        heard.append(events.heard(type(event), callback))

    events.announce(EACH[0][0], callback)

    assert heard == [not isinstance(event, events.Waiting | events.Waited)]
    assert events.heard(type(event), callback), "it is outside again"


@kinds
def test_an_event_is_frozen_and_has_no_field_that_could_hold_a_token(
    event: events.Event, level: int, text: str
) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.epoch = "another"  # type: ignore[misc]
    texts = {field.name for field in dataclasses.fields(event) if field.type not in {"int", "float", "bool"}}
    assert texts <= {"name", "epoch", "result", "cause"}

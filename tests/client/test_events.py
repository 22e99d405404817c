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
FIGURES: dict[str, Any] = {"waiters": 2, "duration": 0.25, "attempts": 1}
REFUSED = keyturn.SessionEnded("the session has ended: 400, invalid_grant", reason="refused")
AWAY = keyturn.RefreshUnavailable("the refresh end point cannot be reached (ConnectError)")

EACH: list[tuple[events.Event, int, str]] = [
    (events.Refreshed(**HEAD, **FIGURES), logging.INFO, "keyturn: alice refreshed: epoch 00ff, generation 3"),
    (events.Adopted(**HEAD), logging.DEBUG, "keyturn: alice adopted: epoch 00ff, generation 3"),
    (events.Replayed(**HEAD, replays=1), logging.DEBUG, "keyturn: alice replayed: epoch 00ff, generation 3"),
    (
        events.Ended(**HEAD, cause=REFUSED),
        logging.WARNING,
        f"keyturn: alice ended: epoch 00ff, generation 3: {REFUSED}",
    ),
    (
        events.Failed(**HEAD, cause=AWAY, **FIGURES),
        logging.WARNING,
        f"keyturn: alice failed: epoch 00ff, generation 3: {AWAY}",
    ),
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

    assert {type(event) for event, *_ in EACH} == public - {events.Event}


@kinds
def test_an_event_is_logged_once_at_the_level_of_its_weight_and_comes_along_as_a_record(
    event: events.Event, level: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "keyturn.client")

    events.announce(event, None)

    [record] = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == ("keyturn.client", level, text)
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
    assert record.getMessage() == "the on_event callback failed on Refreshed"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_a_callback_does_not_swallow_the_users_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt):
        events.announce(EACH[1][0], raises(KeyboardInterrupt()))


@kinds
def test_an_event_is_frozen_and_has_no_field_that_could_hold_a_token(
    event: events.Event, level: int, text: str
) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.epoch = "another"  # type: ignore[misc]
    fields = {field.name for field in dataclasses.fields(event)}
    assert fields <= {"name", "epoch", "generation", "waiters", "duration", "attempts", "replays", "cause"}

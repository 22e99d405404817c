"""The errors as evidence: they are one tree, and travel between tasks and processes whole."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from keyturn import errors

CLASSES = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, errors.KeyturnError) and value.__module__ == errors.__name__
]
SAMPLES: list[errors.KeyturnError] = [
    errors.SessionEnded(
        "over",
        reason="refused",
        epoch="e",
        error="invalid_grant",
        error_description="expired",
        error_uri="https://e",
    ),
    errors.RefreshMisconfigured(
        "no", status=401, error="invalid_client", error_description="unknown", error_uri="https://e"
    ),
    errors.RefreshUnavailable("later", status=503, retry_after=2.0, attempts=3),
    errors.NotReplayable("no", method="POST", status=401),
    errors.StoreUnavailable("down", retry_after=5.0),
    errors.TokenReused("again", sid="s"),
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_stands_in_the_tree_that_is_drawn_on_top(kind: type[errors.KeyturnError]) -> None:
    assert errors.__doc__ is not None
    assert kind.__name__ in errors.__doc__


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_that_travels_to_another_process_or_task_keeps_its_evidence(
    error: errors.KeyturnError,
) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), error.again()):  # noqa: S301 - our own
        assert type(twin) is type(error)
        assert twin is not error
        assert (str(twin), vars(twin)) == (str(error), vars(error))


def test_what_is_noted_on_one_of_many_copies_is_not_on_the_others() -> None:
    error = errors.NotSignedIn("nobody")
    error.add_note("where")
    twin = error.again()
    twin.add_note("what for")
    assert (error.__notes__, twin.__notes__) == (["where"], ["where", "what for"])

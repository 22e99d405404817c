"""A record of the token store: it comes back as it was written, and nothing else is taken for one."""

from __future__ import annotations

import dataclasses
import json
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.client.record import Failure, Marker, Record, fingerprint
from keyturn.errors import RefreshMisconfigured

SECRET = "the-sealed-secret"
FULL = Record(
    name="alice",
    epoch="e1",
    generation=3,
    began_at=1000.5,
    saved_at=2000.0,
    sealed=SECRET,
    expires_at=3000.0,
    lifetime=900.0,
    seed="f" * 32,
    marker=Marker(epoch="e1", generation=3, fingerprint="a" * 32, at=2100.0),
    failure=Failure(
        kind="unavailable",
        at=2200.0,
        error="RefreshUnavailable",
        message="503",
        status=503,
        not_before=2300.0,
    ),
)
TOMBSTONE = dataclasses.replace(
    FULL, sealed=None, ended="signed_out", marker=None, failure=None, expires_at=None, lifetime=None
)
FIELDS = [field.name for field in dataclasses.fields(Record)]
MAY_BE_NONE = {"sealed", "expires_at", "lifetime", "ended", "seed", "marker", "failure"}
LEFT_OUT = ["expires_at", "lifetime", "ended", "seed"]
IN_MARKER = [field.name for field in dataclasses.fields(Marker)]
IN_FAILURE = [field.name for field in dataclasses.fields(Failure)]

whole = st.integers(0, 2**53)
times = st.floats(allow_nan=False, allow_infinity=False, max_value=1e12, min_value=-1e12)
markers = st.builds(Marker, epoch=st.text(), generation=whole, fingerprint=st.text(), at=times)
failures = st.builds(
    Failure,
    kind=st.sampled_from(["unavailable", "misconfigured", "unknown"]),
    at=times,
    error=st.text(),
    message=st.text(),
    status=st.none() | whole,
    not_before=st.none() | times,
)
records = st.builds(
    Record,
    name=st.text(),
    epoch=st.text(),
    generation=whole,
    began_at=times,
    saved_at=times,
    sealed=st.text(),
    expires_at=st.none() | times,
    lifetime=st.none() | times,
    ended=st.none(),
    seed=st.none() | st.text(),
    marker=st.none() | markers,
    failure=st.none() | failures,
)
tombstones = st.builds(
    lambda record, why: dataclasses.replace(record, sealed=None, ended=why),
    records,
    st.sampled_from(["refused", "signed_out"]),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def fields_of(record: Record = FULL) -> dict[str, object]:
    """Return a record's JSON, taken apart."""
    fields: dict[str, object] = json.loads(record.to_json())
    return fields


def changed(path: str, value: object) -> str:
    """Return the JSON of `FULL` with another value at a path such as `marker.at`."""
    fields = fields_of()
    *above, last = path.split(".")
    inside = fields
    for step in above:
        inside = inside[step]  # type: ignore[assignment]  # an object within it
    inside[last] = value
    return json.dumps(fields)


def assert_refused(text: str | bytes) -> None:
    """Fail unless a text is refused as no record, without a word of it."""
    with pytest.raises(RefreshMisconfigured, match="cannot be read: it is damaged") as caught:
        Record.from_json(text)
    said = "".join(traceback.format_exception(caught.value)) + pickle.dumps(caught.value).decode("latin-1")
    assert SECRET not in said


# Round trips


@given(records | tombstones)
def test_a_record_comes_back_as_it_was_written(record: Record) -> None:
    text = record.to_json()

    assert Record.from_json(text) == record
    assert Record.from_json(text.encode()) == record
    assert Record.from_json(text).to_json() == text
    assert text.isascii()
    assert "\n" not in text


@pytest.mark.parametrize("record", [FULL, TOMBSTONE], ids=["full", "tombstone"])
def test_json_tells_all_of_it(record: Record) -> None:
    assert fields_of(record) == {"format": 1, **dataclasses.asdict(record)}


# Nothing else is a record


@given(st.text() | st.binary() | json_values.map(json.dumps))
def test_any_other_text_is_refused(text: str | bytes) -> None:
    assert_refused(text)


@pytest.mark.parametrize(
    "path", [*FIELDS, *(f"marker.{name}" for name in IN_MARKER), *(f"failure.{name}" for name in IN_FAILURE)]
)
def test_no_field_takes_a_value_of_another_type(path: str) -> None:
    name = path.rpartition(".")[2]
    is_number = name in {"generation", "began_at", "saved_at", "expires_at", "lifetime", "at", "not_before"}
    wrong: list[object] = [True, False, [], {}, [1], {"a": 1}]
    if is_number or name == "status":
        wrong += ["", "1", "NaN", float("nan"), float("inf"), -float("inf")]
    else:
        wrong += [0, 1, 1.5, float("nan")]
    if name in {"generation", "status"}:
        wrong += [1.5, 1.0]
    if name in {"ended", "kind"}:
        wrong += ["", "else", "Refused"]
    if name not in MAY_BE_NONE | {"status", "not_before"}:
        wrong.append(None)
    for value in wrong:
        assert_refused(changed(path, value))


@pytest.mark.parametrize("field", ["format", *(name for name in FIELDS if name not in LEFT_OUT)])
def test_no_field_that_decides_anything_may_be_missing(field: str) -> None:
    fields = fields_of()
    del fields[field]
    assert_refused(json.dumps(fields))


@pytest.mark.parametrize("field", LEFT_OUT)
def test_what_nobody_said_may_be_left_out(field: str) -> None:
    fields = fields_of()
    del fields[field]

    record = Record.from_json(json.dumps(fields))
    assert getattr(record, field) is None
    assert fields_of(record) == {**fields, field: None}


@pytest.mark.parametrize("path", ["more", "marker.more", "failure.more", "_check", "version", "self"])
def test_no_field_is_one_too_many(path: str) -> None:
    for value in (None, 1, "x"):
        assert_refused(changed(path, value))


@pytest.mark.parametrize("number", [0, 2, -1, "1", None, [], 1.5])
def test_another_format_is_refused(number: object) -> None:
    assert_refused(changed("format", number))


def test_a_record_is_either_a_pair_or_a_tombstone() -> None:
    assert_refused(changed("sealed", None))
    assert_refused(changed("ended", "refused"))


@pytest.mark.parametrize(
    "path", ["generation", "began_at", "saved_at", "expires_at", "lifetime", "marker.at", "failure.status"]
)
@pytest.mark.parametrize("digits", [20, 400, 4000, 10_000])
def test_numbers_that_no_arithmetic_survives_are_refused(path: str, digits: int) -> None:
    for sign in ("", "-"):
        assert_refused(changed(path, "@").replace('"@"', f"{sign}{'9' * digits}"))


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("path", ["began_at", "expires_at", "lifetime", "marker.at", "failure.not_before"])
def test_numbers_that_are_none_are_refused(path: str, number: str) -> None:
    assert_refused(changed(path, "@").replace('"@"', number))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        '"' + SECRET,
        '{"sealed":"' + SECRET,
        "[" * 100_000,
        '{"name":' * 100_000,
        '{"format":1,"sealed":"' + SECRET + '","name":' + "[" * 100_000,
        '"' + "x" * 2_000_000 + '"',
        b"\xff\xfe" + SECRET.encode(),
        b"\x00" * 100,
    ],
    ids=range(10),
)
def test_texts_made_to_break_a_parser_are_refused(text: str | bytes) -> None:
    assert_refused(text)


def test_a_text_longer_than_any_record_is_refused_unread_and_never_written() -> None:
    assert_refused(FULL.to_json() + " " * (1024 * 1024))
    with pytest.raises(RefreshMisconfigured, match="too large"):
        dataclasses.replace(FULL, sealed="x" * (1024 * 1024)).to_json()


@given(path=st.sampled_from(FIELDS), value=json_values)
def test_whatever_stands_in_a_field_is_refused_or_comes_back(path: str, value: object) -> None:
    try:
        record = Record.from_json(changed(path, value))
    except RefreshMisconfigured:
        return
    assert Record.from_json(record.to_json()) == record


# What is shown


def test_no_repr_shows_what_is_sealed() -> None:
    assert repr(FULL) == "<Record 'alice' epoch e1, generation 3, sealed=***>"
    assert str(FULL) == repr(FULL)
    assert repr(TOMBSTONE) == "<Record 'alice' epoch e1, generation 3, ended=signed_out>"
    assert SECRET not in repr([FULL]) + f"{FULL!s} {(FULL,)}"


# Which is the later one


@pytest.mark.parametrize(
    ("one", "other", "later"),
    [
        # epoch, generation, began_at of each
        (("e1", 1, 10.0), ("e1", 0, 10.0), True),
        (("e1", 0, 10.0), ("e1", 1, 10.0), False),
        (("e1", 1, 10.0), ("e1", 1, 10.0), False),
        (("e1", 1, 5.0), ("e1", 0, 10.0), True),  # the time does not matter within an epoch
        (("e1", 0, 20.0), ("e1", 1, 10.0), False),
        (("e2", 0, 20.0), ("e1", 9, 10.0), True),  # a later sign-in, whatever its generation
        (("e1", 9, 10.0), ("e2", 0, 20.0), False),
        (("e2", 0, 10.0), ("e1", 0, 10.0), False),  # of two of one moment neither
        (("e1", 0, 10.0), ("e2", 0, 10.0), False),
    ],
)
def test_a_record_supersedes_an_earlier_one(
    one: tuple[str, int, float], other: tuple[str, int, float], later: bool
) -> None:
    first, second = (
        dataclasses.replace(FULL, epoch=epoch, generation=generation, began_at=began_at)
        for epoch, generation, began_at in (one, other)
    )

    assert first.supersedes(second) is later
    assert first.version == one[:2]


@given(records, records)
def test_no_two_records_supersede_each_other(one: Record, other: Record) -> None:
    assert not (one.supersedes(other) and other.supersedes(one))
    assert not one.supersedes(one)


# Fingerprints


def test_a_fingerprint_is_half_a_hash_and_the_same_everywhere() -> None:
    assert fingerprint("the-refresh") == "2c8ee7cd2f6b42f9acee36885f3d56d9"
    assert fingerprint("the-refresh") != fingerprint("the-refresh ")


@given(st.text(max_size=50))
def test_a_fingerprint_shows_nothing(token: str) -> None:
    shown = fingerprint(token)

    assert len(shown) == 32
    assert set(shown) <= set("0123456789abcdef")

"""Tokens: what they accept, what they read from a JWT, and that they show no secret."""

from __future__ import annotations

import base64
import copy
import dataclasses
import datetime
import json
import math
import pickle
import pprint
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keyturn
from keyturn.client.snapshot import Snapshot
from keyturn.tokens import Tokens, jwt_claims, received, seconds

NOW = 1_700_000_000.0
ACCESS, REFRESH, CSRF = "access-Zk3u9", "refresh-Qw8x1", "csrf-Ty5m7"
SECRETS = (ACCESS, REFRESH, CSRF)

# Numbers as they come from JSON, from a database, from a mistake.
NUMBERS = st.one_of(
    st.floats(),
    st.integers(),
    st.integers(min_value=10**300),
    st.integers(max_value=-(10**300)),
    st.sampled_from([10**400, -(10**400), 1.7e308, -1.7e308, 1e11, 1.7e12, 0, -0.0, math.nan, math.inf]),
)
ODD = st.one_of(
    NUMBERS,
    st.booleans(),
    st.none(),
    st.text(),
    st.binary(),
    st.decimals(),
    st.datetimes(),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(), st.text() | st.integers(), max_size=2),
    st.builds(object),
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
quick = settings(deadline=None, max_examples=200)


def jwt(claims: object, *, raw: bytes | None = None) -> str:
    """Return a JWT in form only: nobody has signed it."""
    payload = json.dumps(claims).encode() if raw is None else raw
    return f"eyJhbGciOiJub25lIn0.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.c2ln"


def of_anything(make: Callable[[], Tokens]) -> Tokens | None:
    """Return sound Tokens, or None for the one error that is allowed."""
    try:
        tokens = make()
    except keyturn.ConfigurationError:
        return None
    assert tokens.expires_at is None or math.isfinite(tokens.expires_at)
    assert tokens.lifetime is None or (math.isfinite(tokens.lifetime) and tokens.lifetime >= 0)
    assert not math.isnan(tokens.left(NOW))
    return tokens


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(ACCESS, REFRESH, NOW + 60, 60.0, {"csrf_access_token": CSRF})


SHOWS: dict[str, Callable[[Tokens], str]] = {
    "repr": repr,
    "str": str,
    "ascii": ascii,
    "format": format,
    "f-string": lambda one: f"{one} {one!r} {one!s}",
    "percent": lambda one: "%s %r" % (one, one),  # noqa: UP031 - as logging does it
    "pprint": pprint.pformat,
    "in containers": lambda one: repr([one]) + repr({"tokens": one}) + repr((one,)),
    "in an error": lambda one: repr(keyturn.KeyturnError("failed with", one)),
    "fields": lambda one: str(dataclasses.fields(one)),
    "snapshot": lambda one: repr(Snapshot.first(one, NOW)) + str(Snapshot.first(one, NOW)),
    "snapshot by pprint": lambda one: pprint.pformat(Snapshot.first(one, NOW)),
}


@pytest.mark.parametrize("show", SHOWS.values(), ids=SHOWS)
def test_nothing_that_prints_tokens_shows_a_secret(tokens: Tokens, show: Callable[[Tokens], str]) -> None:
    shown = show(tokens)

    assert not any(secret in shown for secret in SECRETS)


def test_the_repr_tells_what_is_there_and_when_it_expires(tokens: Tokens) -> None:
    assert repr(tokens) == f"<Tokens access=***, refresh=***, expires_at={NOW + 60}>"
    assert repr(Tokens(ACCESS)) == "<Tokens access=***, no refresh token, expires_at=None>"


def test_tokens_cannot_be_changed_in_place_nor_by_way_of_what_they_were_made_from() -> None:
    extra = {"csrf_access_token": CSRF}
    tokens = Tokens(ACCESS, extra=extra)
    extra["csrf_access_token"] = "another"

    assert tokens.extra == {"csrf_access_token": CSRF}
    with pytest.raises(dataclasses.FrozenInstanceError):
        tokens.access = "another"  # type: ignore[misc]
    with pytest.raises(TypeError):
        tokens.extra["csrf_access_token"] = "another"  # type: ignore[index]


def test_tokens_survive_pickling_copying_and_replacing(tokens: Tokens) -> None:
    for twin in (pickle.loads(pickle.dumps(tokens)), copy.copy(tokens), copy.deepcopy(tokens)):  # noqa: S301
        assert twin == tokens
    assert dataclasses.replace(tokens, access="another").extra == tokens.extra


def test_equal_tokens_are_one_in_a_set(tokens: Tokens) -> None:
    assert len({tokens, copy.copy(tokens)}) == 1


def test_a_pickled_snapshot_comes_back_as_plain_tokens_without_a_place_in_an_epoch(tokens: Tokens) -> None:
    twin = pickle.loads(pickle.dumps(Snapshot.first(tokens, NOW)))  # noqa: S301

    assert type(twin) is Tokens
    assert twin == tokens


@pytest.mark.parametrize(
    "bad", ["", " ", "a b", "a\r\nX-Evil: 1", "a\n", "\x00", "a\x7f", "é", "\ud800", "token\t"]
)
def test_a_token_that_no_header_could_carry_is_refused(bad: str) -> None:
    with pytest.raises(keyturn.ConfigurationError, match=r"Tokens\.access"):
        Tokens(bad)
    with pytest.raises(keyturn.ConfigurationError, match=r"Tokens\.refresh"):
        Tokens(ACCESS, bad)
    with pytest.raises(keyturn.ConfigurationError):
        received(bad, sent_at=NOW)


@pytest.mark.parametrize("bad", ["x\r\nX-Evil: 1", "x\n", "\x00", "é", "\ud800"])
def test_an_extra_value_that_no_header_could_carry_is_refused(bad: str) -> None:
    with pytest.raises(keyturn.ConfigurationError, match=r"Tokens\.extra"):
        Tokens(ACCESS, extra={"csrf_access_token": bad})
    with pytest.raises(keyturn.ConfigurationError, match=r"Tokens\.extra"):
        Tokens(ACCESS, extra={bad: "x"})


@pytest.mark.parametrize(
    "bad", [None, 5, "ab", ["ab"], [("a", "b")], {1: "b"}, {"a": 1}, {"a": None}, {"a": b"b"}]
)
def test_extra_maps_strings_to_strings(bad: Any) -> None:
    with pytest.raises(keyturn.ConfigurationError, match=r"Tokens\.extra"):
        Tokens(ACCESS, extra=bad)


@pytest.mark.parametrize("field", ["expires_at", "lifetime"])
@pytest.mark.parametrize(
    "bad",
    [
        math.nan,
        math.inf,
        -math.inf,
        True,
        "60",
        "soon",
        b"61",
        [],
        10**400,
        Decimal(60),
        datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC),
        datetime.timedelta(minutes=1),
    ],
)
def test_a_time_that_is_no_finite_number_of_seconds_is_refused(field: str, bad: Any) -> None:
    with pytest.raises(keyturn.ConfigurationError, match=rf"Tokens\.{field}"):
        Tokens(ACCESS, **{field: bad})


def test_a_negative_lifetime_is_refused() -> None:
    with pytest.raises(keyturn.ConfigurationError, match=r"Tokens\.lifetime"):
        Tokens(ACCESS, lifetime=-1.0)


def test_an_expiry_in_milliseconds_is_refused_with_a_message_that_says_so() -> None:
    with pytest.raises(keyturn.ConfigurationError, match="milliseconds"):
        Tokens(ACCESS, expires_at=NOW * 1000)


def test_what_is_left_is_counted_to_the_expiry_and_endless_without_one() -> None:
    assert Tokens(ACCESS, expires_at=NOW + 60).left(NOW) == 60
    assert Tokens(ACCESS, expires_at=NOW - 60).left(NOW) == -60
    assert Tokens(ACCESS).left(NOW) == math.inf


# Reading a JWT


def test_a_jwt_tells_its_expiry_and_its_lifetime() -> None:
    tokens = Tokens(jwt({"iat": NOW, "exp": NOW + 900}))

    assert (tokens.expires_at, tokens.lifetime) == (NOW + 900, 900.0)


def test_what_the_caller_says_comes_before_what_the_jwt_says() -> None:
    tokens = Tokens(jwt({"iat": NOW, "exp": NOW + 900}), expires_at=NOW + 5, lifetime=10.0)

    assert (tokens.expires_at, tokens.lifetime) == (NOW + 5, 10.0)


@pytest.mark.parametrize(
    ("claims", "expires_at", "lifetime"),
    [
        ({"exp": NOW}, NOW, None),
        ({"iat": NOW}, None, None),
        ({"exp": str(int(NOW)), "iat": 0}, NOW, NOW),
        ({"exp": NOW, "iat": NOW + 60}, NOW, 0.0),
        ({"exp": NOW * 1000, "iat": (NOW - 60) * 1000}, None, None),
        ({"exp": True, "iat": False}, None, None),
        ({"exp": -1, "iat": -61}, -1.0, 60.0),
        ({"exp": math.nan}, None, None),
        ({"exp": math.inf, "iat": 0}, None, None),
        ({"exp": NOW, "iat": math.nan}, NOW, None),
        ({"exp": 1.7e308, "iat": -1.7e308}, None, None),
        ({"exp": -1.7e308, "iat": 1.7e308}, -1.7e308, 0.0),
        ({"exp": 10**400}, None, None),
        ({"exp": [NOW], "iat": {}}, None, None),
        ({"exp": None, "iat": None}, None, None),
        ([{"exp": NOW}], None, None),
        ("exp", None, None),
        (None, None, None),
    ],
)
def test_claims_that_make_no_sense_count_as_not_given(
    claims: object, expires_at: float | None, lifetime: float | None
) -> None:
    tokens = Tokens(jwt(claims))

    assert (tokens.expires_at, tokens.lifetime) == (expires_at, lifetime)


@pytest.mark.parametrize(
    "token",
    [
        "opaque",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "..",
        "...",
        "a.!!!.c",
        jwt(None, raw=b"[" * 40_000),
        jwt(None, raw=b'{"a":' * 8_000 + b"1" + b"}" * 8_000),
        jwt(None, raw=b'{"exp":' + b"9" * 5_000 + b"}"),
        jwt(None, raw=b'{"exp": 1' + b"0" * 5_000 + b".0}"),
        jwt(None, raw=b"\xff\xfe{}"),
        jwt(None, raw=b"\xef\xbb\xbf"),
        jwt(None, raw=b'{"exp":'),
        jwt({"exp": NOW, "padding": "x" * 70_000}),
    ],
    ids=lambda token: f"{token[:30]}-{len(token)}",
)
def test_what_cannot_be_read_as_a_jwt_is_an_opaque_token(token: str) -> None:
    tokens = Tokens(token)

    assert (tokens.access, tokens.expires_at, tokens.lifetime) == (token, None, None)


@quick
@given(st.text(max_size=60) | st.text(alphabet="ab.-_=\xe9", max_size=30))
def test_any_text_reads_as_a_jwt_with_claims_or_without_any(text: str) -> None:
    assert isinstance(jwt_claims(text), Mapping)
    of_anything(lambda: Tokens(text))


@quick
@given(st.binary(max_size=200))
def test_any_bytes_in_the_place_of_the_claims_are_read_or_passed_over(payload: bytes) -> None:
    assert of_anything(lambda: Tokens(jwt(None, raw=payload))) is not None


@quick
@given(JSON_VALUES, JSON_VALUES)
def test_any_exp_and_iat_make_a_sound_expiry_or_none(exp: object, iat: object) -> None:
    token = jwt({"exp": exp, "iat": iat})

    assert of_anything(lambda: Tokens(token)) is not None
    answered = of_anything(lambda: received(token, sent_at=NOW))
    assert answered is not None
    if answered.lifetime is not None:
        assert answered.expires_at is not None
        assert NOW <= answered.expires_at <= 1e11
        assert answered.expires_at == NOW + answered.lifetime


@quick
@given(access=ODD, refresh=ODD, expires_at=ODD, lifetime=ODD, extra=ODD)
def test_arguments_of_any_type_make_tokens_or_a_configuration_error(**arguments: Any) -> None:
    of_anything(lambda: Tokens(**arguments))


@quick
@given(argument=st.sampled_from(["access", "refresh", "expires_at", "lifetime", "extra"]), value=ODD)
def test_one_odd_argument_among_good_ones_makes_tokens_or_a_configuration_error(
    argument: str, value: object
) -> None:
    good: dict[str, Any] = {
        "access": ACCESS,
        "refresh": REFRESH,
        "expires_at": NOW,
        "lifetime": 60.0,
        "extra": {},
    }

    of_anything(lambda: Tokens(**{**good, argument: value}))


# An answer's own words


@pytest.mark.parametrize(
    ("expires_in", "lifetime"),
    [(3600, 3600.0), (3600.5, 3600.5), ("3601", 3601.0), (" 60 ", 60.0), (0, 0.0), (-5, 0.0), ("-6", 0.0)],
)
def test_expires_in_counts_from_the_moment_of_sending_and_is_read_as_the_wild_writes_it(
    expires_in: object, lifetime: float
) -> None:
    tokens = received(ACCESS, sent_at=NOW, expires_in=expires_in)

    assert (tokens.expires_at, tokens.lifetime) == (NOW + lifetime, lifetime)


@pytest.mark.parametrize(
    "expires_in",
    [None, True, False, "", "soon", "1 h", "NaN", "Infinity", math.nan, math.inf, [], {}, [60], 10**400],
)
def test_an_expires_in_that_is_no_number_counts_as_not_given(expires_in: object) -> None:
    assert received(ACCESS, sent_at=NOW, expires_in=expires_in).expires_at is None
    assert received(jwt({"exp": 160, "iat": 100}), sent_at=NOW, expires_in=expires_in).expires_at == NOW + 60


def test_the_lifetime_of_a_jwt_counts_from_the_moment_of_sending_so_that_no_clock_matters() -> None:
    tokens = received(jwt({"iat": 100, "exp": 1000}), sent_at=NOW)

    assert (tokens.expires_at, tokens.lifetime) == (NOW + 900, 900.0)


def test_expires_in_comes_before_the_claims_of_the_jwt() -> None:
    assert received(jwt({"iat": NOW, "exp": NOW + 900}), sent_at=NOW, expires_in=60).lifetime == 60


def test_a_jwt_with_an_exp_alone_expires_by_that() -> None:
    assert received(jwt({"exp": NOW + 900}), sent_at=NOW).expires_at == NOW + 900


def test_a_jwt_in_milliseconds_is_not_taken_to_live_a_thousand_times_as_long() -> None:
    tokens = received(jwt({"iat": NOW * 1000, "exp": (NOW + 60) * 1000}), sent_at=NOW)

    assert (tokens.expires_at, tokens.lifetime) == (None, None)


@pytest.mark.parametrize("expires_in", [1e11, 1e300, "1e301", 10**300])
def test_an_endless_expires_in_is_cut_to_a_date_that_a_clock_can_reach(expires_in: object) -> None:
    assert received(ACCESS, sent_at=NOW, expires_in=expires_in).expires_at == 1e11


@quick
@given(access=ODD | st.just(ACCESS), refresh=ODD, expires_in=ODD, extra=ODD, sent_at=ODD | st.just(NOW))
def test_an_answer_of_any_types_makes_tokens_or_a_configuration_error(**arguments: Any) -> None:
    of_anything(lambda: received(**arguments))


@quick
@given(ODD | JSON_VALUES)
def test_seconds_are_a_finite_float_or_nothing(value: object) -> None:
    number = seconds(value)

    assert number is None or (type(number) is float and math.isfinite(number))

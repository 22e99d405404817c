"""The schedule: zones, windows, back-off and Retry-After, as rows and as properties of every token."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keyturn.client.schedule import Plan, Zone, backoff, plan, retry_after

NOW = 1_700_000_000.0
ORDER = [Zone.FRESH, Zone.ADVISORY, Zone.MANDATORY]
NO_JITTER, MOST_JITTER = 0.0, math.nextafter(1.0, 0.0)

quick = settings(deadline=None, max_examples=200)
jitters = st.floats(0.0, 1.0, exclude_max=True)
lives = st.floats(0.0, 1e9)
moments = st.floats(0.0, 1e11)


@pytest.mark.parametrize(
    ("life", "jitter", "advisory", "mandatory"),
    [
        (3600.0, NO_JITTER, 300.0, 30.0),  # the windows have a longest
        (86400.0, NO_JITTER, 300.0, 30.0),
        (900.0, NO_JITTER, 180.0, 30.0),
        (60.0, NO_JITTER, 12.0, 3.0),  # and scale with the life below it
        (1.0, NO_JITTER, 0.2, 0.05),
        (3600.0, 0.5, 375.0, 37.5),
        (3600.0, MOST_JITTER, 450.0, 45.0),
        (60.0, MOST_JITTER, 18.0, 4.5),
        (0.0, NO_JITTER, 0.0, 0.0),
    ],
)
def test_the_windows_scale_with_the_life_and_are_stretched_by_the_jitter(
    life: float, jitter: float, advisory: float, mandatory: float
) -> None:
    made = plan(NOW + life, life, NOW, jitter)

    assert made.expires_at - made.advisory_at == pytest.approx(advisory, abs=1e-5)
    assert made.expires_at - made.mandatory_at == pytest.approx(mandatory, abs=1e-5)


@pytest.mark.parametrize(
    ("left", "zone"),
    [
        (3600.0, Zone.FRESH),
        (300.1, Zone.FRESH),
        (300.0, Zone.ADVISORY),
        (30.1, Zone.ADVISORY),
        (30.0, Zone.MANDATORY),
        (0.0, Zone.MANDATORY),
        (-1.0, Zone.MANDATORY),
        (-1e9, Zone.MANDATORY),
    ],
)
def test_the_zone_follows_from_what_is_left(left: float, zone: Zone) -> None:
    assert plan(NOW, 3600.0, NOW - 3600.0, NO_JITTER).zone(NOW - left) is zone


@pytest.mark.parametrize(
    ("min_ttl", "zone"),
    [(0.0, Zone.FRESH), (1800.0, Zone.FRESH), (1800.1, Zone.MANDATORY), (math.inf, Zone.MANDATORY)],
)
def test_who_needs_more_life_than_is_left_waits_for_a_refresh(min_ttl: float, zone: Zone) -> None:
    assert plan(NOW + 1800.0, 3600.0, NOW, NO_JITTER).zone(NOW, min_ttl) is zone


@quick
@given(moments, st.floats(0.0, 1e9))
def test_a_token_without_an_expiry_is_fresh_for_ever_whatever_is_asked(now: float, min_ttl: float) -> None:
    made = plan(None, None, now, MOST_JITTER)

    assert made == Plan(math.inf, math.inf, math.inf)
    assert made.zone(now, min_ttl) is Zone.FRESH


def test_a_token_without_an_expiry_is_fresh_even_where_a_lifetime_was_told() -> None:
    assert plan(None, 60.0, NOW, NO_JITTER).zone(NOW + 1e9) is Zone.FRESH


@quick
@given(st.floats(-1e9, 0.0), st.none() | lives, jitters)
def test_a_token_born_expired_is_mandatory_at_once_and_stays_so(
    left: float, lifetime: float | None, jitter: float
) -> None:
    made = plan(NOW + left, lifetime, NOW, jitter)

    assert made.zone(NOW) is Zone.MANDATORY
    assert made.zone(NOW + 1.0) is Zone.MANDATORY


@quick
@given(lives, jitters)
@example(3600.0, MOST_JITTER)
@example(1e-9, MOST_JITTER)
def test_no_window_reaches_back_past_half_of_the_life(life: float, jitter: float) -> None:
    made = plan(life, life, 0.0, jitter)  # from 0, where a float tells the smallest difference

    assert life / 2 <= made.advisory_at <= made.mandatory_at <= made.expires_at == life
    assert life - made.advisory_at <= 450.0
    assert life - made.mandatory_at <= 45.0


@quick
@given(lives, jitters)
def test_jitter_makes_a_window_longer_by_half_at_most_and_never_shorter(life: float, jitter: float) -> None:
    plain, made = plan(life, life, 0.0, NO_JITTER), plan(life, life, 0.0, jitter)

    for name in ("advisory_at", "mandatory_at"):
        window, stretched = life - getattr(plain, name), life - getattr(made, name)
        assert window <= stretched + 1e-6
        assert stretched <= 1.5 * window + 1e-6


@quick
@given(moments, st.none() | lives, moments, jitters)
def test_the_zones_come_in_order_for_any_token(
    expires_at: float, lifetime: float | None, now: float, jitter: float
) -> None:
    made = plan(expires_at, lifetime, now, jitter)

    assert made.advisory_at <= made.mandatory_at <= made.expires_at == expires_at
    assert math.isfinite(made.advisory_at)


@quick
@given(moments, st.none() | lives, moments, jitters, st.lists(moments, min_size=2), st.floats(0.0, 1e6))
def test_time_never_leads_back_to_an_earlier_zone(
    expires_at: float,
    lifetime: float | None,
    now: float,
    jitter: float,
    times: list[float],
    min_ttl: float,
) -> None:
    made = plan(expires_at, lifetime, now, jitter)
    zones = [ORDER.index(made.zone(time, min_ttl)) for time in sorted(times)]

    assert zones == sorted(zones)


@quick
@given(lives, jitters, moments, st.floats(0.0, 1e6), st.floats(0.0, 1e6))
def test_asking_for_more_life_never_makes_a_token_fresher(
    life: float, jitter: float, now: float, one: float, other: float
) -> None:
    made = plan(life, life, 0.0, jitter)
    less, more = sorted([one, other])

    assert ORDER.index(made.zone(now, less)) <= ORDER.index(made.zone(now, more))


@quick
@given(lives, jitters)
def test_a_seed_without_a_lifetime_is_planned_by_what_is_left_of_it(left: float, jitter: float) -> None:
    assert plan(NOW + left, None, NOW, jitter) == plan(NOW + left, (NOW + left) - NOW, NOW, jitter)


# Back-off


@pytest.mark.parametrize(
    ("failures", "least", "most"),
    [(1, 0.125, 0.25), (2, 0.25, 0.5), (3, 0.5, 1.0), (7, 8.0, 16.0), (8, 15.0, 30.0), (1000, 15.0, 30.0)],
)
def test_the_wait_doubles_with_each_failure_up_to_half_a_minute(
    failures: int, least: float, most: float
) -> None:
    assert backoff(failures, NO_JITTER) == least
    assert backoff(failures, MOST_JITTER) == pytest.approx(most)


@quick
@given(st.integers(0, 10**12), jitters)
@example(0, NO_JITTER)
@example(10**12, MOST_JITTER)
def test_the_wait_is_above_zero_and_at_most_half_a_minute_however_many_failures(
    failures: int, jitter: float
) -> None:
    assert 0.0 < backoff(failures, jitter) <= 30.0


@quick
@given(st.integers(1, 100), jitters)
def test_more_failures_never_make_the_wait_shorter(failures: int, jitter: float) -> None:
    assert backoff(failures, jitter) <= backoff(failures + 1, jitter)


# Retry-After

SENT = datetime.fromtimestamp(NOW, UTC)


def date(seconds_later: float) -> str:
    """Return an HTTP date (RFC 9110 §5.6.7)."""
    return format_datetime(SENT + timedelta(seconds=seconds_later), usegmt=True)


@pytest.mark.parametrize(
    ("value", "own_date", "seconds"),
    [
        ("2", None, 2.0),
        ("0", None, 0.0),
        (" 120 ", None, 120.0),
        ("0000000000120", None, 120.0),
        ("3600", None, 3600.0),
        ("3601", None, 3600.0),  # what asks for more than an hour is taken as an hour
        ("9" * 400, None, 3600.0),
        (date(30), None, 30.0),
        (date(30), date(0), 30.0),
        (date(86_430), date(86_400), 30.0),  # the server's clock is a day ahead: its own Date tells
        (date(-86_370), date(-86_400), 30.0),
        (date(-30), None, 0.0),
        (date(86_400), date(0), 3600.0),
        (date(30), "yesterday", 30.0),
        (date(30), "", 30.0),
        (date(30).replace("GMT", "-0000"), None, 30.0),
        (date(30).replace(" GMT", ""), None, 30.0),
        ("Tuesday, 14-Nov-23 22:13:50 GMT", None, 30.0),  # RFC 850's, which a recipient must accept
        ("Tue Nov 14 22:13:50 2023", None, 30.0),  # asctime's
    ],
)
def test_retry_after_is_read_in_seconds_and_as_a_date_by_the_servers_own_clock(
    value: str, own_date: str | None, seconds: float
) -> None:
    assert retry_after(value, own_date, NOW) == seconds


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        " ",
        "soon",
        "-1",
        "+5",
        "1.5",
        "1e3",
        "0x10",
        "1_000",
        "5 s",
        "5, 10",
        "Infinity",
        "NaN",
        "\u0665",
        "\u00b2",
        "2030-01-01T00:00:00Z",
        "1 Jan 99999 00:00:00 GMT",
        "Tue, 99 Nov 2023 22:13:50 GMT",
        "Tue, 14 Nov 2023 25:61:61 GMT",
        "\x00",
        "9" * 5_000 + "x",
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_retry_after_that_cannot_be_read_asks_for_nothing(value: str | None) -> None:
    assert retry_after(value, date(0), NOW) is None


WORDS = [
    "Tue,",
    "Tue",
    "14",
    "Nov",
    "2023",
    "99999",
    "22:13:50",
    "GMT",
    "-0000",
    "+9999",
    "-2400",
    "-",
    ":",
    "0",
    "am",
]
DATELIKE = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
ANYTHING = st.text(max_size=40) | DATELIKE | st.integers().map(str) | st.floats().map(str)


@settings(deadline=None, max_examples=400)
@given(ANYTHING, st.none() | ANYTHING, moments)
@example("Mon, 01 Jan 0001 00:00:00 +2359", None, NOW)
@example("Fri, 31 Dec 9999 23:59:59 -2359", "Mon, 01 Jan 0001 00:00:00 +2359", NOW)
def test_any_retry_after_asks_for_nothing_or_for_up_to_an_hour(
    value: str, own: str | None, now: float
) -> None:
    wait = retry_after(value, own, now)

    assert wait is None or 0.0 <= wait <= 3600.0

"""What is counted comes from what was recorded."""

from __future__ import annotations

import pytest

from keyturn.demo import scene
from keyturn.demo.record import Call, Lane, Request, from_first

LANE = Lane(
    "naive",
    (Call("/a", 200), Call("/b", 401), Call("/c", None)),
    (
        Request("/a", "call", 0, 30, 401, 0),
        Request("/auth/refresh", "refresh", 30, 90, 200, 0),
        Request("/auth/refresh", "refresh", 31, 95.26, 401, 1),
        Request("/a", "replay", 90, 120, 200, 0),
    ),
    signed_in=False,
)


def test_refreshes_count_whatever_came_of_them() -> None:
    assert LANE.refreshes == 2


def test_only_what_the_page_got_counts_as_answered() -> None:
    assert LANE.answered == 1


@pytest.mark.parametrize(
    ("status", "answered"), [(200, True), (204, True), (302, False), (401, False), (None, False)]
)
def test_an_answer_is_a_success(status: int | None, *, answered: bool) -> None:
    assert Call("/a", status).answered == answered
    assert Request("/a", "call", 0, 1, status).answered == answered


def test_json_says_the_same_as_the_picture() -> None:
    said = dict(LANE.as_json())
    requests = said.pop("requests")

    assert said == {"refreshes": 2, "answered": 1, "of": 3, "signed_in": False}
    assert isinstance(requests, list)
    assert requests[2] == {
        "name": "/auth/refresh",
        "kind": "refresh",
        "start_ms": 31,
        "end_ms": 95.3,
        "status": 401,
    }


def test_the_clock_starts_with_the_first_request() -> None:
    late, first = Request("/b", "call", 1_050, 1_080, 200), Request("/a", "call", 1_000, 1_030, 200)

    assert [(one.name, one.start, one.end) for one in from_first([late, first])] == [
        ("/a", 0, 30),
        ("/b", 50, 80),
    ]
    assert from_first([]) == ()


def test_a_lane_without_requests_ends_at_once() -> None:
    assert Lane("none", (), (), signed_in=True).end == 0


@pytest.mark.parametrize("number", [1, 12, 16, 17, scene.MOST_REQUESTS])
def test_a_dashboard_of_any_size_asks_for_different_things(number: int) -> None:
    paths = scene.names(number)

    assert len(set(paths)) == len(paths) == number
    assert paths[0] == "/statistics"

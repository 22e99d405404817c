"""Scenario 10, HTTP/2: refusals that share one connection cost one refresh, and everyone is answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keyturn.testing import StrictServer
from tests.scenarios.callers import WAYS, Caller, Way, api_requests
from tests.scenarios.http2 import Front

SPEAKERS = [way for way in WAYS if hasattr(way.driver, "open_http2")]
COUNT = 30


@pytest.fixture
def front(strict_server: StrictServer, tmp_path: Path) -> Iterator[Front]:
    with Front(strict_server.url, tmp_path) as running:
        yield running


@pytest.mark.parametrize("way", SPEAKERS, ids=str)
def test_refusals_over_one_http2_connection_cost_one_refresh(
    strict_server: StrictServer, front: Front, way: Way
) -> None:
    driver: Any = way.driver
    count = COUNT if driver.shares_http2 else 1
    credentials = way.credentials(strict_server, origins=[front.url])
    strict_server.expire()
    strict_server.hold_api(count)

    with Caller(way, front, credentials, http2=front.ca) as api:
        calls = [api.start("POST", f"/orders/{i}", content=b"%d" % i) for i in range(count)]
        answers = [call.result(30) for call in calls]

    assert [answer.status_code for answer in answers] == [200] * count
    assert {answer.headers["x-arrived-by"] for answer in answers} == {"2"}
    stats = strict_server.stats
    assert (stats.refreshes, stats.refused, stats.answered) == (1, count, count)
    replayed = [one.body for one in api_requests(strict_server) if one.status == 200]
    assert sorted(replayed) == sorted(b"%d" % i for i in range(count))

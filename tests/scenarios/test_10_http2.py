"""Scenario 10, HTTP/2: refusals that share one connection cost one refresh, and everyone is answered."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from keyturn.testing import StrictServer
from tests.scenarios.callers import WAYS, Caller, Way, api_requests
from tests.scenarios.http2 import Front

SPEAKERS = [way for way in WAYS if hasattr(way.driver, "open_http2")]
COUNT = 30


@pytest.fixture(scope="module")
def fronts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Front]]:
    with ExitStack() as stack:

        @functools.cache
        def front_of(url: str) -> Front:
            return stack.enter_context(Front(url, tmp_path_factory.mktemp("front")))

        yield front_of


@pytest.fixture
def front(strict_server: StrictServer, fronts: Callable[[str], Front]) -> Front:
    return fronts(strict_server.url)


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

"""Two hosts share one store, and their clocks are an hour apart: what counts is the store's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from keyturn import Tokens
from keyturn.testing import StrictServer
from tests.client.token_stores.postgres_server import PostgresServer
from tests.client.token_stores.redis_server import RedisServer
from tests.processes.fleet import Fleet, Yard, together
from tests.processes.handles import Started
from tests.processes.hosts import Host, two_hosts
from tests.processes.pauses import Place
from tests.processes.proxy import Proxy
from tests.processes.settings import written
from tests.processes.stores import NOTIFYING, Shared
from tests.waiting import until

pytestmark = pytest.mark.processes

WINDOW = 4.0
TTL = 600.0
EVERYWHERE = "0.0.0.0"  # noqa: S104 - where the servers of these tests listen, on ports of their own
LETS_IN = "host all postgres 10.0.0.0/8 trust\nhost all postgres 127.0.0.0/8 trust\n"


@dataclass(frozen=True)
class Site:
    """A host, and where its workers are."""

    host: Host
    fleet: Fleet

    def crew(self, count: int, tokens: Tokens | None = None, **settings: float) -> list[Started]:
        """Return workers on this host, with its clock; `tokens` were read from a sign-in by the true time."""
        seed = None if tokens is None else self.host.dated(tokens)
        return self.fleet.crew(count, tokens=seed, clock=self.host.ahead, **settings)


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts."""
    with two_hosts() as both:
        yield both


@pytest.fixture(scope="module")
def yards(hosts: tuple[Host, Host]) -> Iterator[list[Yard]]:
    """Where the workers of each wait for the next test."""
    yards = [Yard(within=host.within) for host in hosts]
    yield yards
    for yard in yards:
        yard.close()


@contextmanager
def redis() -> Iterator[str]:
    """Run a Redis that is reached from everywhere."""
    server = RedisServer("--bind", EVERYWHERE, "--protected-mode", "no")
    try:
        yield server.url
    finally:
        server.close()


@contextmanager
def postgresql() -> Iterator[str]:
    """Run a PostgreSQL that is reached from everywhere."""
    server = PostgresServer()
    server.install("pg_hba.conf", LETS_IN.encode())
    with server:
        server.restart(f"listen_addresses={EVERYWHERE}")
        yield server.url()


@pytest.fixture(scope="module", params=NOTIFYING)
def store_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A store that both hosts reach."""
    with {"redis": redis, "postgresql": postgresql}[request.param]() as url:
        yield url


@pytest.fixture
def sites(
    hosts: tuple[Host, Host], yards: list[Yard], strict_server: StrictServer, shared: Shared
) -> Iterator[tuple[Site, Site]]:
    """Both hosts, with workers to have there, and ways to the servers."""
    strict_server.configure(ttl=TTL)
    with ExitStack() as stack:
        one, other = (
            _site(host, yard, strict_server, shared, stack) for host, yard in zip(hosts, yards, strict=True)
        )
        yield one, other
        strict_server.release()


def _site(host: Host, yard: Yard, server: StrictServer, shared: Shared, stack: ExitStack) -> Site:
    way = stack.enter_context(Proxy(server.url, host.servers))
    parts = urlsplit(shared.url)
    store = parts._replace(netloc=parts.netloc.replace("127.0.0.1", host.servers)).geturl()
    return Site(host, stack.enter_context(Fleet(yard, url=way.url, store=store, name=shared.name)))


def test_there_is_one_refresh_and_each_host_sees_its_tokens_expire_at_the_right_time(
    strict_server: StrictServer, sites: tuple[Site, Site], shared: Shared
) -> None:
    old = strict_server.sign_in(ttl=-1.0)
    crew = [worker for site in sites for worker in site.crew(2, old)]
    begun = shared.now()

    assert together([worker.get(10) for worker in crew]) == {"200": 40}

    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations, stats.reuses) == (1, 1, 0)
    expires_at = shared.record().expires_at
    assert expires_at is not None
    assert begun + TTL - 1.0 <= expires_at <= shared.now() + TTL + 1.0
    for worker in crew:
        before, left, after = shared.now(), worker.do("tokens")["expires_in"], shared.now()
        assert before + left - 1.0 <= expires_at <= after + left + 1.0
    assert together([worker.get(10) for worker in crew]) == {"200": 40}
    assert strict_server.stats.refreshes == 1


@pytest.mark.parametrize("killed", [0, 1], ids=["the host that is ahead", "the host that is behind"])
@pytest.mark.parametrize("place", ["answered", "saving"])
def test_inside_the_window_one_host_buys_what_a_killed_process_of_the_other_lost(
    strict_server: StrictServer, sites: tuple[Site, Site], shared: Shared, place: Place, killed: int
) -> None:
    strict_server.configure(window=WINDOW)
    old = strict_server.sign_in(ttl=-1.0)
    (holder,), others = (
        sites[killed].crew(1, old, window=WINDOW),
        sites[1 - killed].crew(2, old, window=WINDOW),
    )
    kill(holder, place)

    assert together([other.get(10) for other in others]) == {"200": 20}

    stats = strict_server.stats
    assert (stats.rotations, stats.replays, stats.reuses, stats.sessions_live) == (1, 1, 0, 1)
    assert shared.record().generation == 1


@pytest.mark.parametrize("killed", [0, 1], ids=["the host that is ahead", "the host that is behind"])
def test_after_the_window_one_host_does_not_send_what_a_killed_process_of_the_other_sent(
    strict_server: StrictServer, sites: tuple[Site, Site], shared: Shared, killed: int
) -> None:
    window = 1.0
    strict_server.configure(window=window)
    old = strict_server.sign_in(ttl=-1.0)
    (holder,), (other,) = (
        sites[killed].crew(1, old, window=window),
        sites[1 - killed].crew(1, old, window=window),
    )
    kill(holder, "answered")
    marker = shared.record().marker
    assert marker is not None
    until(lambda: shared.now() > marker.at + window)

    assert other.get(10).outcomes == {"OutcomeUnknown": 10}

    stats = strict_server.stats
    assert (stats.refreshes, stats.reuses, stats.sessions_live) == (1, 0, 1)
    other.ok("sign_in", tokens=written(sites[1 - killed].host.dated(strict_server.sign_in())))
    assert sites[killed].crew(1)[0].get(10).outcomes == {"200": 10}
    assert strict_server.stats.refreshes == 1


def test_a_token_that_one_host_bought_is_renewed_by_the_other_when_it_is_due_and_not_before(
    strict_server: StrictServer, sites: tuple[Site, Site], shared: Shared
) -> None:
    ahead, behind = (site.crew(1)[0] for site in sites)
    for site, signs_in, other in ((sites[0], ahead, behind), (sites[1], behind, ahead)):
        short = strict_server.sign_in(ttl=40.0)
        signs_in.ok("sign_in", tokens=written(site.host.dated(short)))
        until(lambda other=other: is_signed_in_as(shared, other))  # type: ignore[misc]
        for worker in (signs_in, other):
            assert 10.0 < worker.do("tokens")["expires_in"] < 41.0
    assert together([worker.get(10) for worker in (ahead, behind)]) == {"200": 20}
    assert strict_server.stats.refreshes == 0

    for worker in (ahead, behind):
        worker.ok("get_tokens", min_ttl=60.0)
    assert strict_server.stats.refreshes == 1


def test_a_sign_out_on_one_host_is_known_on_the_other(
    strict_server: StrictServer, sites: tuple[Site, Site]
) -> None:
    new = strict_server.sign_in()
    leaves, stays = (site.crew(1, new)[0] for site in sites)
    assert together([worker.get(1) for worker in (leaves, stays)]) == {"200": 2}

    leaves.ok("sign_out")

    until(lambda: stays.get(1).outcomes == {"SessionEnded signed_out": 1})


def is_signed_in_as(shared: Shared, worker: Started) -> bool:
    """Send a request; tell whether it was answered, and carried a token of the record's sign-in."""
    return worker.get(1).outcomes == {"200": 1} and worker.do("tokens")["epoch"] == shared.record().epoch


def kill(holder: Started, place: Place) -> None:
    """Have a worker refresh, and kill it at `place`."""
    holder.pause(place)
    holder.get(1)
    assert holder.paused() == place
    holder.kill()

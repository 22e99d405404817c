"""Auth and AsyncAuth for niquests: sessions that await, and sessions that multiplex over HTTP/2."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import niquests
import pytest

import keyturn
from keyturn.client.niquests import AsyncAuth, Auth
from keyturn.testing import StrictServer
from tests.client.requests_kit import LIBRARIES, Scripted, cookie_credentials
from tests.kit import credentials_for, run_in_loop
from tests.scenarios.http2 import Front

T = TypeVar("T")
COUNT = 20


@pytest.fixture
def front(strict_server: StrictServer, tmp_path: Path) -> Iterator[Front]:
    with Front(strict_server.url, tmp_path) as running:
        yield running


def in_session(auth: Any, use: Callable[[Any], Awaitable[T]], **options: Any) -> T:
    """Run `use(session)` in a loop of its own."""

    async def main() -> T:
        async with niquests.AsyncSession(auth=auth, **options) as session:
            session.trust_env = False
            return await use(session)

    return run_in_loop(main)


# An Auth for each kind of session


def answered(_: object) -> tuple[int, dict[str, str]]:
    return 200, {}


@pytest.mark.parametrize("expired", [False, True], ids=["fresh", "expired"])
def test_a_session_says_that_it_takes_auth(strict_server: StrictServer, expired: bool) -> None:
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=-1.0 if expired else None))

    with niquests.Session(auth=AsyncAuth(credentials)) as session:
        Scripted(LIBRARIES[1], answered).on(session)
        with pytest.raises(keyturn.ConfigurationError, match="a Session takes Auth"):
            session.get(strict_server.url + "/a")

    assert strict_server.stats.refreshes == 0


def test_an_async_session_says_that_it_takes_async_auth(strict_server: StrictServer) -> None:
    credentials = credentials_for(strict_server)
    scripted = Scripted(LIBRARIES[1], answered)

    class Adapter(niquests.adapters.AsyncBaseAdapter):
        async def send(self, request: Any, **_: Any) -> Any:  # type: ignore[override]
            return scripted.respond(request, self)

        async def close(self) -> None:
            pass

    async def use(session: Any) -> None:
        session.mount("http://", Adapter())
        with pytest.raises(keyturn.ConfigurationError, match="an AsyncSession takes AsyncAuth"):
            await session.get(strict_server.url + "/a")

    in_session(Auth(credentials), use)


def test_async_auth_takes_nothing_but_credentials() -> None:
    with pytest.raises(keyturn.ConfigurationError, match=r"AsyncAuth takes keyturn\.Credentials, not str"):
        AsyncAuth("token")  # type: ignore[arg-type]


# Sessions that await


def test_a_replayed_response_has_a_history_that_needs_no_awaiting(strict_server: StrictServer) -> None:
    credentials = credentials_for(strict_server)
    strict_server.expire()

    response = in_session(
        AsyncAuth(credentials), lambda session: session.get(strict_server.url + "/a", timeout=30)
    )

    (refused,) = response.history
    assert (refused.status_code, response.status_code) == (401, 200)
    assert refused.json()["error"]
    assert response.json()["subject"] == "alice"


def test_hooks_that_await_and_hooks_that_do_not_run_once(strict_server: StrictServer) -> None:
    credentials = credentials_for(strict_server)
    strict_server.expire()
    told: list[tuple[str, int]] = []

    async def awaiting(response: Any, **_: Any) -> None:
        response.raise_for_status()
        told.append(("awaiting", response.status_code))

    def plain(response: Any, **_: Any) -> None:
        told.append(("plain", response.status_code))

    async def use(session: Any) -> None:
        for path in ("/a", "/redirect/307?to=/b"):
            await session.get(strict_server.url + path, hooks={"response": [awaiting, plain]}, timeout=30)

    in_session(AsyncAuth(credentials), use)

    assert told == [(name, status) for status in (200, 307, 200) for name in ("awaiting", "plain")]


def test_a_first_request_of_a_loop_that_closed_strands_nobody(strict_server: StrictServer) -> None:
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=-1.0))
    auth = AsyncAuth(credentials)

    for _ in range(2):
        strict_server.expire()
        response = in_session(auth, lambda session: session.get(strict_server.url + "/a", timeout=30))
        assert response.status_code == 200

    assert strict_server.stats.refreshes == 2


# Sessions that multiplex


def lazily(front: Front, credentials: keyturn.Credentials) -> Any:
    """Return a session whose responses are gathered."""
    session = niquests.Session(auth=Auth(credentials), multiplexed=True, disable_http3=True)
    session.verify, session.trust_env = str(front.ca), False
    return session


def awaited_lazily(front: Front, credentials: keyturn.Credentials, use: Callable[[Any], Awaitable[T]]) -> T:
    """Run `use` with an AsyncSession whose responses are gathered."""
    options = {"multiplexed": True, "disable_http3": True, "verify": str(front.ca)}
    return in_session(AsyncAuth(credentials), use, **options)


def test_refusals_are_dealt_with_when_the_responses_are_gathered(
    strict_server: StrictServer, front: Front
) -> None:
    credentials = credentials_for(strict_server, origins=[front.url])
    strict_server.expire()

    with lazily(front, credentials) as session:
        responses = [session.post(f"{front.url}/orders/{i}", data=b"%d" % i) for i in range(COUNT)]
        assert all(response.lazy for response in responses)
        session.gather()
        assert [response.status_code for response in responses] == [200] * COUNT

    assert [one.request.body for one in responses] == [b"%d" % i for i in range(COUNT)]
    assert {response.json()["subject"] for response in responses} == {"alice"}
    assert [[one.status_code for one in response.history] for response in responses] == [[401]] * COUNT
    assert {response.http_version for response in responses} == {20}
    assert (strict_server.stats.refreshes, strict_server.stats.refused) == (1, COUNT)


def test_a_lazy_response_may_be_asked_for_by_itself(strict_server: StrictServer, front: Front) -> None:
    credentials = credentials_for(strict_server, origins=[front.url])
    strict_server.expire()

    with lazily(front, credentials) as session:
        first, second = (session.get(f"{front.url}/{name}") for name in "ab")
        assert second.status_code == 200
        assert first.json()["subject"] == "alice"

    assert strict_server.stats.refreshes == 1


def test_the_end_of_the_session_is_raised_where_a_response_is_gathered(
    strict_server: StrictServer, front: Front
) -> None:
    credentials = credentials_for(strict_server, origins=[front.url])
    strict_server.revoke()

    with lazily(front, credentials) as session:
        responses = [session.get(f"{front.url}/{i}") for i in range(3)]
        for response in responses:
            with pytest.raises(keyturn.SessionEnded):
                session.gather(response)

    assert strict_server.stats.refreshes == 1


def test_refusals_are_dealt_with_when_the_responses_are_awaited(
    strict_server: StrictServer, front: Front
) -> None:
    credentials = credentials_for(strict_server, origins=[front.url])
    strict_server.expire()

    async def use(session: Any) -> list[tuple[int, str, list[int]]]:
        responses = [await session.post(f"{front.url}/{i}", data=b"%d" % i) for i in range(COUNT)]
        assert all(response.lazy for response in responses)
        await session.gather()
        return [
            (one.status_code, one.json()["subject"], [old.status_code for old in one.history])
            for one in responses
        ]

    assert awaited_lazily(front, credentials, use) == [(200, "alice", [401])] * COUNT
    assert (strict_server.stats.refreshes, strict_server.stats.refused) == (1, COUNT)


def test_a_multiplexed_stream_reaches_the_caller_unread(strict_server: StrictServer, front: Front) -> None:
    credentials = credentials_for(strict_server, origins=[front.url])
    strict_server.expire()

    with lazily(front, credentials) as session:
        response = session.get(f"{front.url}/export?size=300000", stream=True)
        session.gather()
        assert (response.status_code, response._content) == (200, False)
        assert sum(len(chunk) for chunk in response.iter_content(65536)) >= 300_000


# niquests leaves a connection open that a multiplexed redirect was sent by, with keyturn or without.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("awaiting", [False, True], ids=["sync", "async"])
def test_a_multiplexed_redirect_takes_nothing_of_ours_to_another_origin(
    strict_server: StrictServer, other_server: StrictServer, front: Front, tmp_path: Path, awaiting: bool
) -> None:
    (tmp_path / "other").mkdir()
    credentials = cookie_credentials(strict_server, origins=[front.url])
    tokens = credentials.tokens
    assert tokens is not None
    with Front(other_server.url, tmp_path / "other") as other:
        both = tmp_path / "both.pem"
        both.write_bytes(front.ca.read_bytes() + other.ca.read_bytes())
        there = f"{front.url}/redirect/307?to={other.url}/public/there"
        here = f"{front.url}/redirect/307?to=/orders"
        front.ca = both

        async def use(session: Any) -> list[int]:
            session.cookies.set("access_token_cookie", "the-jars")
            responses = [await session.post(url, data=b"x") for url in (there, here)]
            await session.gather()
            return [response.status_code for response in responses]

        if awaiting:
            statuses = awaited_lazily(front, credentials, use)
        else:
            with lazily(front, credentials) as session:
                session.cookies.set("access_token_cookie", "the-jars")
                responses = [session.post(url, data=b"x") for url in (there, here)]
                session.gather()
                statuses = [response.status_code for response in responses]
                del responses

    gc.collect()
    assert statuses == [200, 200]
    (seen,) = other_server.seen
    assert not {"authorization", "cookie", "x-csrf-token"} & set(seen.headers)
    assert strict_server.stats.refused == 0

"""Middleware for aiohttp: what its host does with a request, and that keyturn leaves all of it working."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

import keyturn
from keyturn.client import grants
from keyturn.client.aiohttp import Middleware, load
from keyturn.client.carriers import Bearer, InBody
from keyturn.testing import StrictServer
from tests.client.aiohttp_kit import api_requests, session_for, with_session
from tests.kit import credentials_for, run_in_loop


def cookie_credentials(server: StrictServer, **options: Any) -> keyturn.Credentials:
    grant = grants.Cookies(server.url + "/token/refresh")
    return credentials_for(server, server.sign_in_cookies(), grant=grant, **options)


async def status_of(session: aiohttp.ClientSession, method: str, path: str, **how: Any) -> int:
    async with session.request(method, path, **how) as response:
        await response.read()
        return response.status


# Setting it up


def test_it_takes_nothing_but_credentials() -> None:
    with pytest.raises(keyturn.ConfigurationError, match=r"Middleware takes keyturn\.Credentials, not str"):
        Middleware("token")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "without",
    ["import sys; sys.modules['aiohttp'] = None", "import aiohttp; del aiohttp.ClientRequest.update_body"],
    ids=["missing", "too-old"],
)
def test_without_a_recent_aiohttp_the_import_names_the_install_line(without: str) -> None:
    code = f"""{without}
import keyturn
try:
    import keyturn.client.aiohttp
except keyturn.errors.MissingExtra as error:
    print(error)
"""

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert "aiohttp 3.12.1" in done.stdout
    assert "pip install 'keyturn[aiohttp]'" in done.stdout


def test_a_login_becomes_tokens(strict_server: StrictServer) -> None:
    grant = grants.OAuth2(strict_server.url + "/token", client_id="tests")
    credentials = keyturn.Credentials(grant, origins=[strict_server.url])

    async def use(session: aiohttp.ClientSession) -> int:
        async with session.post("/login", json={"subject": "alice"}, middlewares=()) as response:
            credentials.sign_in(grant.read(await load(response)))
        return await status_of(session, "GET", "/statistics")

    assert with_session(strict_server, credentials, use) == 200
    assert credentials.tokens is not None
    assert credentials.tokens.refresh is not None


def test_a_login_with_cookies_becomes_tokens_whose_csrf_value_goes_along(strict_server: StrictServer) -> None:
    grant = grants.Cookies(strict_server.url + "/token/refresh")
    credentials = keyturn.Credentials(grant, origins=[strict_server.url])

    async def use(session: aiohttp.ClientSession) -> int:
        async with session.post("/login-cookies", json={"subject": "alice"}, middlewares=()) as response:
            credentials.sign_in(grant.read(await load(response)))
        return await status_of(session, "POST", "/orders")

    assert with_session(strict_server, credentials, use) == 200


def test_a_response_without_tokens_is_no_login(strict_server: StrictServer) -> None:
    grant = grants.OAuth2(strict_server.url + "/token", client_id="tests")

    async def use(session: aiohttp.ClientSession) -> None:
        async with session.get("/statistics", middlewares=()) as response:
            grant.read(await load(response))

    with pytest.raises(keyturn.ConfigurationError, match="401"):
        with_session(strict_server, credentials_for(strict_server), use)


# Opting out, and what gives way


def test_a_request_opts_out_with_middlewares_of_its_own(strict_server: StrictServer) -> None:
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=-1.0))

    async def use(session: aiohttp.ClientSession) -> int:
        return await status_of(session, "GET", "/statistics", middlewares=())

    assert with_session(strict_server, credentials, use) == 401
    (seen,) = strict_server.seen
    assert "authorization" not in seen.headers


def test_the_callers_own_authorization_gives_way_at_our_origins_and_is_his_elsewhere(
    strict_server: StrictServer, other_server: StrictServer
) -> None:
    tokens = strict_server.sign_in()
    credentials = credentials_for(strict_server, tokens)
    with_password = URL(strict_server.url).with_user("user").with_password("word")  # as auth= does

    async def use(session: aiohttp.ClientSession) -> list[str]:
        shown = []
        for url in (f"{strict_server.url}/a", f"{other_server.url}/public/a"):
            async with session.get(url, headers={"Authorization": "Basic mine"}) as response:
                shown.append(response.request_info.headers["Authorization"])
        assert await status_of(session, "GET", str(with_password / "b")) == 200
        return shown

    assert with_session(strict_server, credentials, use) == ["Basic mine", "Basic mine"]
    assert [one.headers["authorization"] for one in api_requests(strict_server)] == [
        f"Bearer {tokens.access}",
        f"Bearer {tokens.access}",
    ]
    assert [one.headers["authorization"] for one in other_server.seen] == ["Basic mine"]


def test_cookies_of_the_jar_and_of_the_request_go_along_and_ours_wins_by_name(
    strict_server: StrictServer,
) -> None:
    credentials = cookie_credentials(strict_server)
    assert credentials.tokens is not None

    async def use(session: aiohttp.ClientSession) -> int:
        session.cookie_jar.update_cookies(
            {"theme": "dark", "access_token_cookie": "stale"}, URL(strict_server.url)
        )
        return await status_of(session, "GET", "/statistics", cookies={"page": "2"})

    assert with_session(strict_server, credentials, use) == 200
    (seen,) = api_requests(strict_server)
    cookies = dict(pair.split("=", 1) for pair in seen.headers["cookie"].split("; "))
    assert seen.headers["cookie"].count("access_token_cookie") == 1
    assert cookies["access_token_cookie"] == credentials.tokens.access
    assert (cookies["theme"], cookies["page"]) == ("dark", "2")


def test_cookies_that_the_api_sets_reach_the_callers_jar(strict_server: StrictServer) -> None:
    strict_server.fail_api(200, headers={"Set-Cookie": "seen=yes; Path=/"})

    async def use(session: aiohttp.ClientSession) -> int:
        await status_of(session, "GET", "/first")
        return await status_of(session, "GET", "/second")

    with_session(strict_server, credentials_for(strict_server), use)
    assert strict_server.seen[1].headers["cookie"] == "seen=yes"


# Secrecy


@pytest.mark.parametrize("refused", [False, True], ids=["answered", "replayed"])
@pytest.mark.parametrize("cookies", [False, True], ids=["bearer", "cookies"])
def test_no_token_stays_in_what_aiohttp_shows_of_a_request(
    strict_server: StrictServer, refused: bool, cookies: bool
) -> None:
    credentials = (cookie_credentials if cookies else credentials_for)(strict_server)
    secrets = [credentials.tokens.access if credentials.tokens else ""]
    if refused:
        strict_server.expire()
    own = {"Cookie": "theme=dark", "X-CSRF-TOKEN": "mine"}

    async def use(session: aiohttp.ClientSession) -> str:
        path = "/redirect/307?to=/orders"
        async with session.post(path, json={"a": 1}, headers=own) as response:
            assert response.status == 200
            shown = [response.request_info, *(one.request_info for one in response.history)]
            for info in shown:
                assert {name: info.headers.get(name) for name in own} == own
        strict_server.fail_api(404)
        with pytest.raises(aiohttp.ClientResponseError) as missing:
            await session.get("/missing", raise_for_status=True)
        return f"{shown!r} {missing.value!r} {missing.value.request_info!r}"

    text = with_session(strict_server, credentials, use)
    secrets += [credentials.tokens.access if credentials.tokens else ""]
    assert not [secret for secret in secrets if secret in text]
    assert "Bearer" not in text


# What aiohttp does with a response


@pytest.mark.parametrize("of_the_session", [True, False], ids=["session", "request"])
def test_raise_for_status_sees_the_final_response_only(
    strict_server: StrictServer, of_the_session: bool
) -> None:
    credentials = credentials_for(strict_server)
    how = {} if of_the_session else {"raise_for_status": True}

    async def use(session: aiohttp.ClientSession) -> int:
        strict_server.expire()
        assert await status_of(session, "POST", "/orders", json={}, **how) == 200
        strict_server.fail_api(401, times=2, path="/closed")
        with pytest.raises(aiohttp.ClientResponseError) as refused:
            await status_of(session, "GET", "/closed", **how)
        return refused.value.status

    assert with_session(strict_server, credentials, use, raise_for_status=of_the_session) == 401
    assert strict_server.stats.refreshes == 2


def test_the_total_time_goes_on_while_a_request_waits_and_the_refresh_goes_on_without_it(
    strict_server: StrictServer,
) -> None:
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=-1.0))
    strict_server.hold_refresh("after")

    async def use(session: aiohttp.ClientSession) -> int:
        with pytest.raises(TimeoutError):
            await session.get("/impatient", timeout=aiohttp.ClientTimeout(total=0.05))
        patient = asyncio.create_task(status_of(session, "GET", "/patient"))
        await asyncio.to_thread(strict_server.wait_for, rotations=1)
        strict_server.release()
        return await patient

    assert with_session(strict_server, credentials, use) == 200
    assert [one.path for one in api_requests(strict_server)] == ["/patient"]
    assert (strict_server.stats.refreshes, strict_server.stats.reuses) == (1, 0)


def test_trace_configs_see_one_request_and_each_attempt_of_it(strict_server: StrictServer) -> None:
    told: list[str] = []
    trace = aiohttp.TraceConfig()

    async def start(_: aiohttp.ClientSession, context: SimpleNamespace, params: object) -> None:
        told.append("start")

    async def headers(_: aiohttp.ClientSession, context: SimpleNamespace, params: object) -> None:
        told.append("headers")

    async def end(
        _: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestEndParams
    ) -> None:
        told.append(f"end {params.response.status}")

    trace.on_request_start.append(start)
    trace.on_request_headers_sent.append(headers)
    trace.on_request_end.append(end)
    credentials = credentials_for(strict_server)
    strict_server.expire()

    with_session(
        strict_server, credentials, lambda session: status_of(session, "GET", "/"), trace_configs=[trace]
    )

    assert told == ["start", "headers", "headers", "end 200"]


def test_a_body_that_was_read_for_a_newer_pair_is_still_there_to_be_streamed(
    strict_server: StrictServer,
) -> None:
    strict_server.configure(renews=True)
    names = {
        "access": "tokens.access_token",
        "refresh": "tokens.refresh_token",
        "expires_in": "tokens.expires_in",
    }
    credentials = credentials_for(strict_server, carrier=Bearer(adopt=InBody(names)))
    first = credentials.tokens

    async def use(session: aiohttp.ClientSession) -> list[tuple[int, bytes]]:
        async with session.get("/export?size=300000") as response:
            streamed = b"".join([chunk async for chunk in response.content.iter_chunked(1000)])
        async with session.get("/export?size=300000") as response:
            lines = await response.content.readline()
            return [(len(streamed), streamed[:1]), (len(lines + await response.content.read()), lines[:1])]

    (one, begins), (other, _) = with_session(strict_server, credentials, use)
    assert one > 300_000
    assert other > 300_000
    assert begins == b"{"
    assert credentials.tokens is not first


def test_a_failure_gives_its_connection_back_while_the_error_is_still_held(
    strict_server: StrictServer,
) -> None:
    credentials = credentials_for(strict_server)
    strict_server.expire()
    strict_server.fail_api(401, body=b"x" * 5_000_000)

    async def once() -> AsyncIterator[bytes]:
        yield b"once"

    async def use(session: aiohttp.ClientSession) -> int:
        with pytest.raises(keyturn.NotReplayable) as held:
            await session.post("/upload", data=once())
        async with asyncio.timeout(30):
            status = await status_of(session, "GET", "/statistics")
        assert held.value.status == 401
        return status

    async def main() -> int:
        connector = aiohttp.TCPConnector(limit=1)
        async with session_for(strict_server, credentials, connector=connector) as session:
            return await use(session)

    assert run_in_loop(main) == 200


# Hops and retries


def signing_in(credentials: keyturn.Credentials, bob: list[keyturn.Tokens]) -> aiohttp.ClientMiddlewareType:
    """Return a middleware that signs bob in as soon as an attempt is over."""

    async def sign_in(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        try:
            return await handler(request)
        finally:
            if bob:
                credentials.sign_in(bob.pop())

    return sign_in


@pytest.mark.parametrize("ttl", [None, -1.0], ids=["fresh", "expired"])
@pytest.mark.parametrize("total", [30.0, None], ids=["timed", "untimed"])
def test_a_post_is_not_redirected_as_somebody_else(
    strict_server: StrictServer, ttl: float | None, total: float | None
) -> None:
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=ttl))
    bob = [strict_server.sign_in("bob")]
    timeout = aiohttp.ClientTimeout(total=total)

    async def use(session: aiohttp.ClientSession) -> str:
        with pytest.raises(keyturn.SessionEnded) as ended:
            await session.post("/redirect/307?to=/orders", data=b"alice")
        assert ended.value.reason == "replaced"
        async with session.post("/redirect/307?to=/orders", data=b"bob") as response:  # of the same task
            return str((await response.json())["subject"])

    assert (
        with_session(strict_server, credentials, use, signing_in(credentials, bob), timeout=timeout) == "bob"
    )
    assert [(one.path, one.body) for one in api_requests(strict_server)] == [
        ("/redirect/307", b"alice"),
        ("/redirect/307", b"bob"),
        ("/orders", b"bob"),
    ]


@pytest.mark.parametrize("ttl", [None, -1.0], ids=["fresh", "expired"])
def test_what_aiohttp_sends_again_after_a_lost_connection_is_not_sent_as_somebody_else(
    strict_server: StrictServer, ttl: float | None
) -> None:
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=ttl))
    bob = [strict_server.sign_in("bob")]
    strict_server.drop_api(path="/orders/1")

    async def use(session: aiohttp.ClientSession) -> None:
        await session.put("/orders/1", data=b"alice")

    with pytest.raises(keyturn.SessionEnded):
        with_session(strict_server, credentials, use, signing_in(credentials, bob))
    assert [one.body for one in api_requests(strict_server)] == [b"alice"]


def test_what_aiohttp_sends_again_after_a_lost_connection_carries_its_tokens(
    strict_server: StrictServer,
) -> None:
    strict_server.drop_api(path="/orders/1")

    with_session(
        strict_server,
        credentials_for(strict_server),
        lambda session: status_of(session, "PUT", "/orders/1", data=b"alice"),
    )

    assert [(one.status, one.body) for one in api_requests(strict_server)] == [
        (None, b"alice"),
        (200, b"alice"),
    ]


def test_a_middleware_of_the_callers_that_tries_again_never_sends_as_somebody_else(
    strict_server: StrictServer,
) -> None:
    credentials = credentials_for(strict_server)
    bob = [strict_server.sign_in("bob")]
    strict_server.fail_api(503)

    async def retry(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        if response.status == 503:
            response.release()
            return await handler(request)
        return response

    with pytest.raises(keyturn.SessionEnded):
        with_session(
            strict_server,
            credentials,
            lambda session: status_of(session, "POST", "/orders", data=b"alice"),
            retry,
            signing_in(credentials, bob),
        )
    assert len(api_requests(strict_server)) == 1


def test_two_services_share_a_session_each_with_its_own_tokens(
    strict_server: StrictServer, other_server: StrictServer
) -> None:
    ours, theirs = credentials_for(strict_server), credentials_for(other_server)
    strict_server.expire()
    other_server.expire()

    async def use(session: aiohttp.ClientSession) -> tuple[int, int]:
        there = f"/redirect/307?to={other_server.url}/orders"
        return await status_of(session, "GET", "/statistics"), await status_of(session, "POST", there)

    assert with_session(strict_server, ours, use, Middleware(theirs)) == (200, 200)
    assert (strict_server.stats.refreshes, other_server.stats.refreshes) == (1, 1)
    for server, foreign in ((strict_server, theirs), (other_server, ours)):
        assert foreign.tokens is not None
        assert not [one for one in server.seen if foreign.tokens.access in str(one.headers)]


# Loops


def test_event_loops_with_sessions_of_their_own_share_one_refresh(strict_server: StrictServer) -> None:
    strict_server.configure(ttl=600.0)
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=-1.0))
    middleware = Middleware(credentials)
    together = threading.Barrier(4)

    def loop(_: int) -> list[int]:
        async def main() -> list[int]:
            async with aiohttp.ClientSession(strict_server.url, middlewares=[middleware]) as session:
                together.wait(30)
                calls = (status_of(session, "GET", f"/statistics/{i}") for i in range(25))
                return list(await asyncio.gather(*calls))

        return run_in_loop(main)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(loop, range(4))) == [[200] * 25] * 4
    assert strict_server.stats.refreshes == 1


# WebSockets


class Chat:
    """A server that echoes over a WebSocket, and takes the token "new" only. `seen` is what it was shown."""

    def __init__(self) -> None:
        self.seen: list[str | None] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request.headers.get("Authorization"))
        if self.seen[-1] != "Bearer new":
            return web.json_response({}, status=401)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket


@pytest.mark.parametrize("scheme", ["http", "ws"])
@pytest.mark.parametrize(
    "carrier", [Bearer(), Bearer(adopt=InBody({"access": "access"}))], ids=["plain", "adopting"]
)
def test_the_handshake_of_a_websocket_carries_the_token_and_is_replayed(scheme: str, carrier: Bearer) -> None:
    async def refresh(tokens: keyturn.Tokens, http: object) -> keyturn.Tokens:
        return keyturn.Tokens("new", "refresh")

    async def main() -> tuple[list[str | None], str]:
        chat, app = Chat(), web.Application()
        app.router.add_get("/chat", chat.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        credentials = keyturn.Credentials(
            refresh,
            tokens=keyturn.Tokens("old", "refresh"),
            origins=[f"http://{host}:{port}"],
            carrier=carrier,
        )
        try:
            async with (
                aiohttp.ClientSession(middlewares=[Middleware(credentials)]) as session,
                session.ws_connect(f"{scheme}://{host}:{port}/chat") as socket,
            ):
                await socket.send_str("hello")
                return chat.seen, await socket.receive_str(timeout=10)
        finally:
            await runner.cleanup()

    assert run_in_loop(main) == (["Bearer old", "Bearer new"], "hello")


# Proxies


class Proxy:
    """A proxy that passes plain requests on to one server and opens no tunnel."""

    def __init__(self, to: str) -> None:
        self._to = URL(to)
        self.heads: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if head.startswith(b"CONNECT"):
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        else:
            onward, there = await asyncio.open_connection(self._to.host, self._to.port)
            line, _, rest = head.partition(b"\r\n")
            method, target, version = line.split()
            path = URL(target.decode()).raw_path_qs.encode()
            there.write(b" ".join([method, path, version]) + b"\r\nConnection: close\r\n" + rest)
            writer.write(await onward.read())
            there.close()
            await there.wait_closed()
        await writer.drain()
        writer.close()


def test_a_proxy_passes_the_tokens_on_and_is_told_none_for_a_tunnel(strict_server: StrictServer) -> None:
    tokens = strict_server.sign_in()
    credentials = credentials_for(strict_server, tokens, origins=[strict_server.url, "https://localhost:1"])

    async def use(session: aiohttp.ClientSession) -> list[bytes]:
        proxy = Proxy(strict_server.url)
        listener = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        async with listener:
            url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
            strict_server.expire()
            assert await status_of(session, "GET", "/statistics", proxy=url) == 200
            with pytest.raises(aiohttp.ClientHttpProxyError):
                await session.get("https://localhost:1/statistics", proxy=url)
        return proxy.heads

    refused, answered, tunnel = with_session(strict_server, credentials, use)
    assert f"Bearer {tokens.access}".encode() in refused
    assert credentials.tokens is not None
    assert f"Bearer {credentials.tokens.access}".encode() in answered
    assert tunnel.startswith(b"CONNECT localhost:1 ")
    assert b"Bearer" not in tunnel
    assert strict_server.stats.refreshes == 1

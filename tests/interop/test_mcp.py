"""The MCP SDK's client, given an HTTP client with keyturn's `Auth`, as docs/using-with/mcp.md has it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client import IncomingMessage
from mcp.client.auth import OAuthClientProvider, TokenStorage
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from mcp_types import TextContent, ToolListChangedNotification

import keyturn
from keyturn.client.httpx2 import Auth
from keyturn.testing import StrictServer
from tests.interop.loopback import Loopback, Room, serve
from tests.interop.mcp_server import tools_server
from tests.interop.pages import DOCS, blocks
from tests.kit import credentials_for, run_in_loop
from tests.waiting import until

CALLS = 20
LIMITS = httpx2.Timeout(30, read=300)  # seconds, the SDK's own
SAID = [str(i) for i in range(CALLS)]


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
def api(strict_server: StrictServer, room: Room) -> Iterator[Loopback]:
    with serve(tools_server(room), strict_server) as loopback:
        yield loopback


@pytest.fixture
def pages(strict_server: StrictServer, api: Loopback) -> list[SimpleNamespace]:
    return blocks(DOCS / "using-with/mcp.md", issuer=strict_server.url, api=api.url)


@pytest.fixture
def page(pages: list[SimpleNamespace]) -> SimpleNamespace:
    return pages[0]


async def echo(client: Client, said: str) -> str:
    result = await client.call_tool("echo", {"said": said})
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


def storm(client: Client) -> asyncio.Future[list[str]]:
    return asyncio.gather(*(echo(client, said) for said in SAID))


def test_many_tools_that_are_all_refused_share_one_refresh_and_are_then_open_at_once(
    strict_server: StrictServer, api: Loopback, page: Any, room: Room
) -> None:
    async def main() -> None:
        credentials = page.credentials_for(strict_server.sign_in())
        async with page.connect(credentials) as client:
            await client.list_tools()
            strict_server.expire()
            strict_server.hold_api(CALLS)
            room.lock()
            calls = storm(client)
            await asyncio.to_thread(room.wait_for, CALLS)
            room.unlock()
            assert await calls == SAID

    run_in_loop(main)
    assert strict_server.stats.refreshes == 1
    assert api.answers[401] == CALLS


def test_a_connection_that_begins_with_an_expired_token_refreshes_once_and_is_never_refused(
    strict_server: StrictServer, api: Loopback, page: Any
) -> None:
    async def main() -> None:
        async with page.connect(page.credentials_for(strict_server.sign_in(ttl=0))) as client:
            assert await storm(client) == SAID

    run_in_loop(main)
    assert strict_server.stats.refreshes == 1
    assert api.answers[401] == 0


def test_calls_in_the_air_finish_while_the_refresh_for_others_is_held(
    strict_server: StrictServer, api: Loopback, page: Any, room: Room
) -> None:
    async def main() -> None:
        async with page.connect(page.credentials_for(strict_server.sign_in())) as client:
            await client.list_tools()
            room.lock()
            before = storm(client)
            await asyncio.to_thread(room.wait_for, CALLS)
            strict_server.hold_refresh()
            strict_server.expire()
            after = storm(client)
            await asyncio.to_thread(strict_server.wait_for, refused=CALLS, refreshes=1)

            room.unlock()
            assert await before == SAID  # while nobody has a new token yet
            assert not after.done()
            strict_server.release()
            assert await after == SAID

    run_in_loop(main)
    assert strict_server.stats.refreshes == 1


def test_a_stream_of_events_that_is_open_meanwhile_goes_on_after_the_refresh(
    strict_server: StrictServer, api: Loopback, room: Room
) -> None:
    async def main() -> None:
        credentials = credentials_for(strict_server, origins=[api.url])
        heard = asyncio.Queue[IncomingMessage]()

        async def hear(message: IncomingMessage) -> None:
            await heard.put(message)

        async with (
            httpx2.AsyncClient(auth=Auth(credentials), timeout=LIMITS) as http,
            Client(
                streamable_http_client(api.url + "/mcp", http_client=http),
                mode="legacy",  # in which a GET stays open for what the server has to say
                message_handler=hear,
            ) as client,
        ):
            # The handshake's two messages, and the GET.
            await asyncio.to_thread(until, lambda: api.answers[200] == 3)
            strict_server.expire()
            strict_server.hold_api(CALLS)
            assert await storm(client) == SAID
            await client.call_tool("announce", {})
            assert isinstance(await heard.get(), ToolListChangedNotification)

    run_in_loop(main)
    assert strict_server.stats.refreshes == 1


def test_a_session_that_was_revoked_ends_the_connection_with_the_one_error(
    strict_server: StrictServer, api: Loopback, pages: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work(client: Client) -> None:
        await client.list_tools()
        strict_server.revoke()
        await storm(client)

    connection = pages[0].connect(pages[0].credentials_for(strict_server.sign_in()))
    run_in_loop(lambda: pages[1].run(connection, work))

    assert capsys.readouterr().out == "signed out: sign in, and connect again\n"
    assert strict_server.stats.refreshes == 1


def test_tokens_that_the_sdk_s_own_provider_was_given_go_on_under_keyturn(
    strict_server: StrictServer, api: Loopback, pages: Any
) -> None:
    signed_in = strict_server.sign_in()
    kept = OAuthToken(access_token=signed_in.access, refresh_token=signed_in.refresh, expires_in=60)

    async def main() -> None:
        async with pages[0].connect(pages[0].credentials_for(pages[2].tokens_of(kept))) as client:
            strict_server.expire()
            assert await storm(client) == SAID

    run_in_loop(main)
    assert strict_server.stats.refreshes == 1


class Kept(TokenStorage):
    """The SDK's tokens, from a sign-in long ago."""

    def __init__(self, tokens: keyturn.Tokens) -> None:
        self._tokens = OAuthToken(access_token=tokens.access, refresh_token=tokens.refresh)

    async def get_tokens(self) -> OAuthToken:
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        raise AssertionError("nobody registers a client here")


def test_the_sdk_s_own_provider_lets_one_call_at_a_time_be_open(
    strict_server: StrictServer, api: Loopback, room: Room
) -> None:
    """A fact of the page, about another library: it holds its lock while a request is out."""

    async def main() -> None:
        about = OAuthClientMetadata(redirect_uris=None)
        provider = OAuthClientProvider(api.url + "/mcp", about, Kept(strict_server.sign_in()))
        async with (
            httpx2.AsyncClient(auth=provider, timeout=LIMITS) as http,
            Client(streamable_http_client(api.url + "/mcp", http_client=http)) as client,
        ):
            assert await storm(client) == SAID

    run_in_loop(main)
    assert room.most == 1

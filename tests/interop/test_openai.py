"""The OpenAI SDK, given an HTTP client with keyturn's `Auth`, as docs/using-with/openai.md has it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

import keyturn
from keyturn.testing import StrictServer
from tests.interop.loopback import Loopback, Room, serve
from tests.interop.openai_api import SENTENCE, WORDS, chat_api
from tests.interop.pages import DOCS, blocks
from tests.kit import in_threads, run_in_loop
from tests.waiting import start

CALLS = 50


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
def api(strict_server: StrictServer, room: Room) -> Iterator[Loopback]:
    with serve(chat_api(room), strict_server) as loopback:
        yield loopback


@pytest.fixture
def page(strict_server: StrictServer, api: Loopback) -> SimpleNamespace:
    (block,) = blocks(DOCS / "using-with/openai.md", issuer=strict_server.url, api=api.url)
    return block


def ask(client: OpenAI, text: str) -> str | None:
    completion = client.chat.completions.create(model="parrot", messages=[{"role": "user", "content": text}])
    return completion.choices[0].message.content


async def ask_async(client: AsyncOpenAI, text: str) -> str | None:
    completion = await client.chat.completions.create(
        model="parrot", messages=[{"role": "user", "content": text}]
    )
    return completion.choices[0].message.content


def storm_of_threads(page: Any, credentials: keyturn.Credentials) -> list[str | None]:
    with page.connect(credentials) as client:
        return in_threads(CALLS, lambda i: ask(client, str(i)))


def storm_of_tasks(page: Any, credentials: keyturn.Credentials) -> list[str | None]:
    async def main() -> list[str | None]:
        async with page.connect_async(credentials) as client:
            return await asyncio.gather(*(ask_async(client, str(i)) for i in range(CALLS)))

    return run_in_loop(main)


STORMS = pytest.mark.parametrize("storm", [storm_of_tasks, storm_of_threads], ids=["tasks", "threads"])


@STORMS
def test_many_completions_that_are_all_refused_share_one_refresh_and_are_all_answered(
    strict_server: StrictServer, api: Loopback, page: Any, storm: Any
) -> None:
    credentials = page.credentials_for(strict_server.sign_in())
    strict_server.expire()
    strict_server.hold_api(CALLS)  # all of them are on their way before the first is refused

    assert storm(page, credentials) == [str(i) for i in range(CALLS)]

    assert strict_server.stats.refreshes == 1
    assert api.answers == {401: CALLS, 200: CALLS}


@STORMS
def test_a_token_that_is_known_to_have_expired_is_renewed_before_anything_is_sent(
    strict_server: StrictServer, api: Loopback, page: Any, storm: Any
) -> None:
    credentials = page.credentials_for(strict_server.sign_in(ttl=0))

    assert storm(page, credentials) == [str(i) for i in range(CALLS)]

    assert strict_server.stats.refreshes == 1
    assert api.answers == {200: CALLS}


@STORMS
def test_a_session_that_was_revoked_ends_every_completion_with_the_one_error_after_one_refresh(
    strict_server: StrictServer, api: Loopback, page: Any, storm: Any
) -> None:
    credentials = page.credentials_for(strict_server.sign_in())
    strict_server.revoke()

    with pytest.raises(keyturn.SessionEnded):  # neither wrapped nor retried by the SDK
        storm(page, credentials)

    assert strict_server.stats.refreshes == 1


def test_streams_that_are_refused_share_one_refresh_and_are_then_all_open_at_once(
    strict_server: StrictServer, api: Loopback, page: Any, room: Room
) -> None:
    credentials = page.credentials_for(strict_server.sign_in())
    strict_server.expire()
    strict_server.hold_api(CALLS)
    room.lock()

    with page.connect(credentials) as client:
        streams = start(lambda: in_threads(CALLS, lambda i: stream(client)))
        room.wait_for(CALLS)  # each has sent its first word, and none its second
        room.unlock()

        assert streams.result(60) == [WORDS] * CALLS
    assert strict_server.stats.refreshes == 1


def test_streams_that_are_open_go_on_while_their_token_is_revoked_and_renewed_for_others(
    strict_server: StrictServer, api: Loopback, page: Any, room: Room
) -> None:
    async def main() -> None:
        credentials = page.credentials_for(strict_server.sign_in())
        async with page.connect_async(credentials) as client:
            room.lock()
            streams = [await open_stream(client) for _ in range(5)]
            first = [await anext(stream) for stream in streams]
            strict_server.expire()
            strict_server.hold_api(CALLS)
            storm = asyncio.gather(*(ask_async(client, str(i)) for i in range(CALLS)))
            await asyncio.to_thread(strict_server.wait_for, refused=CALLS, refreshes=1)
            room.unlock()

            assert await storm == [str(i) for i in range(CALLS)]
            for begun, stream in zip(first, streams, strict=True):
                rest = [text(chunk) async for chunk in stream]
                assert "".join([text(begun), *rest]) == SENTENCE

    run_in_loop(main)
    assert strict_server.stats.refreshes == 1


def test_the_key_that_the_sdk_insists_on_is_never_sent(
    strict_server: StrictServer, api: Loopback, page: Any
) -> None:
    tokens = strict_server.sign_in()
    with page.connect(page.credentials_for(tokens)) as client:
        ask(client, "hello")
        ask(client.with_options(api_key="another"), "hello")

    assert [seen.headers["authorization"] for seen in strict_server.seen] == [f"Bearer {tokens.access}"] * 2


def test_retries_of_the_sdk_after_a_429_carry_the_newest_token(
    strict_server: StrictServer, api: Loopback, page: Any
) -> None:
    credentials = page.credentials_for(strict_server.sign_in())
    strict_server.fail_api(429, headers={"retry-after-ms": "1"})
    with page.connect(credentials) as client:
        strict_server.expire()

        assert ask(client, "hello") == "hello"

    assert api.answers == {429: 1, 401: 1, 200: 1}
    assert strict_server.stats.refreshes == 1


def test_a_refresh_that_the_server_cannot_serve_is_keyturn_s_error_and_no_matter_for_the_sdk_s_retries(
    strict_server: StrictServer, api: Loopback, page: Any
) -> None:
    credentials = page.credentials_for(strict_server.sign_in())
    strict_server.expire()
    strict_server.fail_refresh(403)
    with page.connect(credentials) as client, pytest.raises(keyturn.RefreshMisconfigured):
        ask(client, "hello")

    assert strict_server.stats.refreshes == 1
    assert api.answers == {401: 1}


def test_a_refusal_of_the_renewed_token_is_the_sdk_s_own_error(
    strict_server: StrictServer, api: Loopback, page: Any
) -> None:
    credentials = page.credentials_for(strict_server.sign_in())
    strict_server.fail_api(401, times=2)
    with page.connect(credentials) as client, pytest.raises(openai.AuthenticationError):
        ask(client, "hello")

    assert strict_server.stats.refreshes == 1


def test_a_file_that_was_refused_is_sent_again_whole(
    strict_server: StrictServer, api: Loopback, page: Any, tmp_path: Path
) -> None:
    credentials = page.credentials_for(strict_server.sign_in())
    strict_server.expire()
    path = tmp_path / "notes.jsonl"
    path.write_bytes(b"x" * 300_000)
    with page.connect(credentials) as client, path.open("rb") as file:
        assert client.files.create(file=file, purpose="batch").bytes == 300_000

    assert api.answers == {401: 1, 200: 1}


def stream(client: OpenAI) -> list[str]:
    messages: Any = [{"role": "user", "content": "sing"}]
    with client.chat.completions.create(model="parrot", messages=messages, stream=True) as chunks:
        return [word for chunk in chunks if (word := text(chunk))]


async def open_stream(client: AsyncOpenAI) -> openai.AsyncStream[Any]:
    messages: Any = [{"role": "user", "content": "sing"}]
    return await client.chat.completions.create(model="parrot", messages=messages, stream=True)


def text(chunk: Any) -> str:
    return chunk.choices[0].delta.content or ""

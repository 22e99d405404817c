"""Middleware for aiohttp: a refused body is sent again whole, by the bytes that arrived, or not at all."""

from __future__ import annotations

import io
import json
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import payload

import keyturn
from keyturn.client.aiohttp_bodies import is_repeatable
from keyturn.testing import StrictServer
from tests.client.aiohttp_kit import api_requests, with_session
from tests.kit import credentials_for

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes: several of aiohttp's chunks
TEXT = "ü" * 200_000
START = 300_000
LARGE = 20_000_000  # more than the sockets' buffers hold

Request = dict[str, Any]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bodies") / "export.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "export.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def in_memory(start: int = 0) -> io.BytesIO:
    file = io.BytesIO(CONTENT)
    file.seek(start)
    return file


def opened(path: Path, start: int = 0) -> io.BufferedReader:
    """Return a file, read up to `start`; aiohttp closes what it has sent."""
    file = path.open("rb")
    file.seek(start)
    return file


async def chunks() -> AsyncIterator[bytes]:
    yield CONTENT[:START]
    yield CONTENT[START:]


def form(*values: Any) -> aiohttp.FormData:
    fields = aiohttp.FormData({"a": "1"})
    for value in values:
        fields.add_field("upload", value, filename="export.bin")
    return fields


def parts(*values: Any, encoding: str = "") -> aiohttp.MultipartWriter:
    writer = aiohttp.MultipartWriter("mixed", boundary="keyturn")
    for value in values:
        writer.append(value, {"Content-Encoding": encoding} if encoding else {})
    return writer


def posted_twice(server: StrictServer, path: str = "/upload", **request: Any) -> tuple[Any, Any]:
    """Return what arrived of a POST that was refused and sent again."""
    credentials = credentials_for(server)
    server.expire()

    async def use(session: aiohttp.ClientSession) -> int:
        async with session.post(path, **request) as response:
            await response.read()
            return response.status

    assert with_session(server, credentials, use) == 200
    refused, answered = api_requests(server)
    assert (refused.status, answered.status, answered.complete) == (401, 200, True)
    assert server.stats.refreshes == 1
    return refused, answered


def refused_once(server: StrictServer, path: str = "/upload", **request: Any) -> Any:
    """Return what arrived of a POST that was refused and not sent again."""
    credentials = credentials_for(server)
    server.expire()

    async def use(session: aiohttp.ClientSession) -> None:
        await session.post(path, **request)

    with pytest.raises(keyturn.NotReplayable) as raised:
        with_session(server, credentials, use)
    assert (raised.value.method, raised.value.status) == ("POST", 401)
    (refused,) = api_requests(server)
    return refused


class Serialized(payload.BytesPayload):
    """A payload of the user's own that makes bytes, and writes them as aiohttp does."""

    def __init__(self, value: object) -> None:
        super().__init__(json.dumps(value).encode(), content_type="application/json")


WHOLE: dict[str, tuple[Callable[[Path], Any], bytes]] = {
    "bytes": (lambda _: bytearray(b"abc"), b"abc"),
    "text": (lambda _: "ü", "ü".encode()),
    "text-in-memory": (lambda _: io.StringIO(TEXT), TEXT.encode()),
    "in-memory": (lambda _: in_memory(), CONTENT),
    "in-memory-from-the-middle": (lambda _: in_memory(START), CONTENT[START:]),
    "file": (opened, CONTENT),
    "file-from-the-middle": (lambda path: opened(path, START), CONTENT[START:]),
    "raw-file": (lambda path: path.open("rb", buffering=0), CONTENT),
    "serialized": (lambda _: Serialized([1, 2]), b"[1, 2]"),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("chunked", [None, True], ids=["sized", "chunked"])
def test_a_body_is_sent_again_from_where_it_stood(
    strict_server: StrictServer, exported: Path, name: str, chunked: bool | None
) -> None:
    make, expected = WHOLE[name]

    refused, answered = posted_twice(strict_server, data=make(exported), chunked=chunked)

    assert refused.body == expected
    assert answered.body == expected


def test_a_text_file_is_sent_again(strict_server: StrictServer, written: Path) -> None:
    refused, answered = posted_twice(strict_server, data=written.open(encoding="utf-8"))

    assert refused.body == answered.body == TEXT.encode()


def test_a_temporary_file_is_sent_again(strict_server: StrictServer) -> None:
    file = tempfile.SpooledTemporaryFile()  # noqa: SIM115 - aiohttp closes it
    file.write(CONTENT)
    file.seek(START)

    refused, answered = posted_twice(strict_server, data=file)

    assert refused.body == answered.body == CONTENT[START:]


@pytest.mark.parametrize(
    "make",
    [
        lambda path: form(CONTENT, b""),
        lambda path: form(opened(path), in_memory(START), io.StringIO("text")),
        lambda path: parts(b"one", opened(path, START), parts(in_memory(), "two")),
        lambda path: parts(CONTENT, in_memory(), encoding="gzip"),
    ],
    ids=["bytes", "files", "nested", "encoded-parts"],
)
def test_a_form_of_parts_is_sent_again(
    strict_server: StrictServer, exported: Path, make: Callable[[Path], Any]
) -> None:
    refused, answered = posted_twice(strict_server, data=make(exported))

    assert refused.complete
    assert refused.body == answered.body
    assert len(refused.body) > 1000


@pytest.mark.parametrize("make", [lambda _: CONTENT, opened], ids=["bytes", "file"])
def test_a_compressed_body_is_compressed_again(
    strict_server: StrictServer, exported: Path, make: Callable[[Path], Any]
) -> None:
    refused, answered = posted_twice(strict_server, data=make(exported), compress="gzip")

    for one in (refused, answered):
        assert one.headers["content-encoding"] == "gzip"
        assert zlib.decompress(one.body, wbits=31) == CONTENT


@pytest.mark.parametrize("path", ["/upload", "/upload?early=1"], ids=["late", "early"])
def test_a_body_that_waits_for_a_100_waits_for_one_again(strict_server: StrictServer, path: str) -> None:
    refused, answered = posted_twice(strict_server, path, data=CONTENT, expect100=True)

    assert refused.headers["expect"] == answered.headers["expect"] == "100-continue"
    assert refused.body == (b"" if "early" in path else CONTENT)
    assert answered.body == CONTENT


@pytest.mark.parametrize("in_form", [False, True], ids=["file", "form"])
def test_a_refusal_that_comes_before_a_large_body_was_sent_ends_in_all_of_it(
    strict_server: StrictServer, tmp_path: Path, in_form: bool
) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(b"0123456789abcdef" * (LARGE // 16))
    file = path.open("rb")

    _, answered = posted_twice(strict_server, "/upload?early=1", data=form(file) if in_form else file)

    assert path.read_bytes() in answered.body


# Once


class Pipe(io.RawIOBase):
    """A file that cannot seek."""

    def __init__(self) -> None:
        self._file = in_memory()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)


class Liar(Pipe):
    """A file that says that it can seek, and tells where it stands."""

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()


class Progress(payload.BytesIOPayload):
    """A payload of the user's own that writes in its own way: once, for all that anybody knows."""

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        await writer.write(CONTENT)


class Hexadecimal(payload.BytesPayload):
    """Bytes that are written in the user's own way."""

    async def write(self, writer: Any) -> None:
        await writer.write(self._value.hex().encode())


ONCE: dict[str, Callable[[], Any]] = {
    "generator": chunks,
    "generator-in-a-form": lambda: form(chunks()),
    "generator-in-a-nested-part": lambda: parts(b"one", parts(chunks())),
    "pipe": Pipe,
    "pipe-in-a-form": lambda: form(b"one", Pipe()),
    "liar": Liar,
    "progress": lambda: Progress(in_memory()),
}


@pytest.mark.parametrize("name", ONCE)
@pytest.mark.parametrize("path", ["/upload", "/upload?early=1"], ids=["late", "early"])
def test_what_can_be_read_once_is_sent_once(strict_server: StrictServer, name: str, path: str) -> None:
    refused = refused_once(strict_server, path, data=ONCE[name]())

    assert refused.status == 401
    if path == "/upload":
        assert CONTENT in refused.body
    strict_server.wait_for(refreshes=1)  # the refusal was reported


def test_a_file_that_only_says_that_it_can_seek_is_sent_once(strict_server: StrictServer) -> None:
    """Chunked, it is first asked to when it is sent again, and aiohttp would go on where that fails."""
    assert refused_once(strict_server, data=Liar(), chunked=True).body == CONTENT


def test_a_text_file_that_was_iterated_cannot_tell_where_it_stands(
    strict_server: StrictServer, tmp_path: Path
) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("one\ntwo\n", encoding="utf-8")
    with path.open(encoding="utf-8") as file:
        next(file)

        refused_once(strict_server, data=file)


@pytest.mark.parametrize("body", [Progress(in_memory()), Hexadecimal(b"abc")], ids=["file", "bytes"])
def test_a_payload_with_a_way_of_writing_of_its_own_is_not_known_to_be_repeatable(body: Any) -> None:
    assert not is_repeatable(body)


def test_a_closed_file_is_not_repeatable() -> None:
    file = in_memory()
    body = payload.BytesIOPayload(file)
    assert is_repeatable(body)
    file.close()
    assert not is_repeatable(body)


def test_a_stream_reader_is_sent_once(strict_server: StrictServer) -> None:
    """A response that is passed on as it comes."""
    credentials = credentials_for(strict_server)

    async def use(session: aiohttp.ClientSession) -> None:
        async with session.get("/public/source", middlewares=()) as source:
            strict_server.expire()
            await session.post("/upload", data=source.content)

    with pytest.raises(keyturn.NotReplayable):
        with_session(strict_server, credentials, use)
    assert [one.status for one in api_requests(strict_server)] == [200, 401]


@pytest.mark.parametrize("request_", [{}, {"data": None}, {"data": b""}, {"json": {}}], ids=str)
def test_an_empty_body_is_sent_again(strict_server: StrictServer, request_: Request) -> None:
    refused, answered = posted_twice(strict_server, **request_)

    assert refused.body == answered.body
    assert refused.headers.get("content-length") == answered.headers.get("content-length")


class Slow(io.FileIO):
    """A file on a slow disk."""

    def read(self, size: int | None = -1) -> Any:
        time.sleep(0.1)
        return super().read(size)

    def readinto(self, buffer: Any) -> int:
        time.sleep(0.1)
        return super().readinto(buffer)


@pytest.mark.parametrize("kind", ["raw", "buffered", "text"])
@pytest.mark.parametrize("in_form", [False, True], ids=["file", "form"])
def test_a_read_that_outlives_the_refused_attempt_takes_nothing_from_the_next(
    strict_server: StrictServer, written: Path, kind: str, in_form: bool
) -> None:
    file: Any = Slow(written)
    if kind != "raw":
        file = io.BufferedReader(file)
    if kind == "text":
        file = io.TextIOWrapper(file, encoding="utf-8")

    _, answered = posted_twice(
        strict_server, "/upload?early=1", data=form(file) if in_form else file, chunked=True
    )

    assert TEXT.encode() in answered.body

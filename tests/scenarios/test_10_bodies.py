"""Scenario 10: a refused body is sent again whole, by the bytes that the server received, or not at all."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import httpx
import httpx2
import pytest

import keyturn
from keyturn.testing import Seen, StrictServer
from tests.scenarios.callers import FEW, HTTPX, WAYS, Caller, Way, api_requests

CONTENT = bytes(range(256)) * 320  # 80 KiB: more than one chunk
START = 70_000
BOUNDARY = re.compile(rb"multipart/form-data; *boundary=\"?([^\";]+)")

SMALL = {"empty", "form", "text"}

Request = dict[str, Any]
T = TypeVar("T")


class Files:
    """The file on the disk, opened as often as a test asks, and closed after it."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._path, self._stack = path, stack

    def opened(self, start: int = 0) -> Any:
        """Return the file, read up to `start`."""
        file = self._stack.enter_context(self._path.open("rb"))
        file.seek(start)
        return file

    def spooled(self) -> Any:
        """Return a temporary file of the same content."""
        file = tempfile.SpooledTemporaryFile()  # noqa: SIM115 - closed with the stack
        self._stack.callback(file.close)
        file.write(CONTENT)
        file.seek(0)
        return file


def _in_memory(start: int = 0) -> io.BytesIO:
    file = io.BytesIO(CONTENT)
    file.seek(start)
    return file


def _parts(*files: Any) -> Request:
    return {
        "files": [("upload", ("export.bin", file, "text/plain")) for file in files],
        "data": {"a": "1"},
    }


def _from_the_middle(file: Any) -> Request:
    return {"content": file, "headers": {"Content-Length": str(len(CONTENT) - START)}}


REPEATABLE: dict[str, Callable[[Files], Request]] = {
    "empty": lambda _: {},
    "json": lambda _: {"json": {"a": [1, 2, 3], "b": "ü" * 10_000}},
    "form": lambda _: {"data": {"a": "1", "b": "&="}},
    "bytes": lambda _: {"content": CONTENT},
    "text": lambda _: {"content": "ü" * 1000},
    "multipart-bytes": lambda _: _parts(CONTENT, b""),
    "multipart-file": lambda files: _parts(files.opened()),
    "multipart-file-from-the-middle": lambda files: _parts(files.opened(START)),
    "multipart-two-files": lambda files: _parts(files.opened(), _in_memory()),
}
WHERE_TAKEN: dict[str, Callable[[Files], Request]] = {
    "list": lambda _: {"content": [CONTENT[:START], b"", CONTENT[START:]]},
    "file": lambda files: {"content": files.opened()},
    "file-from-the-middle": lambda files: _from_the_middle(files.opened(START)),
    "file-in-memory": lambda _: {"content": _in_memory()},
    "file-in-memory-from-the-middle": lambda _: _from_the_middle(_in_memory(START)),
    "spooled-file": lambda files: {"content": files.spooled()},
}


class Pipe(io.RawIOBase):
    """A file that cannot seek."""

    def __init__(self) -> None:
        self._file = _in_memory()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)


class ReadOnce:
    """What can be read, and says nothing about seeking."""

    def __init__(self) -> None:
        self.read = _in_memory().read

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read(65536):
            yield chunk


class AsyncFile:
    """A file as trio, anyio and aiofiles have them: it says that it can seek, and awaits to do so."""

    def __init__(self) -> None:
        self._file = _in_memory()

    def seekable(self) -> bool:
        return True

    async def tell(self) -> int:
        return self._file.tell()

    async def seek(self, offset: int) -> int:
        return self._file.seek(offset)

    async def aread(self, size: int = -1) -> bytes:
        return self._file.read(size)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.aread(65536):
            yield chunk


class AwaitedFile(AsyncFile):
    """A file that must be awaited even to say that it can seek, as aiofiles'."""

    async def seekable(self) -> bool:  # type: ignore[override]  # that is the trap
        return True


ONCE: dict[str, Callable[[Way], Any]] = {
    "generator": lambda way: way.generator([CONTENT[:START], CONTENT[START:]]),
}
ONCE_WHERE_TAKEN: dict[str, Callable[[Way], Any]] = {
    "iterator": lambda way: iter([CONTENT[:START], CONTENT[START:]]),
    "map": lambda way: map(bytes, [CONTENT[:START], CONTENT[START:]]),
    "pipe": lambda way: Pipe(),
    "read-once": lambda way: ReadOnce(),
    "async-file": lambda way: AsyncFile(),
    "awaited-file": lambda way: AwaitedFile(),
}
LATE, EARLY = "/upload", "/upload?early=1"  # when the refusal comes: after the body, or before it is read
TIMES = [pytest.param(LATE, way, id=str(way)) for way in WAYS]
TIMES += [pytest.param(EARLY, way, id=f"{way}-early") for way in FEW]


def _kinds(always: dict[str, T], where_taken: dict[str, T], way: Way) -> dict[str, T]:
    """Return the bodies that the way's library takes."""
    return always | {name: make for name, make in where_taken.items() if name in way.driver.takes}


def _without_boundary(request: Seen) -> bytes:
    """Return a body with its boundary, which some libraries draw at random, put into a word."""
    boundary = BOUNDARY.search(request.headers.get("content-type", "").encode())
    return request.body if boundary is None else request.body.replace(boundary[1], b"BOUNDARY")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bodies") / "export.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def files(exported: Path) -> Iterator[Files]:
    with ExitStack() as stack:
        yield Files(exported, stack)


@pytest.mark.parametrize(("path", "way"), TIMES)
def test_a_refused_body_that_can_be_repeated_is_sent_again_byte_for_byte(
    strict_server: StrictServer, way: Way, path: str, files: Files, subtests: pytest.Subtests
) -> None:
    credentials = way.credentials(strict_server)
    with Caller(way, strict_server, credentials) as api:
        for name, make in _kinds(REPEATABLE, WHERE_TAKEN, way).items():
            with subtests.test(name):
                strict_server.reset()
                credentials.sign_in(way.sign_in(strict_server))
                assert api.send("POST", "/public/reference", **make(files)).status_code == 200
                strict_server.expire()

                assert api.send("POST", path, **make(files)).status_code == 200

                reference, refused, answered = api_requests(strict_server)
                assert (reference.status, refused.status, answered.status) == (200, 401, 200)
                assert answered.complete
                if path == EARLY and way.driver.library == "aiohttp":  # which stops sending what was refused
                    assert answered.body.startswith(refused.body)
                else:
                    assert refused.complete
                    assert answered.body == refused.body
                assert _without_boundary(answered) == _without_boundary(reference)
                assert len(reference.body) >= len(CONTENT) - START or name in SMALL


@pytest.mark.parametrize(("path", "way"), TIMES)
def test_a_refused_body_that_cannot_be_repeated_is_not_sent_a_second_time(
    strict_server: StrictServer, way: Way, path: str, subtests: pytest.Subtests
) -> None:
    credentials = way.credentials(strict_server)
    with Caller(way, strict_server, credentials) as api:
        for name, make in _kinds(ONCE, ONCE_WHERE_TAKEN, way).items():
            with subtests.test(name):
                strict_server.reset()
                credentials.sign_in(way.sign_in(strict_server))
                strict_server.expire()

                with pytest.raises(keyturn.NotReplayable) as raised:
                    api.send("POST", path, content=make(way))
                assert (raised.value.method, raised.value.status) == ("POST", 401)
                (refused,) = api_requests(strict_server)
                assert refused.status == 401

                strict_server.wait_for(refreshes=1)  # the refusal was reported
                assert api.send("POST", path, content=make(way)).status_code == 200
                _, again = api_requests(strict_server)
                assert (again.status, again.complete) == (200, True)
                assert again.body == CONTENT
                assert strict_server.stats.refreshes == 1


def _library(way: Way) -> Any:
    return {"httpx": httpx, "httpx2": httpx2}[way.driver.library]


def _progress(lib: Any) -> Any:
    """Return a body stream of the user's own, which wraps a file and can be read once."""
    file = _in_memory()
    chunks = iter(lambda: file.read(65536), b"")

    class Progress(lib.SyncByteStream, lib.AsyncByteStream):  # type: ignore[misc]
        def __init__(self) -> None:
            self._stream = file

        def __iter__(self) -> Iterator[bytes]:
            yield from chunks

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for chunk in chunks:
                yield chunk

    return Progress()


@pytest.mark.parametrize("way", HTTPX, ids=str)
def test_a_stream_of_the_users_own_is_taken_for_what_can_be_read_once(
    strict_server: StrictServer, way: Way
) -> None:
    credentials = way.credentials(strict_server)
    strict_server.expire()
    lib = _library(way)

    with Caller(way, strict_server, credentials) as api:
        request = lib.Request(
            "POST",
            strict_server.url + "/upload",
            stream=_progress(lib),
            headers={"Host": "localhost", "Transfer-Encoding": "chunked"},
        )
        sent = api.run(api.client.send(request)) if way.is_async else None
        with pytest.raises(keyturn.NotReplayable):
            _ = api.client.send(request) if sent is None else sent.result(30)

    (refused,) = api_requests(strict_server)
    assert refused.body == CONTENT


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_new_body_waits_for_the_refresh_that_the_refused_one_asked_for(
    strict_server: StrictServer, way: Way
) -> None:
    strict_server.configure(refresh_delay=0.2)
    credentials = way.credentials(strict_server)
    strict_server.expire()

    with Caller(way, strict_server, credentials) as api:
        with pytest.raises(keyturn.NotReplayable):
            api.send("POST", "/upload", content=way.generator([b"first"]))
        assert api.send("POST", "/upload", content=way.generator([b"second"])).status_code == 200

    assert [(one.status, one.body) for one in api_requests(strict_server)] == [
        (401, b"first"),
        (200, b"second"),
    ]
    assert strict_server.stats.refreshes == 1


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_body_that_can_be_sent_once_is_not_spent_on_tokens_that_have_expired(
    strict_server: StrictServer, way: Way
) -> None:
    credentials = way.credentials(strict_server, ttl=-1.0)

    with Caller(way, strict_server, credentials) as api:
        content = way.generator([b"all", b" of ", b"it"])
        assert api.send("POST", "/upload", content=content).status_code == 200

    assert [one.body for one in api_requests(strict_server)] == [b"all of it"]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_refusal_of_superseded_tokens_sends_no_one_shot_body_again_either(
    strict_server: StrictServer, way: Way
) -> None:
    credentials = way.credentials(strict_server)
    carried = credentials.tokens
    assert carried is not None
    strict_server.expire()
    strict_server.hold_api(2)

    with Caller(way, strict_server, credentials) as api:
        upload = api.start("POST", "/upload", content=way.generator([b"all", b" of it"]))
        strict_server.wait_for(api=1)
        credentials.renew(carried)
        strict_server.release()
        assert isinstance(upload.exception(30), keyturn.NotReplayable)

    assert [one.body for one in api_requests(strict_server)] == [b"all of it"]
    assert strict_server.stats.refreshes == 1

"""Bodies: what can be sent again whole, and what is taken for not repeatable."""

from __future__ import annotations

import functools
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keyturn.client.bodies import rewinder

DATA = b"0123456789" * 100
LIBRARIES = pytest.mark.parametrize("lib", [httpx2, httpx], ids=lambda lib: str(lib.__name__))


def request(lib: Any, **body: Any) -> Any:
    """Return a POST of the library's own making."""
    return lib.Request("POST", "https://api.example/", **body)


def sent(stream: Any) -> bytes:
    """Return the bytes that one sending of the stream puts on the wire."""
    return b"".join(stream)


def pieces() -> Iterator[bytes]:
    """Yield a body that is gone once it was read."""
    yield DATA
    yield DATA


REPEATABLE: dict[str, Callable[[], dict[str, Any]]] = {
    "no body": dict,
    "bytes": lambda: {"content": DATA},
    "text": lambda: {"content": "text"},
    "empty": lambda: {"content": b""},
    "json": lambda: {"json": {"a": [1, 2]}},
    "form": lambda: {"data": {"a": "1"}},
    "a list of bytes": lambda: {"content": [DATA, DATA]},
    "a tuple of bytes": lambda: {"content": (DATA, DATA)},
    "a file in memory": lambda: {"content": io.BytesIO(DATA)},
    "multipart of bytes": lambda: {"files": {"upload": DATA}},
    "multipart of a file": lambda: {"files": {"upload": io.BytesIO(DATA)}, "data": {"a": "1"}},
    "multipart of two files": lambda: {"files": [("one", io.BytesIO(DATA)), ("two", io.BytesIO(DATA))]},
}


class Pipe(io.RawIOBase):
    """A file that cannot seek."""

    def __init__(self) -> None:
        self._left = DATA

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


NOT_REPEATABLE: dict[str, Callable[[], dict[str, Any]]] = {
    "a generator": lambda: {"content": pieces()},
    "an iterator over a list": lambda: {"content": iter([DATA])},
    "a map": lambda: {"content": map(bytes, [DATA])},
    "a pipe": lambda: {"content": Pipe()},
    "multipart of a pipe": lambda: {"files": {"upload": Pipe()}},
    "multipart of a file and a pipe": lambda: {"files": [("one", io.BytesIO(DATA)), ("two", Pipe())]},
}


@LIBRARIES
@pytest.mark.parametrize("body", REPEATABLE.values(), ids=REPEATABLE)
def test_a_repeatable_body_is_the_same_bytes_each_time(lib: Any, body: Callable[[], dict[str, Any]]) -> None:
    stream = request(lib, **body()).stream
    rewind = rewinder(stream) if not isinstance(stream, lib.ByteStream) else lambda: None
    assert rewind is not None

    first = sent(stream)
    for _ in range(3):
        rewind()
        assert sent(stream) == first


@LIBRARIES
@pytest.mark.parametrize("body", NOT_REPEATABLE.values(), ids=NOT_REPEATABLE)
def test_what_can_be_read_once_only_is_not_taken_for_repeatable(
    lib: Any, body: Callable[[], dict[str, Any]]
) -> None:
    assert rewinder(request(lib, **body()).stream) is None


@LIBRARIES
def test_an_asynchronous_generator_is_not_taken_for_repeatable(lib: Any) -> None:
    async def later() -> Any:
        yield DATA

    assert rewinder(request(lib, content=later()).stream) is None


@LIBRARIES
@pytest.mark.parametrize("position", [0, 1, 500, len(DATA)])
def test_a_file_is_sent_again_from_where_it_stood_not_from_its_beginning(lib: Any, position: int) -> None:
    file = io.BytesIO(DATA)
    file.seek(position)
    stream = request(lib, content=file).stream
    rewind = rewinder(stream)
    assert rewind is not None

    assert sent(stream) == DATA[position:]
    rewind()
    assert sent(stream) == DATA[position:]


@LIBRARIES
def test_a_file_on_disk_and_a_spooled_one_are_sent_again_whole(lib: Any, tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(DATA)
    with path.open("rb") as on_disk, tempfile.SpooledTemporaryFile() as spooled:
        spooled.write(DATA)
        spooled.seek(0)
        for file in (on_disk, spooled):
            stream = request(lib, content=file).stream
            rewind = rewinder(stream)
            assert rewind is not None
            assert sent(stream) == DATA
            rewind()
            assert sent(stream) == DATA


@LIBRARIES
def test_a_pipe_of_the_operating_system_is_not_taken_for_repeatable(lib: Any) -> None:
    reading, writing = os.pipe()
    os.close(writing)
    with open(reading, "rb") as pipe:  # noqa: PTH123 - a descriptor, not a path
        assert rewinder(request(lib, content=pipe).stream) is None


@LIBRARIES
def test_a_closed_file_is_not_taken_for_repeatable(lib: Any) -> None:
    file = io.BytesIO(DATA)
    stream = request(lib, content=file).stream
    file.close()

    assert rewinder(stream) is None


class Odd:
    """A body that can be iterated, and whose other methods answer or raise as a test says."""

    def __init__(self, answers: dict[str, Any]) -> None:
        for name, answer in answers.items():
            setattr(self, name, functools.partial(self._give, answer))

    def __iter__(self) -> Iterator[bytes]:
        return iter([DATA])

    def _give(self, answer: Any, *_: object) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer


NO = st.sampled_from([OSError("no"), io.UnsupportedOperation("no")])
METHODS = st.fixed_dictionaries(
    {},
    optional={
        "seekable": st.sampled_from([True, False, None, ValueError("closed")]) | NO,
        "tell": st.integers(0, 9) | NO,
        "seek": st.integers(0, 9) | NO,
    },
)


@LIBRARIES
@settings(deadline=None, max_examples=200)
@given(answers=METHODS)
@example(answers={"seekable": True, "tell": OSError("telling position disabled by next() call")})
@example(answers={"seekable": True})
def test_a_file_of_the_users_own_making_is_judged_without_an_error(lib: Any, answers: dict[str, Any]) -> None:
    rewind = rewinder(request(lib, content=Odd(answers)).stream)

    assert rewind is None or answers["seekable"] is True


class Foreign:
    """A stream of some other library's making."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def __iter__(self) -> Iterator[bytes]:
        return iter([DATA])


FOREIGN = {
    "nothing": None,
    "a number": 5,
    "text": "text",
    "a list": [DATA],
    "an object": object(),
    "a stream": Foreign(),
    "a stream over bytes": Foreign(_stream=DATA),
    "a stream over a file": Foreign(_stream=io.BytesIO(DATA)),
    "a form": Foreign(fields=[]),
}


@pytest.mark.parametrize("stream", FOREIGN.values(), ids=FOREIGN)
def test_what_is_not_known_to_be_repeatable_is_taken_for_not_repeatable(stream: object) -> None:
    assert rewinder(stream) is None

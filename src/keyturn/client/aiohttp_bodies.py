"""Bodies of aiohttp: which are sent a second time as they were the first.

aiohttp makes every body a payload. One of bytes is written as often as one
likes, and so is a file that can seek, which aiohttp takes back to where it
stood, and a form of such parts. Of a generator or a stream the second writing
sends nothing, without a word; and nobody knows of a payload that writes in a
way of its own.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import Any, Protocol, cast

from aiohttp import MultipartWriter, payload

Body = payload.Payload | bytes

# Read on threads, which go on after the sending was given up: the lock of a buffered file, or
# ours, has the next sending wait for that. A BytesIO is read in the loop.
_PLAIN = frozenset({bytes, payload.BytesPayload})
_WITHOUT_A_LOCK = frozenset({payload.IOBasePayload, payload.TextIOPayload})
_FILES = _WITHOUT_A_LOCK | {payload.BytesIOPayload, payload.BufferedReaderPayload}


class _File(Protocol):
    def seekable(self) -> bool: ...
    def seek(self, offset: int, /) -> int: ...
    def tell(self) -> int: ...


def is_bytes(body: Body) -> bool:
    """Tell whether a body lies in memory as bytes; an empty one does."""
    if type(body) in _PLAIN:
        return True
    kind, plain = type(body), payload.BytesPayload
    return issubclass(kind, plain) and (
        kind.write is plain.write and kind.write_with_length is plain.write_with_length
    )


def is_repeatable(body: Body) -> bool:
    """Tell whether a body that has not been sent yet can be sent twice."""
    return all(is_bytes(part) or (type(part) in _FILES and _seeks(part)) for part in _parts(body))


def keep_apart(body: Body) -> None:
    """Have a file's second reading wait for what is left of its first."""
    for part in _parts(body):
        if isinstance(part, payload.IOBasePayload) and type(part) in _WITHOUT_A_LOCK:
            part._value = cast(io.IOBase, _Locked(part._value))


def _parts(body: Body) -> Iterator[Body]:
    """Yield a body, or the parts of a form and of the forms in it."""
    if type(body) is MultipartWriter:
        for part, *_ in body:
            yield from _parts(part)
    else:
        yield body


def _seeks(body: Body) -> bool:
    """Tell whether a file can seek, by doing it: where that fails, aiohttp sends what is left."""
    file = cast(_File, cast(payload.Payload, body)._value)
    try:
        file.seek(file.tell())
        return file.seekable()
    except (AttributeError, OSError, TypeError, ValueError):
        return False


class _Locked:
    """A file whose methods wait for each other."""

    def __init__(self, file: Any) -> None:
        self._file, self._lock = file, threading.Lock()

    def read(self, size: int = -1) -> Any:
        with self._lock:
            return self._file.read(size)

    def seek(self, offset: int) -> int:
        with self._lock:
            return cast(int, self._file.seek(offset))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

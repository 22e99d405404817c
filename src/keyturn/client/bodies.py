"""Bodies: whether what was sent once can be sent again, whole.

httpx and httpx2 send a stream. Bytes can be sent again, and so can a file
that can seek, from where it stood, and a form of such parts. A generator cannot:
its second run is empty. Nor can what is read by awaiting, for it would have
to be rewound by awaiting. What is not known to be repeatable, such as a
stream of the user's own, is taken for not repeatable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

_LIBRARIES = frozenset({"httpx", "httpx2"})


class _File(Protocol):
    def seekable(self) -> bool: ...
    def seek(self, offset: int, /) -> int: ...
    def tell(self) -> int: ...


def rewinder(stream: object) -> Callable[[], None] | None:
    """Return what makes `stream` start anew, None where nothing does. Call it before the first sending."""
    if type(stream).__module__.partition(".")[0] not in _LIBRARIES or not hasattr(stream, "__iter__"):
        return None
    fields = getattr(stream, "fields", None)
    if isinstance(fields, list):  # a multipart form, which rewinds its files by itself
        return _nothing if all(_repeatable(getattr(field, "file", b"")) for field in fields) else None
    source = getattr(stream, "_stream", None)
    if isinstance(source, bytes | list | tuple):
        return _nothing
    if source is not None and _repeatable(source):
        file = cast(_File, source)
        try:
            start = file.tell()
        except (AttributeError, OSError, ValueError):
            return None
        return lambda: (file.seek(start), None)[1]
    return None


def _repeatable(source: object) -> bool:
    if isinstance(source, bytes | str):
        return True
    try:
        return bool(cast(_File, source).seekable())
    except (AttributeError, OSError, ValueError):
        return False


def _nothing() -> None:
    """Rewind what needs no rewinding."""

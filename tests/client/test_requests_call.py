"""One prepared request as authflow sees it: which origin it is bound for, and if its body can go twice."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from keyturn.client.carriers import Bearer
from keyturn.client.origins import parse_origins
from keyturn.client.requests_call import PreparedCall, origin_of, prefixes
from tests.client.requests_kit import Library, both

OURS = parse_origins(["https://api.example", "http://127.0.0.1:8080", "https://[::1]:8443"])


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example/",
        "https://api.example",
        "https://api.example?x=/",
        "https://api.example#x",
        "https://api.example:443/a",
        "HTTPS://API.example/a",
        "https://user:secret@api.example/a",
        "http://127.0.0.1:8080/a",
        "https://[::1]:8443/a",
    ],
)
def test_a_url_of_ours_is_known_as_ours(url: str) -> None:
    assert origin_of(url) in OURS


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example/",
        "https://api.example:8443/",
        "https://api.example.other.example/",
        "https://api.example@other.example/",
        "https://other.example/@api.example/",
        "https://other.example?@api.example/",
        "https://other.example#@api.example/",
        "https://other.example\\@api.example/",
        "https://other.example\\.api.example/",
        "https://api.example\\.other.example/",
        "https://user@other@api.example/",
        "https:///api.example/",
        "https:/api.example/",
        "https:api.example",
        "https://api%2eexample/",
        "https://\u0430pi.example/",
        "https://api.example\t.other.example/",
        "https://api.example:443x/",
        "https://api.example:99999999/",
        "https://[::1]/",
        "https://[::1]:8443.other.example/",
        "ftp://api.example/",
        "https+unix://api.example/",
        " https://api.example/",
        "",
        "/a",
    ],
)
def test_what_could_be_read_as_another_origin_is_not_ours(url: str) -> None:
    assert origin_of(url) not in OURS
    assert not url.startswith(prefixes(OURS))


def test_a_url_begins_with_an_origin_of_ours_only_if_it_is_one() -> None:
    for prefix in prefixes(OURS):
        assert prefix.endswith("/")
        assert origin_of(prefix + "a") in OURS


def test_the_destination_that_a_warning_names_holds_no_password() -> None:
    for url, shown in (
        ("https://user:secret@Other.example:8443/path?q=1", "https://other.example:8443"),
        ("https://[::1]/", "https://[::1]"),
        ("https://user:se\\cret@other.example/", "a URL without an origin"),
    ):
        request: Any = type("Request", (), {"url": url, "headers": {}, "body": None, "method": "GET"})()
        assert PreparedCall(request, Bearer(), sent=False).destination == shown


# Bodies


class NoSeek(io.BytesIO):
    def seekable(self) -> bool:
        return False


class Awaited:
    """A file that must be awaited."""

    async def seekable(self) -> bool:
        return True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"x"


class Untold(io.BytesIO):
    """A file that does not say where it stands."""

    def tell(self) -> int:
        raise OSError


def _iterated() -> Iterator[bytes]:
    yield b"x"


class Again:
    """What can be iterated again, but says nothing of it."""

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"x"])


BODIES: dict[str, tuple[Callable[[], Any], bool]] = {
    "nothing": (lambda: None, True),
    "bytes": (lambda: b"x", True),
    "text": (lambda: "x", True),
    "array": (lambda: bytearray(b"x"), True),
    "form": (lambda: {"a": "b"}, True),
    "file": (lambda: io.BytesIO(b"x"), True),
    "pipe": (lambda: NoSeek(b"x"), False),
    "untold": (lambda: Untold(b"x"), False),
    "awaited": (Awaited, False),
    "generator": (_iterated, False),
    "iterator": (lambda: iter([b"x"]), False),
    "iterable": (Again, False),
}


@both
@pytest.mark.parametrize("name", BODIES)
def test_a_body_is_replayable_if_the_bytes_are_sure_to_come_again(library: Library, name: str) -> None:
    body, expected = BODIES[name]
    request = library.lib.Request("POST", "https://api.example/", data=body()).prepare()

    assert PreparedCall(request, Bearer(), sent=False).replayable() is expected

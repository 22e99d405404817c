"""A request and its answer, as the rules see them, whatever carries them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


class Connection(Protocol):
    """What a request came on. `serial` tells it from all others."""

    serial: int

    async def read_body(self, request: Request) -> None:
        """Read what is left of the body, into the request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back. Headers are pairs, because Set-Cookie occurs more than once."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


def json_answer(status: int, content: Mapping[str, object], *headers: tuple[str, str]) -> Answer:
    """Return an answer with a JSON body."""
    return Answer(status, json.dumps(content).encode(), (("Content-Type", "application/json"), *headers))


@dataclass(slots=True, eq=False, repr=False)
class Request:
    """A request, and what became of it.

    `body` is what has arrived so far, `complete` says whether that is all.
    `status` and the times are noted by whoever answers.
    """

    connection: Connection
    method: str
    path: str
    query: str
    headers: dict[str, str]
    at: float
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False
    status: int | None = None
    answered_at: float | None = None

    async def read(self) -> bytes:
        """Return the whole body, once all of it is there."""
        await self.connection.read_body(self)
        return bytes(self.body)

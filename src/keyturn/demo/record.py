"""What was seen on the wire, as plain data.

A *lane* is one run of one client: the *calls* that a page made, and the
physical *requests* that it took to answer them. Everything that the demo says
is computed here, from what was recorded; nothing is known beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["call", "refresh", "replay"]


@dataclass(frozen=True, slots=True)
class Request:
    """One physical request. Times are in milliseconds, on the lane's own clock.

    `call` is the index of the call that it was sent for, None where it was
    sent for everybody. `status` is None if no answer came.
    """

    name: str
    kind: Kind
    start: float
    end: float
    status: int | None
    call: int | None = None

    @property
    def answered(self) -> bool:
        """Tell whether the server gave what was asked for."""
        return _success(self.status)

    def as_json(self) -> Mapping[str, object]:
        """Return what `keyturn demo --json` says about a request."""
        return {
            "name": self.name,
            "kind": self.kind,
            "start_ms": round(self.start, 1),
            "end_ms": round(self.end, 1),
            "status": self.status,
        }


@dataclass(frozen=True, slots=True)
class Call:
    """What the page asked for, and the status that it was given in the end; None if it got an exception."""

    name: str
    status: int | None

    @property
    def answered(self) -> bool:
        """Tell whether the page got what it asked for."""
        return _success(self.status)


@dataclass(frozen=True, slots=True)
class Lane:
    """One client's run.

    `signed_in` is the server's word, asked for after the last call: did it
    still accept what the client kept? `refusals` are the server's codes for the
    refresh tokens that it refused.
    """

    client: str
    calls: tuple[Call, ...]
    requests: tuple[Request, ...]
    signed_in: bool
    refusals: frozenset[str] = frozenset()

    @property
    def refreshes(self) -> int:
        """Count the refresh requests that were sent, whatever came of them."""
        return sum(request.kind == "refresh" for request in self.requests)

    @property
    def answered(self) -> int:
        """Count the calls that the page got an answer to."""
        return sum(call.answered for call in self.calls)

    @property
    def end(self) -> float:
        """Return when the last request ended, in milliseconds."""
        return max((request.end for request in self.requests), default=0.0)

    def as_json(self) -> Mapping[str, object]:
        """Return what `keyturn demo --json` says about a lane."""
        return {
            "refreshes": self.refreshes,
            "answered": self.answered,
            "of": len(self.calls),
            "signed_in": self.signed_in,
            "requests": [request.as_json() for request in self.requests],
        }


def from_first(requests: Iterable[Request]) -> tuple[Request, ...]:
    """Return the requests in the order of their start, on a clock that starts with the first."""
    ordered = sorted(requests, key=lambda request: (request.start, request.end))
    if not ordered:
        return ()
    zero = ordered[0].start
    return tuple(replace(one, start=one.start - zero, end=one.end - zero) for one in ordered)


def _success(status: int | None) -> bool:
    return status is not None and 200 <= status < 300

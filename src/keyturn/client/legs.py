"""Legs: the journey of a request whose library sends it by itself.

Some libraries let an auth write into a request, send it, and tell of the
answer by a hook. There the journey comes in legs: `embark` before the library
sends, `land` when it tells of the answer, which goes on as `authflow` where
that is a refusal. Nobody tells of a request that failed, so that nothing may
be held between the legs which others wait for without limit: a place in the
turnstile is given up before the request leaves, and a departure is noted to
be over once the request is forgotten.
"""

from __future__ import annotations

from collections import deque
from typing import TypeVar

from keyturn.client.authflow import Call, Journey, adopt, authflow, depart, redeem
from keyturn.client.credentials import Credentials
from keyturn.client.snapshot import Snapshot

Response = TypeVar("Response")

_forgotten: deque[tuple[Credentials, Snapshot]] = deque()


class Departure:
    """A request on its way, where every answer renews, until it is answered or forgotten."""

    __slots__ = ("_credentials", "_snapshot")

    def __init__(self, credentials: Credentials, snapshot: Snapshot) -> None:
        self._credentials = credentials
        self._snapshot: Snapshot | None = snapshot

    def arrive(self) -> None:
        """Note, once, that the answer is here and that a newer pair in it has been adopted."""
        if self._snapshot is not None:
            snapshot, self._snapshot = self._snapshot, None
            self._credentials.departures.arrive(snapshot)

    def __del__(self) -> None:
        # The garbage collector may run this anywhere, under any lock: it only leaves word.
        if self._snapshot is not None:
            _forgotten.append((self._credentials, self._snapshot))


class Embarked:
    """What a request left with: its tokens, and whether it waited for a refresh to get them."""

    __slots__ = ("departure", "renewed", "snapshot")

    def __init__(self, snapshot: Snapshot, *, renewed: bool = False) -> None:
        self.snapshot, self.renewed = snapshot, renewed
        self.departure: Departure | None = None


def embark(credentials: Credentials, call: Call[Response]) -> Journey[Embarked]:
    """Attach the tokens to leave with to a request for one of our origins. Raises as `get_tokens`."""
    _remember_the_forgotten()
    before = credentials.tokens
    snapshot = yield from redeem(credentials.ticket(once=not call.replayable()))
    embarked = Embarked(snapshot, renewed=before is not None and snapshot.supersedes(before))
    if credentials.carrier.renews:
        if credentials.turnstile.crowded:
            turn = credentials.turnstile.enter()
            try:
                yield turn
            finally:
                credentials.turnstile.leave(turn)
            snapshot = credentials.successor(snapshot)
        embarked.snapshot = yield from depart(credentials, snapshot)
        embarked.departure = Departure(credentials, embarked.snapshot)
    call.attach(embarked.snapshot)
    return embarked


def land(
    credentials: Credentials, call: Call[Response], embarked: Embarked, response: Response
) -> Journey[Response]:
    """Take on what became of a request: adopt, hand over, or go on with a refusal as `authflow` does."""
    _remember_the_forgotten()
    departure, embarked.departure = embarked.departure, None
    try:
        if credentials.carrier.adopts:
            yield from adopt(credentials, call, response, embarked.snapshot)
    finally:
        if departure is not None:
            departure.arrive()
    if not call.refused(response):
        return response
    refused = embarked.snapshot, response
    return (yield from authflow(credentials, call, refused, renewed=embarked.renewed))


def _remember_the_forgotten() -> None:
    while _forgotten:
        try:
            credentials, snapshot = _forgotten.popleft()
        except IndexError:  # another thread was faster
            return
        credentials.departures.arrive(snapshot)

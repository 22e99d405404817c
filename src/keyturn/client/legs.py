"""Legs: the journey of a request whose library sends it by itself.

Some libraries let an auth write into a request, send it, and tell of the
answer by a hook. There the journey comes in legs: `embark` before the library
sends, `land` when it tells of the answer, which goes on as `authflow` where
that is a refusal.

Nobody tells of a request that failed. So a place in the turnstile is given up
before the request leaves; and a request that is noted to be on its way is
taken to be over when the thread or task that sent it has ended, or sends
another.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any, TypeVar

from keyturn.client.authflow import Call, Journey, adopt, authflow, depart, equip
from keyturn.client.credentials import Credentials
from keyturn.client.snapshot import Snapshot

Response = TypeVar("Response")
Sender = threading.Thread | asyncio.Task[Any]


class Departure:
    """A request on its way, where every answer renews, until it arrives or its sender goes on without it."""

    __slots__ = ("_credentials", "_sender", "_snapshot")

    def __init__(self, credentials: Credentials, snapshot: Snapshot) -> None:
        self._credentials, self._snapshot = credentials, snapshot
        self._sender = sender = _sender()
        _arrive_for(sender)
        _under_way[self] = None

    def has_failed(self, sender: Sender | None) -> bool:
        """Tell whether nobody waits for the answer any more, also because its sender sends another now."""
        mine = self._sender
        ended = mine.done() if isinstance(mine, asyncio.Task) else not mine.is_alive()
        return ended or mine is sender

    def arrive(self) -> None:
        """Note, once, that the answer is here and that a newer pair in it has been adopted."""
        if _under_way.pop(self, self) is None:
            self._credentials.departures.arrive(self._snapshot)


_under_way: dict[Departure, None] = {}  # each step on it is atomic, so that no fork can catch a lock held


class Embarked:
    """What a request left with: its tokens, and whether it waited for a refresh to get them."""

    __slots__ = ("departure", "renewed", "snapshot")

    def __init__(self, snapshot: Snapshot, *, renewed: bool = False) -> None:
        self.snapshot, self.renewed = snapshot, renewed
        self.departure: Departure | None = None


def embark(credentials: Credentials, call: Call[Response]) -> Journey[Embarked]:
    """Attach the tokens to leave with to a request for one of our origins. Raises as `get_tokens`."""
    snapshot, renewed = yield from equip(credentials, call)
    embarked = Embarked(snapshot, renewed=renewed)
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
    departure, embarked.departure = embarked.departure, None
    _arrive_for()
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


def _sender() -> Sender:
    """Return the task that is running, the thread where none is."""
    try:
        return asyncio.current_task() or threading.current_thread()
    except RuntimeError:
        return threading.current_thread()


def _arrive_for(sender: Sender | None = None) -> None:
    """Note that the requests have failed whose senders have ended, or are about to send another."""
    for one in list(_under_way):
        if one.has_failed(sender):
            one.arrive()

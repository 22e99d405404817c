"""What happens to one request: attach, judge, replay or not. No I/O.

`authflow` is the whole journey as a generator. It yields what its driver must
do, and the driver alone knows a blocking call from an awaiting one:

    a Ticket or a Gate      wait for it; a Ticket's snapshot is sent back (a Patience is a Gate's)
    Step.SEND               send the request; the response is sent back
    Step.READ               read the response's body, which holds a newer pair
    Step.RELEASE            read or close the refused response, so that its connection is free

The rules for a refused request, judged at its final URL:

1. A refusal by an origin that is not ours is nobody's business.
2. A request that lost its token on the way, by a redirect, gets it attached and
   is sent; nothing is refreshed.
3. A refusal of superseded tokens is replayed with the current ones, while there
   is such progress, within a bound; after the second time one at a time. Where
   every answer carries a new pair, a refusal is judged when the other requests
   with the same tokens have been answered: one of them may have brought it.
4. A refusal of the current tokens is reported once. What a refresh brings is
   tried; if that is refused, the caller gets the response.
5. Before anything is renewed or sent again, the body must be one that can be
   sent again whole. Otherwise the refusal is reported, and NotReplayable raised.
6. Nothing crosses an epoch.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Generator
from typing import Protocol, TypeVar, cast

from keyturn.client.answer import Answer
from keyturn.client.credentials import Credentials
from keyturn.client.gate import Gate, Patience
from keyturn.client.snapshot import Snapshot
from keyturn.client.ticket import Ticket
from keyturn.errors import NotReplayable, RefreshError

MOST_REPLAYS = 10
_IN_PARALLEL = 2

Response = TypeVar("Response")
Result = TypeVar("Result")
Received = TypeVar("Received", contravariant=True)


class Step(enum.Enum):
    """What a driver must do next, beside waiting."""

    SEND = enum.auto()
    READ = enum.auto()
    RELEASE = enum.auto()


class Verdict(enum.Enum):
    """What becomes of a refused request."""

    HAND_OVER = "the caller gets the response"
    REPLAY = "send it again with the current tokens"
    RENEW = "report the refusal, and send it again with what comes"


Journey = Generator[Step | Ticket | Gate | Patience, object, Result]


class Call(Protocol[Received]):
    """One request, as an adapter shows it. Each method is a translation and does no I/O."""

    @property
    def method(self) -> str:
        """Return the method of the request as it stands."""
        ...

    @property
    def destination(self) -> str:
        """Return the origin that the request is bound for, as in "https://api.example"."""
        ...

    def serves(self, credentials: Credentials) -> bool:
        """Tell whether the request is bound for one of the credentials' origins."""
        ...

    def attach(self, snapshot: Snapshot) -> None:
        """Write the tokens into the request, and rewind its body if it was sent before."""
        ...

    def withhold(self) -> None:
        """Take out of a request to another origin what is ours."""
        ...

    def refused(self, response: Received) -> bool:
        """Tell whether the response refuses the tokens."""
        ...

    def arrived_at(self, response: Received) -> None:
        """Go on from the request that was answered, which after a redirect is not the one that was sent."""
        ...

    def carries(self, snapshot: Snapshot) -> bool:
        """Tell whether the request still carries the tokens."""
        ...

    def replayable(self) -> bool:
        """Tell whether the body can be sent again, whole."""
        ...

    def status(self, response: Received) -> int:
        """Return the status."""
        ...

    def answer(self, response: Received) -> Answer:
        """Return the response as a carrier reads it."""
        ...


def judge(
    *, carried: bool, snapshot: Snapshot, current: Snapshot | None, renewed: bool, replays: int
) -> Verdict:
    """Return what becomes of a request that one of our origins refused.

    `carried` tells whether it still carried `snapshot` when it was refused,
    `renewed` whether a refresh was already made for it. Tokens that another
    process has bought may be from long before, and be refused as well: found
    once, they are no refresh.
    """
    if replays >= MOST_REPLAYS:
        return Verdict.HAND_OVER
    if current is None or current.epoch != snapshot.epoch:
        return Verdict.RENEW  # which raises what has become of that sign-in
    if not carried or current.generation > snapshot.generation:
        return Verdict.REPLAY
    return Verdict.HAND_OVER if renewed else Verdict.RENEW


def authflow(
    credentials: Credentials,
    call: Call[Response],
    refused: tuple[Snapshot, Response] | None = None,
    *,
    renewed: bool = False,
) -> Journey[Response]:
    """Take one request through; return the response for the caller. Raises as `Credentials.get_tokens`.

    A driver may send a request that needs no thought by itself, and take the
    journey only for a refusal: `refused` is what it attached and what came of
    it, `renewed` whether it waited for a refresh to get what it attached.
    """
    if refused is not None:
        snapshot, first = refused
    elif not call.serves(credentials):
        call.withhold()
        credentials.strayed(call.destination)
        return cast(Response, (yield Step.SEND))
    else:
        snapshot, renewed = yield from equip(credentials, call)
    replays, found = 0, False
    turn: Gate | None = None
    try:
        while True:
            if refused is not None:
                response, refused = first, None
            else:
                if credentials.carrier.renews:
                    if turn is None and credentials.turnstile.crowded:
                        turn = credentials.turnstile.enter()
                        yield turn
                        snapshot = credentials.successor(snapshot)
                    snapshot = yield from depart(credentials, snapshot)
                response = yield from _send(credentials, call, snapshot)
            if not call.refused(response):
                return response
            call.arrived_at(response)
            if not call.serves(credentials):
                credentials.strayed(call.destination)
                return response
            carried = call.carries(snapshot)
            if credentials.carrier.renews and call.replayable():
                yield from _others_answered(credentials, snapshot)
            current = credentials.tokens
            verdict = judge(
                carried=carried, snapshot=snapshot, current=current, renewed=renewed, replays=replays
            )
            if verdict is Verdict.HAND_OVER:
                return response
            if not call.replayable():
                raise _not_replayable(credentials, snapshot, verdict, call.method, call.status(response))
            yield Step.RELEASE
            if verdict is Verdict.RENEW:
                ticket = credentials.refusal_ticket(snapshot)
                snapshot = yield from redeem(ticket)
                renewed, found = found or not ticket.has_found, ticket.has_found
            else:
                if replays >= _IN_PARALLEL and turn is None:
                    turn = credentials.turnstile.enter()
                    yield turn
                snapshot = credentials.successor(snapshot)
            replays += 1
            credentials.replayed(snapshot, replays)
    finally:
        if turn is not None:
            credentials.turnstile.leave(turn)


def equip(credentials: Credentials, call: Call[Response]) -> Journey[tuple[Snapshot, bool]]:
    """Return the tokens to leave with, and whether a refresh was waited for to get them."""
    before = credentials.tokens
    ticket = credentials.ticket(once=not call.replayable())
    snapshot = yield from redeem(ticket)
    return snapshot, before is not None and snapshot.supersedes(before) and not ticket.has_found


def _send(credentials: Credentials, call: Call[Response], snapshot: Snapshot) -> Journey[Response]:
    """Send with these tokens, and adopt the newer pair that the answer may carry."""
    carrier = credentials.carrier
    if not carrier.adopts:
        call.attach(snapshot)
        return cast(Response, (yield Step.SEND))
    try:
        call.attach(snapshot)
        response = cast(Response, (yield Step.SEND))
        yield from adopt(credentials, call, response, snapshot)
    finally:
        if carrier.renews:
            credentials.departures.arrive(snapshot)
    return response


def adopt(
    credentials: Credentials, call: Call[Response], response: Response, snapshot: Snapshot
) -> Journey[None]:
    """Adopt the newer pair that the answer to a request with these tokens may carry."""
    carrier = credentials.carrier
    if not call.refused(response) and _is_ours(credentials, call, response):
        if carrier.body:
            yield Step.READ
        pair = carrier.adopt(call.answer(response), snapshot)
        if pair is not None:
            credentials.adopt(pair, snapshot)


def depart(credentials: Credentials, snapshot: Snapshot) -> Journey[Snapshot]:
    """Return the tokens to leave with, which are noted to be on their way."""
    if not credentials.depart(snapshot):
        yield from redeem(credentials.ticket())
        snapshot = credentials.successor(snapshot)  # never that of another sign-in
        credentials.departures.depart(snapshot)
    return snapshot


def _others_answered(credentials: Credentials, snapshot: Snapshot) -> Journey[None]:
    """Wait until no other request is on its way with these tokens, or a newer pair is here."""
    wait = credentials.on_their_way(snapshot)
    if wait is not None:
        yield Step.RELEASE
        yield wait


def _is_ours(credentials: Credentials, call: Call[Response], response: Response) -> bool:
    """Tell whether one of our origins answered; after a redirect it may have been another."""
    call.arrived_at(response)
    return call.serves(credentials)


def redeem(ticket: Ticket) -> Journey[Snapshot]:
    """Wait for what the ticket is for, and return it."""
    return ticket.redeem() if ticket.gate is None else cast(Snapshot, (yield ticket))


def _not_replayable(
    credentials: Credentials, snapshot: Snapshot, verdict: Verdict, method: str, status: int
) -> NotReplayable:
    """Report the refusal without waiting for what comes of it, and return the error to raise."""
    if verdict is Verdict.RENEW:
        with contextlib.suppress(RefreshError):  # told to whoever sends the request anew; an end is told now
            credentials.refusal_ticket(snapshot)
    return NotReplayable(
        f"the {method} was refused ({status}) and its body cannot be sent again; "
        "the refusal has been reported: send the request anew",
        method=method,
        status=status,
    )

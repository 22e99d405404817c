"""Entry: one name's record in a token store, read and written as snapshots.

This is where times change clocks: a record's are the store's, a snapshot's
are this process's own, and a reading shows both at one moment.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from keyturn.client.errand import unforeseen
from keyturn.client.record import EndedWhy, Failure, Marker, Record, Version, fingerprint
from keyturn.client.sealing import Sealing
from keyturn.client.shelf import shelf
from keyturn.client.snapshot import Snapshot
from keyturn.client.token_stores import Lease, TokenStore, place
from keyturn.clocks import monotonic
from keyturn.errors import (
    KeyturnError,
    OutcomeUnknown,
    RefreshError,
    RefreshMisconfigured,
    RefreshUnavailable,
    SessionEnded,
)

_OVER: dict[EndedWhy, str] = {
    "signed_out": "somebody signed out, for every process that shares this session: sign in again",
    "refused": "the session has ended, as another process was told: sign in again",
}
_UNUSED = (
    "; tokens= only seeds a name that the store knows nothing of: call sign_in with them, say reseed=True,"
    " or have an operator forget the name (keyturn tokens remove --forget)"
)


@dataclass(frozen=True, slots=True)
class Seen:
    """A record as it was read, the snapshot in it, and what the clocks showed then.

    `began` and `ended` are when the reading did, on the clock that waits are
    measured by. The store's time is from somewhere between the two.
    """

    record: Record | None
    tokens: Snapshot | None
    store_now: float
    began: float
    ended: float

    def now(self) -> float:
        """Return what the store's clock shows now at the latest: nothing counts as younger than it is."""
        return self.store_now + monotonic() - self.began

    def earliest_now(self) -> float:
        """Return what it shows now at the earliest, for what is written down as begun, or as valid until."""
        return self.store_now + monotonic() - self.ended

    @property
    def version(self) -> Version | None:
        """Return the record's version, None where there is none."""
        return None if self.record is None else self.record.version

    @property
    def marker(self) -> Marker | None:
        """Return the record's marker, None where there is none."""
        return None if self.record is None else self.record.marker


class Entry:
    """One name in the store that a URL names."""

    def __init__(self, url: str, name: str, sealing: Sealing, clock: Callable[[], float]) -> None:
        self.name, self.url, self.clock = name, url, clock
        self._sealing = sealing
        self.wrote: Version | None = None  # what this process wrote last, which it need not be told of

    @property
    def store(self) -> TokenStore:
        """Return the store, this process's own."""
        return shelf[self.url]

    async def read(self, *, opened: bool = True) -> Seen:
        """Read the record, and the tokens in it unless they are to stay sealed.

        Raises as `TokenStore.read`, and RefreshMisconfigured where no key opens them.
        """
        began, own_now = monotonic(), self.clock()
        with self._noted():
            reading = await self.store.read(self.name)
            ended, record = monotonic(), reading.record
            tokens = self._opened(record, own_now - reading.now) if record is not None and opened else None
        return Seen(record, tokens, reading.now, began, ended)

    def _opened(self, record: Record, ahead: float) -> Snapshot | None:
        """Return the snapshot in a record, by our own clock, so many seconds ahead of the store's."""
        if record.sealed is None:
            return None
        tokens = self._sealing.open(
            self.name,
            record.epoch,
            record.sealed,
            expires_at=None if record.expires_at is None else record.expires_at + ahead,
            lifetime=record.lifetime,
        )
        return Snapshot.of(tokens, record.epoch, record.generation, self.clock())

    async def save(self, tokens: Snapshot, seen: Seen, *, seed: str | None = None) -> bool:
        """Write `tokens` over what was seen; tell whether that was still there. Markers and failures go."""
        before, now, earliest = seen.record, seen.now(), seen.earliest_now()
        goes_on = before is not None and before.epoch == tokens.epoch
        record = Record(
            name=self.name,
            epoch=tokens.epoch,
            generation=tokens.generation,
            began_at=before.began_at if before is not None and goes_on else now,
            saved_at=now,
            sealed=self._sealing.seal(self.name, tokens.epoch, tokens),
            expires_at=None if tokens.expires_at is None else tokens.expires_at - self.clock() + earliest,
            lifetime=tokens.lifetime,
            seed=seed or (None if before is None else before.seed),
        )
        return await self._write(record, seen)

    async def bury(self, why: EndedWhy, seen: Seen, *, held: str | None = None) -> bool:
        """Write a tombstone over what was seen; tell whether that was still there.

        `held` is the epoch that ends where there is no record to say so.
        """
        before, now = seen.record, seen.now()
        tombstone = Record(
            name=self.name,
            epoch=(held or secrets.token_hex(8)) if before is None else before.epoch,
            generation=0 if before is None else before.generation + 1,
            began_at=now if before is None else before.began_at,
            saved_at=now,
            sealed=None,
            ended=why,
            seed=None if before is None else before.seed,
        )
        return await self._write(tombstone, seen)

    def marked(self, seen: Seen, first_sent: float | None) -> Seen:
        """Return what was seen with the note that its token is about to be sent, or was first sent then."""
        record = _there(seen)
        marker = Marker(
            epoch=record.epoch,
            generation=record.generation,
            fingerprint=spends(seen) or "",
            at=seen.earliest_now() if first_sent is None else first_sent,
        )
        return replace(seen, record=replace(record, marker=marker))

    async def mark(self, marked: Seen, lease: Lease) -> bool:
        """Write that note over what was seen; tell whether the lease and the record still stood then."""
        return await self._write(_there(marked), marked, lease)

    async def mark_again(self, marked: Seen, seen: Seen) -> bool:
        """Put a marked record back that the store has lost; tell whether nothing came in between."""
        return await self._write(_there(marked), seen)

    async def fail(
        self, seen: Seen, error: KeyturnError | None, lease: Lease, *, marker: Marker | None
    ) -> None:
        """Note how an exchange failed; `marker` stays, None where the token is not spent."""
        record = _there(seen)
        noted = replace(
            record,
            marker=marker,
            failure=record.failure if error is None else _failure(error, seen.now()),
        )
        await self._write(noted, seen, lease)

    async def _write(self, record: Record, seen: Seen, lease: Lease | None = None) -> bool:
        self.wrote = record.version  # before it is told of
        with self._noted():
            written = await self.store.write(self.name, record, over=seen.version, under=lease)
        if not written:
            self.wrote = None  # another's, if it is there
        return written

    async def lease(self, seconds: float) -> Lease | None:
        """Return the lease if nobody holds it. Raises as `TokenStore.try_lease`."""
        with self._noted():
            return await self.store.try_lease(self.name, seconds)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Give an error of the store its meaning, and note where it happened."""
        note = f"keyturn: {self.name} in {place(self.url)}"
        try:
            yield
        except KeyturnError as error:
            error.add_note(note)
            raise
        except Exception as error:  # noqa: BLE001 - a driver raises what it likes
            known = unforeseen(error)
            known.add_note(note)
            raise known from None


def is_behind(record: Record, own: Snapshot) -> bool:
    """Tell whether a record is of the same sign-in as `own`, and older; a tombstone never is."""
    return record.ended is None and record.epoch == own.epoch and record.generation < own.generation


def over(record: Record | None, *, unused: bool = False) -> SessionEnded:
    """Return what a tombstone means to whoever finds it, None for one that is about to be written.

    `unused` says that he has brought a seed.
    """
    why = (record and record.ended) or "signed_out"
    said = _OVER[why] + (_UNUSED if unused else "")
    return SessionEnded(said, reason=why, epoch=None if record is None else record.epoch)


def spends(seen: Seen) -> str | None:
    """Return the fingerprint of the refresh token that was seen."""
    refresh = None if seen.tokens is None else seen.tokens.refresh
    return None if refresh is None else fingerprint(refresh)


def failure_of(failure: Failure, now: float) -> RefreshError:
    """Return what a failure in another process means for who waited for it there; `now` is the store's."""
    message, status = f"{failure.message} (in another process)", failure.status
    if failure.kind == "misconfigured":
        return RefreshMisconfigured(message, status=status)
    if failure.kind == "unknown":
        return OutcomeUnknown(message, status=status)
    after = None if failure.not_before is None else max(0.0, failure.not_before - now)
    return RefreshUnavailable(message, status=status, retry_after=after, attempts=0)


def _failure(error: KeyturnError, now: float) -> Failure:
    after: object = getattr(error, "retry_after", None)
    return Failure(
        kind="misconfigured"
        if isinstance(error, RefreshMisconfigured)
        else "unknown"
        if isinstance(error, OutcomeUnknown)
        else "unavailable",
        at=now,
        error=type(error).__name__,
        message=str(error),
        status=error.status if isinstance(error, RefreshError) else None,
        not_before=now + after if isinstance(after, float) else None,
    )


def _there(seen: Seen) -> Record:
    if seen.record is None:
        raise AssertionError("there is no record to change")
    return seen.record

"""Record: what a token store keeps of one name, as one JSON object.

    name, epoch, generation     whose, which sign-in, how many refreshes since
    began_at, saved_at          when the epoch began, when the pair was saved
    sealed                      the pair, as `keyturn.client.sealing` wrote it; None in a tombstone
    expires_at, lifetime        of the access token; None where nobody said
    ended                       why there is no pair: the record of a session that is over, a tombstone
    seed                        the fingerprint of the seed that this name began with, across sign-ins
    marker                      an exchange has begun whose end is not recorded
    failure                     how the last refresh failed, if it did

All times are in POSIX seconds of the store's clock, so that processes whose
own clocks disagree mean the same moment. Nothing but `sealed` is a secret.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from dataclasses import dataclass
from itertools import chain
from typing import Literal, Self, cast, get_args

from keyturn.errors import RefreshMisconfigured

Version = tuple[str, int]
EndedWhy = Literal["refused", "signed_out"]
FailureKind = Literal["unavailable", "misconfigured", "unknown"]

_FORMAT = 1
_LONGEST = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """Left before an exchange: which pair it spends, and when it was first sent.

    It counts only while it matches the record that it lies in.
    """

    epoch: str
    generation: int
    fingerprint: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How a refresh failed, for those who waited for it in other processes and for operators.

    `error` is the name of the class, `message` its text, which holds no
    secret; `not_before` is when the end point asked to be tried again.
    """

    kind: FailureKind
    at: float
    error: str
    message: str
    status: int | None = None
    not_before: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Record:
    """One name's record, immutable. See the module for its fields."""

    name: str
    epoch: str
    generation: int
    began_at: float
    saved_at: float
    sealed: str | None
    expires_at: float | None = None
    lifetime: float | None = None
    ended: EndedWhy | None = None
    seed: str | None = None
    marker: Marker | None = None
    failure: Failure | None = None

    def __repr__(self) -> str:
        what = f"ended={self.ended}" if self.sealed is None else "sealed=***"
        return f"<Record {self.name!r} epoch {self.epoch}, generation {self.generation}, {what}>"

    @property
    def version(self) -> Version:
        """Return what a write compares: the epoch and the generation."""
        return self.epoch, self.generation

    def supersedes(self, other: Record) -> bool:
        """Tell whether this is the later one of two records of a name."""
        if self.epoch == other.epoch:
            return self.generation > other.generation
        return self.began_at > other.began_at

    def to_json(self) -> str:
        """Return the record as one line of JSON. Raises RefreshMisconfigured for one that is too large."""
        text = json.dumps({"format": _FORMAT, **dataclasses.asdict(self)}, separators=(",", ":"))
        if len(text) > _LONGEST:
            raise RefreshMisconfigured("the tokens are too large for a token store, which takes one megabyte")
        return text

    @classmethod
    def from_json(cls, text: str | bytes, name: str | None = None) -> Self:
        """Return the record that `to_json` wrote.

        Raises RefreshMisconfigured for anything else, and for the record of
        another than `name`, where that is given.
        """
        record = None
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            record = cls._parsed(text)
        if record is None:  # here, so that nothing leads to an exception that quotes the text
            raise RefreshMisconfigured(
                "a record in the token store cannot be read: it is damaged, or of another version of keyturn"
            )
        if name not in (None, record.name):
            raise RefreshMisconfigured("a record in the token store is another name's: somebody has moved it")
        return record

    @classmethod
    def _parsed(cls, text: str | bytes) -> Self:
        if len(text) > _LONGEST:
            raise ValueError("too long")
        fields = json.loads(text)
        if repr(fields.pop("format")) != repr(_FORMAT):
            raise ValueError("another format")
        marker, failure = fields.pop("marker"), fields.pop("failure")
        record = cls(
            marker=None if marker is None else Marker(**marker),
            failure=None if failure is None else Failure(**failure),
            **fields,
        )
        record._check()
        return record

    def _check(self) -> None:
        for part in (self, self.marker, self.failure):
            if part is not None:
                _check_types(part)
        if (self.sealed is None) is not (self.ended is not None):
            raise ValueError("neither a pair nor a tombstone")


_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "None": (type(None),),
}


def _check_types(part: Record | Marker | Failure) -> None:
    """Raise ValueError where a field is not of the type that its class says."""
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        said = cast(str, field.type)
        if said.startswith("EndedWhy") and (value is None or value in get_args(EndedWhy)):
            continue
        if said == "FailureKind" and value in get_args(FailureKind):
            continue
        if said.startswith(("Marker", "Failure |")):
            continue
        kinds = chain.from_iterable(_KINDS[one] for one in said.split(" | "))
        if isinstance(value, bool) or not isinstance(value, tuple(kinds)):
            raise TypeError(field.name)
        if isinstance(value, int | float) and not abs(value) < 2**63:  # NaN is neither below nor above
            raise ValueError(field.name)


def fingerprint(token: str) -> str:
    """Return what tells two tokens apart without showing either: half of a SHA-256, in hex."""
    return hashlib.sha256(b"keyturn fingerprint\0" + token.encode()).hexdigest()[:32]

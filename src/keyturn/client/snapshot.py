"""Snapshot: the tokens of one moment, with their place in the history of a sign-in."""

from __future__ import annotations

import math
import random
import secrets
from dataclasses import dataclass
from typing import Self

from keyturn.client import schedule
from keyturn.tokens import Tokens


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Snapshot(Tokens):
    """Tokens, the sign-in that they belong to and how often they were renewed since.

    `epoch` is random and new at every sign-in; `generation` counts the
    refreshes within it. A request remembers the snapshot that it carried,
    and nothing crosses an epoch.
    """

    epoch: str
    generation: int
    plan: schedule.Plan

    @classmethod
    def first(cls, tokens: Tokens, now: float) -> Self:
        """Return the snapshot that a sign-in starts its epoch with."""
        return cls.of(tokens, secrets.token_hex(8), 0, now)

    @classmethod
    def awaited(cls) -> Self:
        """Return what stands in for tokens that the first use will bring; no request ever carries it."""
        never = schedule.Plan(-math.inf, -math.inf, -math.inf)
        return cls("-", None, 0.0, 0.0, epoch=secrets.token_hex(8), generation=-1, plan=never)

    @property
    def is_awaited(self) -> bool:
        """Tell whether this only stands in for tokens to come."""
        return self.generation < 0

    def next(self, tokens: Tokens, now: float) -> Self:
        """Return the snapshot that follows this one within the epoch."""
        return self.of(tokens, self.epoch, self.generation + 1, now)

    def supersedes(self, other: Snapshot) -> bool:
        """Tell whether this is a newer snapshot of the same sign-in."""
        return self.generation > other.generation and self.epoch == other.epoch

    def yields_to(self, tokens: Tokens, carried: Snapshot) -> bool:
        """Tell whether a pair that `carried`, of the same sign-in, brought takes the place of this one.

        It does if nothing has come in between; otherwise the one that lives
        longer is the later one.
        """
        if carried.generation == self.generation:
            return True
        return tokens.expires_at is not None and tokens.expires_at > (self.expires_at or 0.0)

    @classmethod
    def of(cls, tokens: Tokens, epoch: str, generation: int, now: float) -> Self:
        """Return tokens that are taken up at `now`, in their place."""
        jitter = random.random()  # noqa: S311 - spreads load, guards nothing
        return cls(
            tokens.access,
            tokens.refresh,
            tokens.expires_at,
            tokens.lifetime,
            tokens.extra,
            epoch=epoch,
            generation=generation,
            plan=schedule.plan(tokens.expires_at, tokens.lifetime, now, jitter),
        )

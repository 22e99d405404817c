"""The session: the one row that a sign-in starts and every refresh moves on.

It holds no token and nothing to make one from. The refresh token is derived
from `sid` and `counter` with a secret that no store ever sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
"""What a claim may be."""

EndedWhy: TypeAlias = Literal["signed_out", "reuse"]
"""Why a session was ended: somebody signed out, or a superseded token came back."""


@dataclass(frozen=True, slots=True)
class Session:
    """One signed-in session. Times are POSIX seconds on the store's clock.

    `counter` is the refresh token's that is good now; it starts at 0 and
    rises by one a rotation. `rotated_at` is None until the first rotation.
    `expires_at` is absolute: no rotation moves it. `idle_limit` is in
    seconds. `seen_generation` is the highest generation of which an access
    token was verified, written only where a recovery lease asks for it.
    `client` and `key` (a DPoP key's thumbprint) are whom the session is
    bound to, None for nobody in particular.
    """

    sid: str
    subject: str
    started_at: float
    expires_at: float
    counter: int = 0
    rotated_at: float | None = None
    idle_limit: float | None = None
    ended_at: float | None = None
    ended_why: EndedWhy | None = None
    seen_generation: int = -1
    client: str | None = None
    key: str | None = None
    claims: Mapping[str, JSON] = field(default_factory=dict)

    @property
    def used_at(self) -> float:
        """When the session was last rotated, or else started."""
        return self.started_at if self.rotated_at is None else self.rotated_at

    @property
    def limit(self) -> float:
        """The time from which the session does not go on unless it is rotated before."""
        if self.idle_limit is None:
            return self.expires_at
        return min(self.expires_at, self.used_at + self.idle_limit)

    def lives(self, now: float) -> bool:
        """Tell whether the session goes on at `now`: not ended, not expired, not idle."""
        return self.ended_at is None and now < self.limit

"""What the server can be set to, and what it reports: shared by both sides of the control paths."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

from keyturn.errors import ConfigurationError

CLIENT_AUTH = ("", "none", "client_secret_basic", "client_secret_post", "private_key_jwt")


class Switches(TypedDict, total=False):
    """The settings by name, for `StrictServer(...)` and `StrictServer.configure(...)`; see `Settings`."""

    ttl: float
    refresh_delay: float
    window: float
    rotates: bool
    renews: bool
    retires: bool
    spread: float
    spread_over: int
    client_auth: str
    client_id: str
    client_secret: str
    client_key: str
    errors_in_200: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """How the server behaves. Times are in seconds.

    `ttl`: life of an access token. `refresh_delay`: how long a token request
    takes, spent before the rotation. `window`: how long after a rotation the
    predecessor gets the same successor; 0 is strict. `rotates`: a refresh
    gives a new refresh token. `renews`: every accepted API answer carries a
    new pair, and the old one is dead at once. `retires`: a refresh ends the
    access tokens before it at once, instead of leaving them to their exp.
    `spread`, `spread_over`: the k-th of `spread_over` 401s from the API is
    answered k * spread / spread_over later.

    `client_auth`: how a client must prove itself at `/token` and `/revoke`,
    one of CLIENT_AUTH; with "", any client is let by but "unknown". Then
    `client_id`, `client_secret` and `client_key` (a public JWK, as JSON) are
    the one client's. `errors_in_200`: `/token` says its errors with a 200.
    """

    ttl: float = 60.0
    refresh_delay: float = 0.0
    window: float = 0.0
    rotates: bool = True
    renews: bool = False
    retires: bool = False
    spread: float = 0.0
    spread_over: int = 0
    client_auth: str = ""
    client_id: str = "tests"
    client_secret: str = "a secret of the tests"  # noqa: S105 - everybody may know it
    client_key: str = ""
    errors_in_200: bool = False

    def changed(self, switches: Mapping[str, object]) -> Settings:
        """Return these settings with `switches` applied. Raises ConfigurationError for what is none."""
        kinds = {one.name: type(one.default) for one in dataclasses.fields(Settings)}
        for name, value in switches.items():
            if name not in kinds:
                raise ConfigurationError(f"{name} is no setting; there are {', '.join(kinds)}")
            wanted = (int, float) if kinds[name] is float else kinds[name]
            if not isinstance(value, wanted) or (isinstance(value, bool) and kinds[name] is not bool):
                raise ConfigurationError(f"{name} must be of type {kinds[name].__name__}")
        if switches.get("client_auth", "") not in CLIENT_AUTH:
            raise ConfigurationError(f"client_auth must be one of {', '.join(map(repr, CLIENT_AUTH))}")
        return dataclasses.replace(self, **switches)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the start or the last reset.

    A request counts once all of it has arrived. `refreshes`: token requests.
    `rotations`: those that spent a refresh token. `replays`: those answered
    again inside the window. `reuses`: those with a spent token outside it.
    `renewals`: rotations by API answers (`renews`). `issued`: access tokens
    for a client itself, by client credentials. `revocations`: requests to
    the revocation end point. `api`: API requests;
    `answered` with 200, `refused` with 401, both counted when that is
    decided, before any delay. `sessions_live`: sessions not ended.
    `most_refreshes_at_once`: token requests open at the same time.
    `connections`: those that carried a request.
    """

    refreshes: int = 0
    rotations: int = 0
    replays: int = 0
    reuses: int = 0
    renewals: int = 0
    issued: int = 0
    revocations: int = 0
    api: int = 0
    answered: int = 0
    refused: int = 0
    sessions_live: int = 0
    most_refreshes_at_once: int = 0
    connections: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class Seen:
    """A request as it arrived. Its repr leaves out headers and body, which hold tokens.

    `path` is decoded, `query` is not. `headers` have lower-case names. `body`
    is what has arrived, `complete` whether that was all. `status` is None
    while the request is open, and where it was dropped. `at` and
    `answered_at` are monotonic seconds of the server's process.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    complete: bool
    status: int | None
    at: float
    answered_at: float | None

    def __repr__(self) -> str:
        return f"<Seen {self.method} {self.path} -> {self.status}, {len(self.body)} bytes>"

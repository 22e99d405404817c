"""The rules of the strict server: which token opens what, and what spends it.

- A refresh token is spent by its first use. Inside the window its direct
  predecessor gets the same successor again; any other spent token is reuse,
  and ends the session.
- An access token is accepted until its exp, unless its session has ended or
  it was retired: by `expire`, or by a newer pair under `renews` or `retires`.

Nothing here waits: every rule is one uninterrupted step on a `World`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from keyturn.clocks import now
from keyturn.testing.messages import Answer, Request
from keyturn.testing.records import Settings, Stats


class Refused(Exception):
    """A token opens nothing. `reason` is a word for the answer's body."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True, eq=False)
class Session:
    """A sign-in and what followed. Access tokens of a generation before `oldest` are retired."""

    subject: str
    sid: str = field(default_factory=lambda: secrets.token_hex(8))
    current: str = ""
    previous: str = ""
    rotated_at: float = 0.0
    generation: int = 0
    oldest: int = 0
    ended: str = ""


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """What the server knows of an opaque refresh token."""

    session: Session
    csrf: str


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What the server knows of an access token beyond its claims."""

    session: Session
    serial: int
    generation: int
    csrf: str
    given_up: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """What a sign-in, a refresh or a renewal gives."""

    access: str
    refresh: str
    expires_in: float
    csrf_access: str
    csrf_refresh: str


@dataclass(slots=True)
class Fault:
    """What the next requests get instead: an answer, or with None a closed connection."""

    answer: Answer | None
    times: int = 1
    path: str | None = None
    rotated: bool = False


@dataclass(slots=True, eq=False)
class Barrier:
    """Opens when the last of `missing` has arrived."""

    missing: int
    opened: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True, eq=False)
class World:
    """Everything between two resets. A request belongs to the world that it arrived in."""

    settings: Settings
    clock: Callable[[], float] = now
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    sessions: list[Session] = field(default_factory=list)
    refresh_tokens: dict[str, RefreshToken] = field(default_factory=dict)
    access_tokens: dict[str, AccessToken] = field(default_factory=dict)
    expired_below: int = 0
    seen: list[Request] = field(default_factory=list)
    connections: set[int] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    refreshes_open: int = 0
    wave: int = 0
    token_faults: list[Fault] = field(default_factory=list)
    revocation_faults: list[Fault] = field(default_factory=list)
    api_faults: list[Fault] = field(default_factory=list)
    assertions: set[str] = field(default_factory=set)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    barrier: Barrier | None = None
    waiters: list[tuple[Mapping[str, int], asyncio.Event]] = field(default_factory=list)

    @property
    def stats(self) -> Stats:
        return Stats(**self.counts)

    def count(self, name: str, by: int = 1) -> None:
        """Count, and wake whoever waits for that."""
        self.counts[name] += by
        for at_least, reached in self.waiters:
            if self.has(at_least):
                reached.set()

    def has(self, at_least: Mapping[str, int]) -> bool:
        """Say whether every counter named has reached its value."""
        return all(self.counts[name] >= value for name, value in at_least.items())

    def release(self) -> None:
        """Let everyone go who is held, and hold nobody any more."""
        for gate in self.gates.values():
            gate.set()
        self.gates.clear()
        self.release_barrier()

    def release_barrier(self) -> None:
        """Let those go who wait at the barrier, and take it away."""
        if self.barrier is not None:
            self.barrier.opened.set()
            self.barrier = None


def sign_in(world: World, subject: str, ttl: float | None = None) -> Pair:
    """Start a session. `ttl` is for its first access token only."""
    session = Session(subject)
    world.sessions.append(session)
    world.count("sessions_live")
    _new_refresh_token(world, session)
    return _pair(world, session, ttl)


def refresh(world: World, token: str, *, csrf: str | None = None) -> Pair:
    """Spend a refresh token. Raises Refused, having ended the session where that was reuse.

    With `csrf` given, a wrong one is refused before anything is spent.
    """
    known = world.refresh_tokens.get(token)
    if known is None:
        raise Refused("unknown")
    if csrf is not None and not same(csrf, known.csrf):
        raise Refused("csrf")
    session, settings = known.session, world.settings
    age = world.clock() - session.rotated_at
    replay = token == session.previous and age < settings.window
    if token != session.current and not replay:
        world.count("reuses")
        end(world, session, "reused")
    if session.ended:
        raise Refused(session.ended)
    if replay:
        world.count("replays")
        return _pair(world, session)
    advance(world, session, retire=settings.retires)
    if settings.rotates:
        world.count("rotations")
    return _pair(world, session)


def issue(world: World, client: str) -> Pair:
    """Give a client an access token of its own; nobody is handed the refresh token that goes with it."""
    session = Session(client)
    _new_refresh_token(world, session)
    world.count("issued")
    return _pair(world, session)


def give_up(world: World, token: str) -> None:
    """Revoke a token: with a refresh token goes its session, an access token goes alone (RFC 7009 §2.1)."""
    known = world.refresh_tokens.get(token)
    if known is not None:
        end(world, known.session, "revoked")
        return
    try:
        jti = str(_verified(token, world.key).get("jti"))
    except Refused:  # any other token is as good as revoked
        return
    world.access_tokens[jti] = replace(world.access_tokens[jti], given_up=True)


def renew(world: World, session: Session) -> Pair:
    """Give a new pair with an API answer; the old pair is dead from here on."""
    advance(world, session, retire=True)
    world.count("renewals")
    return _pair(world, session)


def advance(world: World, session: Session, *, retire: bool) -> None:
    """Move a session on by a generation, and to a new refresh token where the server rotates."""
    session.generation += 1
    if retire:
        session.oldest = session.generation
    if world.settings.rotates:
        session.previous, session.rotated_at = session.current, world.clock()
        _new_refresh_token(world, session)


def check(world: World, token: str, *, csrf: str | None = None) -> AccessToken:
    """Return what is known of an access token that is good now. Raises Refused for any other."""
    claims = _verified(token, world.key)
    known = world.access_tokens.get(str(claims.get("jti")))
    if known is None:
        raise Refused("unknown")
    expires = claims["exp"]
    if known.session.ended or known.given_up:
        raise Refused(known.session.ended or "revoked")
    if not isinstance(expires, int | float) or world.clock() >= expires or known.serial < world.expired_below:
        raise Refused("expired")
    if known.generation < known.session.oldest:
        raise Refused("superseded")
    if csrf is not None and not same(csrf, known.csrf):
        raise Refused("csrf")
    return known


def end(world: World, session: Session, why: str) -> None:
    """End a session, once."""
    if not session.ended:
        session.ended = why
        world.count("sessions_live", -1)


def expire(world: World) -> None:
    """Refuse every access token issued so far."""
    world.expired_below = len(world.access_tokens)


def revoke(world: World, subject: str | None) -> None:
    """End every session, or those of one subject."""
    for session in world.sessions:
        if subject is None or session.subject == subject:
            end(world, session, "revoked")


def next_fault(faults: list[Fault], path: str) -> Fault | None:
    """Take the fault that a request to `path` meets, if there is one."""
    for fault in faults:
        if fault.path in {None, path}:
            fault.times -= 1
            if fault.times < 1:
                faults.remove(fault)
            return fault
    return None


def _new_refresh_token(world: World, session: Session) -> None:
    session.current = secrets.token_urlsafe(24)
    world.refresh_tokens[session.current] = RefreshToken(session, secrets.token_hex(16))


def _pair(world: World, session: Session, ttl: float | None = None) -> Pair:
    lifetime = world.settings.ttl if ttl is None else ttl
    jti, csrf, issued_at = secrets.token_hex(8), secrets.token_hex(16), world.clock()
    claims = {
        "sub": session.subject,
        "sid": session.sid,
        "iat": issued_at,
        "exp": issued_at + lifetime,
        "jti": jti,
        "csrf": csrf,
    }
    world.access_tokens[jti] = AccessToken(session, len(world.access_tokens), session.generation, csrf)
    csrf_refresh = world.refresh_tokens[session.current].csrf
    expires_in = int(lifetime) if lifetime == int(lifetime) else lifetime
    return Pair(_signed(claims, world.key), session.current, expires_in, csrf, csrf_refresh)


def _signed(claims: Mapping[str, object], key: bytes) -> str:
    head = _encoded(b'{"alg":"HS256","typ":"JWT"}')
    text = f"{head}.{_encoded(json.dumps(claims).encode())}"
    return f"{text}.{_encoded(hmac.digest(key, text.encode(), hashlib.sha256))}"


def _verified(token: str, key: bytes) -> Mapping[str, object]:
    text, _, mac = token.rpartition(".")
    if not same(mac, _encoded(hmac.digest(key, text.encode(), hashlib.sha256))):
        raise Refused("unknown")
    payload = text.partition(".")[2]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims if isinstance(claims, dict) else {}


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def same(one: str, other: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())

"""The Issuer: sign in, refresh, verify, sign out.

It carries out what `rotation` decides. Whatever it mints, it mints after a
conditional write: the store says, in one step, that the session is not ended
and its counter is the one that was read. Where the store says no, somebody
else was faster; then it reads again and decides again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as altered
from datetime import timedelta
from typing import Final

from keyturn import errors
from keyturn.errors import SessionRefused, StoreUnavailable, TokenReused
from keyturn.server import arguments, events, rotation
from keyturn.server.access_tokens import AccessTokens, Claims
from keyturn.server.csrf import CSRF
from keyturn.server.keys import Keys, Secret
from keyturn.server.refresh_tokens import RefreshToken, RefreshTokens, new_sid
from keyturn.server.rotation import Presented, Rotation
from keyturn.server.session import JSON, EndedWhy, Session
from keyturn.server.session_stores import SessionStore, open_store

_ATTEMPTS: Final = 64  # each that fails means that another refresh of this session succeeded

_REFUSALS: Final[Mapping[rotation.Reason, tuple[type[SessionRefused], str]]] = {
    "unknown": (errors.SessionUnknown, "there is no such session"),
    "ended": (errors.SessionOver, "the session was ended"),
    "expired": (errors.SessionExpired, "the session has expired"),
    "idle": (errors.SessionIdle, "the session was not used for too long"),
    "wrong_client": (errors.WrongClient, "the refresh token was issued to another client"),
    "wrong_key": (errors.WrongKey, "the refresh token is bound to another key"),
    "too_far_ahead": (errors.CounterTooFarAhead, "the session store is too far behind this refresh token"),
}


@dataclass(frozen=True, slots=True, repr=False)
class TokenPair:
    """What a sign-in or a refresh gives. Neither repr nor str shows a token.

    `expires_in` is the access token's life in whole seconds from now,
    `expires_at` its exp in POSIX seconds. `session_expires_in` and
    `session_expires_at` say the same of the session's absolute end.
    `generation` counts the rotations.
    """

    access: str
    refresh: str
    expires_in: int
    expires_at: int
    sid: str
    subject: str
    generation: int
    session_expires_in: int
    session_expires_at: float

    def __repr__(self) -> str:
        return f"<TokenPair sid={self.sid} generation={self.generation} expires_in={self.expires_in}>"


class Issuer:
    """Issues, rotates and verifies the tokens of one service. Safe to share between threads.

    - `secret`: at least 32 bytes, kept out of the store. For a roll-over a
      list, oldest to newest, and `signing` the one that signs: give a new one
      to all processes first, and name it `signing` afterwards.
    - `store`: a URL (`sqlite:///sessions.db`, `memory://`) or a SessionStore.
    - `rotation`: the policy of refresh.
    - `name`: the `iss` of the tokens; part of all keys. `audience`: their
      `aud`, the name unless given.
    - `access_lifetime`, `session_lifetime` (absolute: a refresh does not
      prolong it) and `idle_limit` (None for none).
    - `on_event`: called with each event of `keyturn.server.events`.
    - `now`: gives POSIX seconds, for the access tokens; sessions go by the
      store's clock.
    - `remember`: how many verified access tokens are kept, at most.

    Raises ConfigurationError for arguments that cannot work.
    """

    def __init__(
        self,
        *,
        secret: Secret | Sequence[Secret],
        store: str | SessionStore,
        rotation: Rotation | None = None,
        signing: Secret | None = None,
        name: str = "keyturn",
        audience: str | None = None,
        access_lifetime: timedelta = timedelta(minutes=15),
        session_lifetime: timedelta = timedelta(days=30),
        idle_limit: timedelta | None = None,
        on_event: Callable[[events.Event], None] | None = None,
        now: Callable[[], float] = time.time,
        remember: int = 4096,
    ) -> None:
        arguments.check_text("name", name)
        arguments.check_text("audience", name if audience is None else audience)
        arguments.check_span("access_lifetime", access_lifetime)
        arguments.check_span("session_lifetime", session_lifetime)
        arguments.check_span("idle_limit", session_lifetime if idle_limit is None else idle_limit)
        keys = Keys(secret, issuer=name, signing=signing)
        self.name = name
        self.rotation = rotation or Rotation()
        self.csrf = CSRF(keys)
        self._refresh_tokens = RefreshTokens(keys, issuer=name)
        self._access_tokens = AccessTokens(keys, issuer=name, audience=audience or name, remember=remember)
        self._access_lifetime = access_lifetime.total_seconds()
        self._session_lifetime = session_lifetime.total_seconds()
        self._idle_limit = None if idle_limit is None else idle_limit.total_seconds()
        self._announcer = events.Announcer(on_event)
        self._now = now
        if not isinstance(store, str) and not hasattr(store, "advance"):
            raise errors.ConfigurationError(
                "store= must be a URL, as in sqlite:///sessions.db, or a SessionStore"
            )
        self._store = open_store(store) if isinstance(store, str) else store

    @property
    def store(self) -> SessionStore:
        """The session store."""
        return self._store

    def sign_in(
        self,
        subject: str,
        *,
        claims: Mapping[str, JSON] | None = None,
        client: str | None = None,
        key: str | None = None,
    ) -> TokenPair:
        """Start a session for `subject` and return its first pair.

        `claims` go into every access token of the session. `client` and
        `key` (a DPoP key's thumbprint) bind it. Raises ConfigurationError
        for a subject or claims that no token can carry, StoreUnavailable.
        """
        arguments.check_name("subject", subject)
        if client is not None:
            arguments.check_name("client", client)
        if key is not None:
            arguments.check_name("key", key)
        now = self._store.now()
        session = Session(
            sid=new_sid(),
            subject=subject,
            started_at=now,
            expires_at=now + self._session_lifetime,
            idle_limit=self._idle_limit,
            client=client,
            key=key,
            claims=arguments.carried(claims or {}),
        )
        pair = self._mint(session, now)  # first, so that what no token can carry leaves no row
        self._store.create(session)
        self._announcer.tell(events.Started(session.sid, subject, client))
        return pair

    def refresh(
        self, token: str, *, client: str | None = None, authenticated: bool = False, key: str | None = None
    ) -> TokenPair:
        """Return the next pair, or the same successor that others get (RFC 6749 §6).

        `client` is who asks, `authenticated` that it proved so, `key` the
        thumbprint of the DPoP key that it proved. Raises TokenMalformed or
        TokenForged before the store is asked, then SessionRefused by its
        kinds, and StoreUnavailable.
        """
        read = self._refresh_tokens.read(token)
        presented = Presented(read.counter, client, authenticated, key)
        for _ in range(_ATTEMPTS):
            pair = self._attempt(read, presented)
            if pair is not None:
                return pair
        raise StoreUnavailable("too many refreshes of one session at once")

    def verify(self, access: str, *, live: bool = False) -> Claims:
        """Return what an access token says, if it is good now (RFC 9068 §4).

        With `live`, the store is asked whether its session goes on; without,
        a token lives until its exp. Raises TokenMalformed, TokenForged or
        TokenExpired; with `live` also SessionRefused by its kinds, and
        StoreUnavailable.
        """
        first = None if self.rotation.recovery is None else self._mark_seen
        claims = self._access_tokens.verify(access, now=self._now(), first=first)
        if live:
            self._check_lives(claims.sid)
        return claims

    def sign_out(self, sid: str) -> bool:
        """End a session; durable when this returns. Returns whether it was still going on."""
        session = self._store.get(sid)
        return session is not None and self._end(session, "signed_out")

    def sign_out_token(self, token: str) -> bool:
        """End the session of a refresh token, superseded or not (RFC 7009 §2).

        Raises TokenMalformed or TokenForged before the store is asked.
        """
        return self.sign_out(self._refresh_tokens.read(token).sid)

    def sign_out_everywhere(self, subject: str) -> int:
        """End all sessions of `subject`; durable when this returns. Returns how many there were."""
        ended = self._store.end_all(subject, "signed_out")
        for session in ended:
            self._announcer.tell(events.Ended(session.sid, subject, "signed_out"))
        return len(ended)

    def sessions(self, subject: str) -> Sequence[Session]:
        """Return the sessions of `subject` that go on, oldest first."""
        return self._store.list(subject)

    def purge(self) -> int:
        """Delete the rows of sessions that do not go on, and return how many: for a daily job."""
        return self._store.purge()

    def __repr__(self) -> str:
        return f"<Issuer {self.name!r} store={type(self._store).__name__}>"

    def _attempt(self, token: RefreshToken, presented: Presented) -> TokenPair | None:
        """Read, decide and carry it out; None if somebody else was faster."""
        session = self._store.get(token.sid)
        now = self._store.now()  # after the row, so that no age is too small
        verdict = rotation.decide(session, presented, now, self.rotation)
        if isinstance(verdict, rotation.Refuse):
            error, message = _REFUSALS[verdict.reason]
            raise error(message, sid=token.sid)
        assert session is not None  # noqa: S101 - without a session there is no other verdict
        sid, subject = session.sid, session.subject
        match verdict:
            case rotation.Reuse(read, behind):
                if not self._end(session, "reuse"):
                    return None
                self._announcer.tell(events.Reused(sid, subject, read, behind))
                raise TokenReused("a superseded refresh token came back; its session is ended", sid=sid)
            case rotation.Advance(read, to) | rotation.MoveForward(read, to):
                if not self._store.advance(sid, read=read, to=to):
                    return None
                if isinstance(verdict, rotation.MoveForward):
                    self._announcer.tell(events.MovedForward(sid, subject, to, lost=to - read - 1))
                self._announcer.tell(events.Refreshed(sid, subject, to))
                return self._mint(altered(session, counter=to, rotated_at=now), now)
            case rotation.SameAgain(read) | rotation.Replay(read):
                if not self._store.advance(sid, read=read, to=read):
                    return None
                successor = isinstance(verdict, rotation.Replay)
                recovered = isinstance(verdict, rotation.Replay) and verdict.recovered
                self._announcer.tell(events.Replayed(sid, subject, read, successor, recovered))
                return self._mint(session, now)

    def _mint(self, session: Session, store_now: float) -> TokenPair:
        """Make a pair; its access token ends with the session at the latest."""
        now = self._now()
        left = session.limit - store_now
        # exp is in whole seconds: rounded up for a full life, rounded down at the session's end.
        lifetime = min(self._access_lifetime, left)
        expires_at = min(math.ceil(now + self._access_lifetime), math.floor(now + left))
        access = self._access_tokens.make(session, issued_at=math.floor(now), expires_at=expires_at)
        return TokenPair(
            access=access,
            refresh=self._refresh_tokens.make(session.sid, session.counter),
            expires_in=max(0, min(math.floor(lifetime), math.floor(expires_at - now))),
            expires_at=expires_at,
            sid=session.sid,
            subject=session.subject,
            generation=session.counter,
            session_expires_in=max(0, math.floor(session.expires_at - store_now)),
            session_expires_at=session.expires_at,
        )

    def _end(self, session: Session, why: EndedWhy) -> bool:
        if not self._store.end(session.sid, why):
            return False
        self._announcer.tell(events.Ended(session.sid, session.subject, why))
        return True

    def _mark_seen(self, claims: Claims) -> None:
        self._store.mark_seen(claims.sid, claims.generation)

    def _check_lives(self, sid: str) -> None:
        session = self._store.get(sid)
        now = self._store.now()
        reason: rotation.Reason
        if session is None:
            reason = "unknown"
        elif session.lives(now):
            return
        elif session.ended_at is not None:
            reason = "ended"
        else:
            reason = "expired" if now >= session.expires_at else "idle"
        error, message = _REFUSALS[reason]
        raise error(message, sid=sid)

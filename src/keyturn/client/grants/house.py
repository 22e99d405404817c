"""JSON and BearerRefresh: the refresh that a house has written for itself, with names of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import ClassVar

from keyturn.client.answer import Answer, FieldPaths, HTTPResponse, check_fields, tokens_at
from keyturn.client.grants import answers
from keyturn.client.grants.answers import Ended
from keyturn.client.grants.http import HTTPGrant, Post, refresh_token
from keyturn.client.grants.reply import Reply, fields_of
from keyturn.client.grants.token_endpoint import FIELDS
from keyturn.client.grants.transport import HTTPFactory
from keyturn.errors import ConfigurationError, OutcomeUnknown
from keyturn.tokens import Tokens

Send = Callable[[Tokens], Mapping[str, object]]
Receive = Callable[[Mapping[str, object]], Tokens]


class House(HTTPGrant):
    """The base of the grants whose answer is a JSON object with names of the server's own."""

    final: ClassVar[frozenset[int]]

    def __init__(
        self,
        url: str,
        *,
        receive: FieldPaths | Receive | None = None,
        ended: Ended | None = None,
        revoke_url: str | None = None,
        http: HTTPFactory | None = None,
        rotates: bool = True,
        replay_window: timedelta = timedelta(0),
        timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        super().__init__(
            url,
            revoke_url=revoke_url,
            http=http,
            rotates=rotates,
            replay_window=replay_window,
            timeout=timeout,
        )
        if not isinstance(receive, Mapping | None) and not callable(receive):
            raise ConfigurationError("receive must map fields to names, or be a callable body -> Tokens")
        self._receive = receive if callable(receive) else check_fields(FIELDS if receive is None else receive)
        self._ended = answers.check_ended(ended)

    def read(self, response: HTTPResponse) -> Tokens:
        """Return the Tokens of a login response in the same format. Raises ConfigurationError without any."""
        answer = Answer.of(response)
        pair = self._read(fields_of(answer), answer.sent_at, None)
        if pair is not None and not isinstance(pair, Tokens):
            raise ConfigurationError(_not_tokens(pair))
        if pair is None:
            raise ConfigurationError(f"the response ({response.status_code}) holds no access token")
        return pair

    def _raise_for_end(self, reply: Reply) -> None:
        if reply.status in self.final:
            raise answers.ended(reply)
        answers.raise_for_grant(reply)
        answers.raise_for_ended(reply, self._ended)

    def _pair(self, reply: Reply, tokens: Tokens) -> Tokens:
        pair = self._read(reply.body(), reply.sent_at, tokens)
        if pair is not None and not isinstance(pair, Tokens):
            raise OutcomeUnknown(_not_tokens(pair), status=reply.status)
        if pair is None:
            raise answers.no_pair(reply, "an access token")
        return pair

    def _read(self, body: Mapping[str, object] | None, sent_at: float, old: Tokens | None) -> object:
        if not callable(self._receive):
            return tokens_at(body, self._receive, sent_at, old)
        return None if body is None else self._receive(body)


class JSON(House):
    """Refresh by posting a JSON body of the server's own making.

    `send` is the name that the refresh token goes by, or a callable `tokens ->
    body`. `receive` maps "access", "refresh" and "expires_in" to dotted names
    in the answer (`{"access": "customResult.accessToken"}`), or is a callable
    `body -> Tokens`.

    A 401 and an `invalid_grant` end the session, and so does what `ended`,
    a callable `(status, body) -> bool`, says: `lambda status, body:
    body.get("success") is False`. With a `revoke_url` a sign-out posts the
    same body there. `rotates`, `replay_window` and `http` are as in `OAuth2`.
    """

    final = frozenset({401})

    def __init__(
        self,
        url: str,
        *,
        send: str | Send = "refresh_token",
        receive: FieldPaths | Receive | None = None,
        ended: Ended | None = None,
        revoke_url: str | None = None,
        http: HTTPFactory | None = None,
        rotates: bool = True,
        replay_window: timedelta = timedelta(0),
        timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        super().__init__(
            url,
            receive=receive,
            ended=ended,
            revoke_url=revoke_url,
            http=http,
            rotates=rotates,
            replay_window=replay_window,
            timeout=timeout,
        )
        if not isinstance(send, str) and not callable(send):
            raise ConfigurationError("send must be the refresh token's name, or a callable tokens -> body")
        self._send = send

    def _request(self, tokens: Tokens, now: float) -> Post:
        token = refresh_token(tokens)
        if isinstance(self._send, str):
            return Post(json={self._send: token})
        return Post(json=self._send(tokens), secrets=None)


class BearerRefresh(House):
    """Refresh by posting nothing but the refresh token, as `Authorization: Bearer …`.

    That is what flask-jwt-extended takes in its headers mode. A 401, its 422
    and an `invalid_grant` end the session, and so does what `ended` says;
    `receive` and the rest are as in `JSON`. An answer without a refresh token
    keeps the old one: where that is so every time, say `rotates=False`. With
    a `revoke_url` a sign-out posts the same header there.
    """

    final = frozenset({401, 422})

    def _request(self, tokens: Tokens, now: float) -> Post:
        return Post(headers={"Authorization": f"Bearer {refresh_token(tokens)}"})


def _not_tokens(pair: object) -> str:
    return f"receive must return keyturn.Tokens, not {type(pair).__name__}"

"""JSON: the refresh that a house has written for itself, with its own names and envelope."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

from keyturn.client.answer import Answer, FieldPaths, HTTPResponse, check_fields, tokens_at
from keyturn.client.grants import answers
from keyturn.client.grants.http import HTTPFactory, HTTPGrant, refresh_token
from keyturn.errors import ConfigurationError, OutcomeUnknown
from keyturn.tokens import Tokens

Send = Callable[[Tokens], Mapping[str, object]]
Receive = Callable[[Mapping[str, object]], Tokens]
Ended = Callable[[int, Mapping[str, object]], bool]


class JSON(HTTPGrant):
    """Refresh by posting a JSON body of the server's own making.

    `send` is the name that the refresh token goes by, or a callable `tokens ->
    body`. `receive` maps "access", "refresh" and "expires_in" to dotted names
    in the answer (`{"access": "customResult.accessToken"}`), or is a callable
    `body -> Tokens`.

    A 401 and an `invalid_grant` end the session, and so does what `ended`,
    a callable `(status, body) -> bool`, says: `lambda status, body:
    body.get("success") is False`. `rotates`, `replay_window` and `http` are
    as in `OAuth2`.
    """

    def __init__(
        self,
        url: str,
        *,
        send: str | Send = "refresh_token",
        receive: FieldPaths | Receive | None = None,
        ended: Ended | None = None,
        http: HTTPFactory | None = None,
        rotates: bool = True,
        replay_window: timedelta = timedelta(0),
        timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        super().__init__(url, http=http, rotates=rotates, replay_window=replay_window, timeout=timeout)
        if not isinstance(send, str) and not callable(send):
            raise ConfigurationError("send must be the refresh token's name, or a callable tokens -> body")
        if not isinstance(receive, Mapping | None) and not callable(receive):
            raise ConfigurationError("receive must map fields to names, or be a callable body -> Tokens")
        if ended is not None and not callable(ended):
            raise ConfigurationError("ended must be a callable (status, body) -> bool")
        self._send = send
        fields = {name: f"{name}_token" for name in ("access", "refresh")} | {"expires_in": "expires_in"}
        self._receive = receive if callable(receive) else check_fields(fields if receive is None else receive)
        self._ended = ended

    def read(self, response: HTTPResponse) -> Tokens:
        """Return the Tokens of a login response in the same format. Raises ConfigurationError without any."""
        pair = self._read(Answer.of(response), None)
        if pair is not None and not isinstance(pair, Tokens):
            raise ConfigurationError(_not_tokens(pair))
        if pair is None:
            raise ConfigurationError(f"the response ({response.status_code}) holds no access token")
        return pair

    def _request(self, tokens: Tokens) -> Mapping[str, object]:
        token = refresh_token(tokens)
        return {"json": {self._send: token} if isinstance(self._send, str) else self._send(tokens)}

    def _raise_for_end(self, answer: Answer) -> None:
        if answer.status == 401 or (answer.status < 500 and answers.error_code(answer) == "invalid_grant"):
            raise answers.ended(f"{answer.status}")
        body = answer.json()
        if self._ended is None or body is None or answer.status >= 500:
            return
        if self._ended(answer.status, body):
            raise answers.ended(f"{answer.status}, by the answer's body")

    def _pair(self, answer: Answer, tokens: Tokens) -> Tokens:
        pair = self._read(answer, tokens)
        if pair is not None and not isinstance(pair, Tokens):
            raise OutcomeUnknown(_not_tokens(pair), status=answer.status)
        if pair is None:
            raise answers.unreadable(answer, "an access token")
        return pair

    def _read(self, answer: Answer, old: Tokens | None) -> object:
        body = answer.json()
        if not callable(self._receive):
            return tokens_at(body, self._receive, answer.sent_at, old)
        return None if body is None else self._receive(body)


def _not_tokens(pair: object) -> str:
    return f"receive must return keyturn.Tokens, not {type(pair).__name__}"

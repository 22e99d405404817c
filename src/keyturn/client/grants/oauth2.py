"""OAuth2: the refresh token grant of RFC 6749 §6."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import quote_plus

import httpx2

from keyturn.client.answer import Answer, HTTPResponse, tokens_at
from keyturn.client.grants import answers
from keyturn.client.grants.http import HTTPFactory, HTTPGrant, refresh_token
from keyturn.errors import ConfigurationError
from keyturn.tokens import Tokens

_FIELDS = {"access": "access_token", "refresh": "refresh_token", "expires_in": "expires_in"}


class OAuth2(HTTPGrant):
    """Refresh at an OAuth 2.0 token end point (RFC 6749 §6).

    A public client gives its `client_id`; a confidential one adds its
    `client_secret`, sent by HTTP Basic (§2.3.1). Only `invalid_grant` (§5.2)
    ends the session. An answer without a refresh token keeps the old one.

    `rotates=False` says that the server lets a refresh token be used again;
    `replay_window` for how long after a rotation it answers the old one with
    the same successor. Both decide whether a refresh whose answer was lost
    may be sent again. `http` makes the exchange's own client, for proxies,
    TLS and tests.
    """

    def __init__(
        self,
        url: str,
        *,
        client_id: str | None = None,
        client_secret: str | None = None,
        scope: str | None = None,
        http: HTTPFactory | None = None,
        rotates: bool = True,
        replay_window: timedelta = timedelta(0),
        timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        super().__init__(url, http=http, rotates=rotates, replay_window=replay_window, timeout=timeout)
        for name, value in (("client_id", client_id), ("client_secret", client_secret), ("scope", scope)):
            if not isinstance(value, str | None):
                raise ConfigurationError(f"{name} must be a string")
        if client_secret is not None and client_id is None:
            raise ConfigurationError("a client_secret needs its client_id")
        self._form = {"grant_type": "refresh_token"}
        self._headers = httpx2.Headers({"Accept": "application/json"})  # whose repr hides the secret
        if scope is not None:
            self._form["scope"] = scope
        if client_secret is not None and client_id is not None:
            pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
            self._headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        elif client_id is not None:
            self._form["client_id"] = client_id

    def read(self, response: HTTPResponse) -> Tokens:
        """Return the Tokens of a login response (RFC 6749 §5.1). Raises ConfigurationError without any."""
        answer = Answer.of(response)
        pair = tokens_at(answer.json(), _FIELDS, answer.sent_at, None)
        if pair is None:
            raise ConfigurationError(f"the response ({response.status_code}) holds no access_token")
        return pair

    def _request(self, tokens: Tokens) -> Mapping[str, object]:
        return {"data": {**self._form, "refresh_token": refresh_token(tokens)}, "headers": self._headers}

    def _raise_for_end(self, answer: Answer) -> None:
        if answer.status < 500 and answers.error_code(answer) == "invalid_grant":
            raise answers.ended(f"{answer.status}, invalid_grant")

    def _pair(self, answer: Answer, tokens: Tokens) -> Tokens:
        pair = tokens_at(answer.json(), _FIELDS, answer.sent_at, tokens)
        if pair is None:
            raise answers.unreadable(answer, "an access_token")
        return pair

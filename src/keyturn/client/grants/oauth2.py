"""OAuth2: the refresh token grant of RFC 6749 §6."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta

from keyturn.client.answer import Answer, HTTPResponse, tokens_at
from keyturn.client.grants import answers
from keyturn.client.grants.client_auth import ClientAuth, Method
from keyturn.client.grants.http import Post, refresh_token
from keyturn.client.grants.reply import Reply, fields_of
from keyturn.client.grants.token_endpoint import FIELDS, TokenEndPoint
from keyturn.client.grants.transport import HTTPFactory
from keyturn.errors import ConfigurationError
from keyturn.tokens import Tokens


class OAuth2(TokenEndPoint):
    """Refresh at an OAuth 2.0 token end point (RFC 6749 §6).

    A public client gives its `client_id`. A confidential one adds its
    `client_secret`, sent by HTTP Basic (§2.3.1), or in the form with
    `client_auth="client_secret_post"`; or it signs, `client_auth=PrivateKeyJWT(…)`.
    `scope`, `resource` (RFC 8707, one or several) and `audience` narrow down
    what is asked for; `params` holds what else this server wants in the form.

    Only `invalid_grant` (§5.2) ends the session, and what `ended`, a callable
    `(status, body) -> bool`, says of a server with codes of its own. An answer
    without a refresh token keeps the old one. With a `revoke_url` (RFC 7009) a
    sign-out gives the refresh token up there.

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
        client_auth: Method | ClientAuth | None = None,
        scope: str | None = None,
        resource: str | Iterable[str] | None = None,
        audience: str | None = None,
        params: Mapping[str, str] | None = None,
        ended: Callable[[int, Mapping[str, object]], bool] | None = None,
        revoke_url: str | None = None,
        http: HTTPFactory | None = None,
        rotates: bool = True,
        replay_window: timedelta = timedelta(0),
        timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        super().__init__(
            url,
            grant_type="refresh_token",
            client_id=client_id,
            client_secret=client_secret,
            client_auth=client_auth,
            scope=scope,
            resource=resource,
            audience=audience,
            params=params,
            revoke_url=revoke_url,
            http=http,
            rotates=rotates,
            replay_window=replay_window,
            timeout=timeout,
        )
        self._ended = answers.check_ended(ended)

    def read(self, response: HTTPResponse) -> Tokens:
        """Return the Tokens of a login response (RFC 6749 §5.1). Raises ConfigurationError without any."""
        answer = Answer.of(response)
        pair = tokens_at(fields_of(answer), FIELDS, answer.sent_at, None)
        if pair is None:
            raise ConfigurationError(f"the response ({response.status_code}) holds no access_token")
        return pair

    def _request(self, tokens: Tokens, now: float) -> Post:
        return self._post_form({**self._form, "refresh_token": refresh_token(tokens)}, now)

    def _raise_for_end(self, reply: Reply) -> None:
        answers.raise_for_grant(reply)
        answers.raise_for_ended(reply, self._ended)

    def _pair(self, reply: Reply, tokens: Tokens) -> Tokens:
        return self._read(reply, FIELDS, tokens)

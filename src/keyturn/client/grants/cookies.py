"""Cookies: a refresh that travels in HttpOnly cookies, with a double-submit CSRF header."""

from __future__ import annotations

from datetime import timedelta

from keyturn.client import carriers
from keyturn.client.answer import Answer, HTTPResponse
from keyturn.client.grants import answers
from keyturn.client.grants.http import HTTPGrant, Post, refresh_token
from keyturn.client.grants.reply import Reply
from keyturn.client.grants.transport import HTTPFactory
from keyturn.errors import ConfigurationError
from keyturn.tokens import Tokens


class Cookies(HTTPGrant):
    """Refresh by posting the refresh cookie with its CSRF value, as flask-jwt-extended and keyturn take it.

    A 401 or 422 ends the session. What the answer does not set anew (a server
    that does not rotate keeps the refresh cookie) goes on. With a `revoke_url`
    a sign-out posts the same cookies there. `names` are the server's cookie
    and header names; `rotates`, `replay_window` and `http` are as in `OAuth2`.
    """

    def __init__(
        self,
        url: str,
        *,
        names: carriers.CookieNames = carriers.CookieNames(),  # noqa: B008 - frozen
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
        self.names = names
        self.carrier: carriers.Carrier = carriers.Cookies(names)

    def read(self, response: HTTPResponse) -> Tokens:
        """Return the Tokens that a login response sets as cookies. Raises ConfigurationError without any."""
        pair = carriers.cookie_pair(Answer.of(response), self.names, None)
        if pair is None:
            raise ConfigurationError(f"the response ({response.status_code}) sets no {self.names.access}")
        return pair

    def _request(self, tokens: Tokens, now: float) -> Post:
        names = self.names
        csrf = tokens.extra.get(names.refresh_csrf)
        ours = {names.refresh: refresh_token(tokens)} | ({} if csrf is None else {names.refresh_csrf: csrf})
        headers = {"Cookie": carriers.merge_cookies("", ours)}
        return Post(headers if csrf is None else {**headers, names.header: csrf})

    def _raise_for_end(self, reply: Reply) -> None:
        if reply.status in (401, 422):
            raise answers.ended(reply)

    def _pair(self, reply: Reply, tokens: Tokens) -> Tokens:
        pair = carriers.cookie_pair(reply, self.names, tokens)
        if pair is None:
            raise answers.no_pair(reply, f"a {self.names.access}")
        return pair

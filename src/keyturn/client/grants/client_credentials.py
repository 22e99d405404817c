"""ClientCredentials: an access token for the client itself (RFC 6749 §4.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

from keyturn.client.grants.client_auth import ClientAuth, Method
from keyturn.client.grants.http import Post
from keyturn.client.grants.reply import Reply
from keyturn.client.grants.token_endpoint import FIELDS, TokenEndPoint
from keyturn.client.grants.transport import HTTPFactory
from keyturn.errors import ConfigurationError
from keyturn.tokens import Tokens

_FIELDS = {field: name for field, name in FIELDS.items() if field != "refresh"}


class ClientCredentials(TokenEndPoint):
    """Ask an OAuth 2.0 token end point for a token of the client's own (RFC 6749 §4.4).

    There is no refresh token, and one in an answer is ignored (§4.4.3): a new
    access token is simply asked for. So nothing is spent by a request whose
    answer was lost, and it is sent again.

    No answer ends such a session, since nobody could sign in anew: what a
    server refuses (`invalid_client`, `unauthorized_client`, `invalid_scope`,
    `invalid_grant` too) is RefreshMisconfigured, and is asked again later.

    The client proves itself as in `OAuth2`, which see for the other
    arguments; one that has only its TLS certificate says `client_auth="none"`.
    With a `revoke_url` a sign-out gives the access token up there.
    """

    needs_refresh_token = False
    signs_in = True

    def __init__(
        self,
        url: str,
        *,
        client_id: str,
        client_secret: str | None = None,
        client_auth: Method | ClientAuth | None = None,
        scope: str | None = None,
        resource: str | Iterable[str] | None = None,
        audience: str | None = None,
        params: Mapping[str, str] | None = None,
        revoke_url: str | None = None,
        http: HTTPFactory | None = None,
        timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        if not isinstance(client_id, str):
            raise ConfigurationError("client credentials need a client_id")
        if client_secret is None and client_auth is None:
            raise ConfigurationError(
                "client credentials need a client_secret or a client_auth (RFC 6749 §4.4)"
            )
        super().__init__(
            url,
            grant_type="client_credentials",
            client_id=client_id,
            client_secret=client_secret,
            client_auth=client_auth,
            scope=scope,
            resource=resource,
            audience=audience,
            params=params,
            revoke_url=revoke_url,
            http=http,
            rotates=False,
            replay_window=timedelta(0),
            timeout=timeout,
        )

    def _request(self, tokens: Tokens, now: float) -> Post:
        return self._post_form(self._form, now)

    def _raise_for_end(self, reply: Reply) -> None:
        """Nothing does."""

    def _pair(self, reply: Reply, tokens: Tokens) -> Tokens:
        return self._read(reply, _FIELDS, None)

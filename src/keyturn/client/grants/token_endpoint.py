"""The token end point of OAuth 2.0, as every grant for one sees it.

What each of them sends besides its own: the proof of the client (§2.3),
`scope`, `resource` (RFC 8707), `audience`, and what a server of its own making
wants. What each reads: the answers of RFC 6749 §5. And the revocation end
point beside it (RFC 7009).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from urllib.parse import urlsplit

from keyturn.client.answer import tokens_at
from keyturn.client.grants import answers
from keyturn.client.grants.client_auth import ClientAuth, Method, proof_of
from keyturn.client.grants.http import HTTPGrant, Post
from keyturn.client.grants.reply import Reply
from keyturn.client.grants.transport import HTTPFactory
from keyturn.errors import ConfigurationError, OutcomeUnknown, RefreshMisconfigured
from keyturn.tokens import Tokens

FIELDS = {"access": "access_token", "refresh": "refresh_token", "expires_in": "expires_in"}

_OURS = frozenset(
    {"grant_type", "refresh_token", "scope", "resource", "audience", "client_id", "client_secret"}
    | {"client_assertion", "client_assertion_type", "token", "token_type_hint"}
)
# A type that asks for a proof with every request, which a bearer header is not. Any other is let by:
# the wild says "bot" and "Token" and means a bearer token.
_NEED_A_PROOF = frozenset({"dpop", "pop", "mac"})


class TokenEndPoint(HTTPGrant):
    """The base of the grants that post a form to a token end point."""

    def __init__(
        self,
        url: str,
        *,
        grant_type: str,
        client_id: str | None,
        client_secret: str | None,
        client_auth: Method | ClientAuth | None,
        scope: str | None,
        resource: str | Iterable[str] | None,
        audience: str | None,
        params: Mapping[str, str] | None,
        revoke_url: str | None,
        http: HTTPFactory | None,
        rotates: bool,
        replay_window: timedelta,
        timeout: timedelta,
    ) -> None:
        super().__init__(
            url,
            revoke_url=revoke_url,
            http=http,
            rotates=rotates,
            replay_window=replay_window,
            timeout=timeout,
        )
        self._client_id = client_id or ""
        self._auth = proof_of(client_id, client_secret, client_auth)
        self._params = _checked_params(params)
        self._form: dict[str, str | Sequence[str]] = {"grant_type": grant_type, **self._params}
        for name, value in (("scope", scope), ("audience", audience)):
            if not isinstance(value, str | None):
                raise ConfigurationError(f"{name} must be a string")
            if value is not None:
                self._form[name] = value
        if resource is not None:
            self._form["resource"] = _resources(resource)

    def _post_form(self, form: Mapping[str, str | Sequence[str]], now: float) -> Post:
        proof = self._auth.prove(self._client_id, str(self.url), now)
        headers = {"Accept": "application/json", **proof.headers}
        secrets = (*proof.secrets, *self._params.values())
        return Post(headers, form={**form, **proof.form}, secrets=secrets)

    def _revocation(self, tokens: Tokens, now: float) -> Post:
        """RFC 7009 §2.1."""
        if tokens.refresh is None:
            return self._post_form({"token": tokens.access, "token_type_hint": "access_token"}, now)
        return self._post_form({"token": tokens.refresh, "token_type_hint": "refresh_token"}, now)

    def _read(self, reply: Reply, fields: Mapping[str, str], old: Tokens | None) -> Tokens:
        """Return the tokens of a success (RFC 6749 §5.1), or raise what it means that there are none."""
        body = reply.body()
        pair = tokens_at(body, fields, reply.sent_at, old)
        if pair is None:
            raise answers.no_pair(reply, "an access_token")
        kind = (body or {}).get("token_type")
        if isinstance(kind, str) and kind.lower() in _NEED_A_PROOF:
            wrong = "the access token is of a type that needs a proof with every request, not a bearer token"
            if self.rotates:  # and the refresh token is spent
                raise OutcomeUnknown(wrong, status=reply.status)
            raise RefreshMisconfigured(wrong, status=reply.status)
        return pair


def _checked_params(params: Mapping[str, str] | None) -> dict[str, str]:
    given: object = {} if params is None else params
    if not isinstance(given, Mapping) or not all(
        isinstance(text, str) for one in given.items() for text in one
    ):
        raise ConfigurationError("params must map names to strings")
    if _OURS & set(given):
        raise ConfigurationError(
            f"params is for what has no argument of its own, unlike {min(_OURS & set(given))}"
        )
    return dict(given)


def _resources(resource: str | Iterable[str]) -> Sequence[str]:
    """Return what RFC 8707 §2 takes. Raises ConfigurationError for anything but absolute URIs."""
    given: object = [resource] if isinstance(resource, str) else resource
    uris = list(given) if isinstance(given, Iterable) else []
    if not uris or not all(isinstance(uri, str) and "#" not in uri and _scheme(uri) for uri in uris):
        raise ConfigurationError("resource must be an absolute URI without a fragment, or several")
    return uris


def _scheme(uri: str) -> str:
    try:
        return urlsplit(uri).scheme
    except ValueError:
        return ""

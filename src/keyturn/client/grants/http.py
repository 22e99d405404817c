"""The HTTP grants: how a refresh is sent, each over a connection of its own.

A fresh connection costs one handshake a refresh and spares the worst case: a
kept-alive connection that the server has just closed makes a request fail in
a way that does not tell whether it was processed.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import httpx2

from keyturn.client.answer import set_cookies
from keyturn.client.carriers import Bearer, Carrier
from keyturn.client.grants import answers
from keyturn.client.grants.grant import Wire
from keyturn.client.grants.reply import Reply
from keyturn.client.grants.transport import (
    HTTPFactory,
    check_factory,
    default_http,
    end_point,
    import_transport,
    made_by,
    window_and_timeout,
)
from keyturn.errors import NotSignedIn
from keyturn.tokens import Tokens


@dataclass(frozen=True, slots=True, repr=False)
class Post:
    """One request to an end point: its headers, and a form or a JSON object.

    `secrets` is what no error may repeat of it besides the tokens; None where
    nobody can tell.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str | Sequence[str]] | None = None
    json: Mapping[str, object] | None = None
    secrets: tuple[str, ...] | None = ()


class HTTPGrant(abc.ABC):
    """The grants that post one request to one end point, and at a sign-out maybe one to another."""

    carrier: Carrier = Bearer()
    needs_refresh_token = True

    def __init__(
        self,
        url: str,
        *,
        revoke_url: str | None,
        http: HTTPFactory | None,
        rotates: bool,
        replay_window: timedelta,
        timeout: timedelta,
    ) -> None:
        self.url = end_point(url, "refresh")
        self.revoke_url = None if revoke_url is None else end_point(revoke_url, "revocation")
        self.rotates = rotates
        self.replay_window, self.timeout = window_and_timeout(replay_window, timeout)
        self._http = default_http(self.timeout) if http is None else check_factory("http", http)
        import_transport()

    def __repr__(self) -> str:
        url = self.url.copy_with(query=None, fragment=None, username=None, password=None)
        return f"<{type(self).__name__} {url}>"

    async def exchange(self, tokens: Tokens, wire: Wire) -> Tokens:
        """Send the refresh and read its answer; see `Grant.exchange`."""
        reply = await self._post(self.url, self._request, tokens, wire)
        if reply.status not in answers.OVERLOADED:
            self._raise_for_end(reply)
        answers.raise_for_refusal(reply)
        return self._pair(reply, tokens)

    @property
    def revokes(self) -> bool:
        """Return whether a sign-out is told to the server: whether there is a `revoke_url`."""
        return self.revoke_url is not None

    async def revoke(self, tokens: Tokens) -> None:
        """Tell the server that `tokens` are given up; see `Revoking.revoke`.

        A token that the server does not know, or not any more, is a success
        (RFC 7009 §2.2). Without a `revoke_url`, or with nothing to give up,
        nothing is sent.
        """
        if self.revoke_url is None:
            return
        wire = Wire(errand="revocation")
        try:
            async with asyncio.timeout(self.timeout):
                reply = await self._post(self.revoke_url, self._revocation, tokens, wire)
            self._raise_for_life(reply)
        except NotSignedIn:  # there is no token, or the server has ended the session before
            return
        except Exception as error:  # noqa: BLE001 - raised as what it means
            raise answers.failure(error, wire) from None

    def _raise_for_life(self, reply: Reply) -> None:
        """Return where a revocation was answered by anything that says that the token is dead."""
        if reply.status not in answers.OVERLOADED:
            self._raise_for_end(reply)
        if reply.status >= 500 or reply.error_code() != "invalid_token":
            answers.raise_for_refusal(reply)
            answers.raise_for_error_in_success(reply)

    async def _post(
        self, url: httpx2.URL, build: Callable[[Tokens, float], Post], tokens: Tokens, wire: Wire
    ) -> Reply:
        wire.begun = False
        post = build(tokens, wire.clock())
        async with made_by(self._http) as http:
            request = http.build_request("POST", url, headers=post.headers, data=post.form, json=post.json)
            request.extensions = {**request.extensions, "trace": wire.trace}
            sent_at, wire.begun = wire.clock(), True
            response = await http.send(request, auth=None, follow_redirects=False)
            wire.sent = True  # which a transport of the user's own may not have told
        ours = (tokens.access, tokens.refresh or "", *tokens.extra.values())
        return Reply(
            response.status_code,
            response.headers,
            sent_at,
            set_cookies(response.headers),
            response.content,
            errand=wire.errand,
            secrets=None if post.secrets is None else (*ours, *post.secrets),
        )

    @abc.abstractmethod
    def _request(self, tokens: Tokens, now: float) -> Post:
        """Return what to post at `now` (POSIX seconds). Raise NotSignedIn without a refresh token."""

    def _revocation(self, tokens: Tokens, now: float) -> Post:
        """Return what to post to the revocation end point: by default what a refresh posts."""
        return self._request(tokens, now)

    @abc.abstractmethod
    def _raise_for_end(self, reply: Reply) -> None:
        """Raise SessionEnded where the answer is what this grant declares final."""

    @abc.abstractmethod
    def _pair(self, reply: Reply, tokens: Tokens) -> Tokens:
        """Return the pair of a success; raise what it means that there is none."""


def refresh_token(tokens: Tokens) -> str:
    """Return the refresh token. Raises NotSignedIn where there is none."""
    if tokens.refresh is None:
        raise NotSignedIn("there is no refresh token: sign in again")
    return tokens.refresh

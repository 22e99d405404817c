"""keyturn for aiohttp: `Middleware`, for any carrier, and `load` for the response of a login."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from keyturn.client.authflow import Journey, Step, authflow
from keyturn.client.credentials import Credentials
from keyturn.client.snapshot import Snapshot
from keyturn.errors import ConfigurationError, MissingExtra

try:
    import aiohttp
    from aiohttp.base_protocol import BaseProtocol

    aiohttp.ClientRequest.update_body  # noqa: B018 - since 3.12.1 a body may be sent twice
except (ImportError, AttributeError) as error:
    raise MissingExtra(
        "keyturn.client.aiohttp needs aiohttp 3.12.1 or newer: pip install 'keyturn[aiohttp]'"
    ) from error

from keyturn.client.aiohttp_bodies import is_bytes
from keyturn.client.aiohttp_call import (
    HopCall,
    addresses,
    begun_under,
    may_go_on,
    put_on,
    take_off,
)

_MULTIPLE_CHOICES = 300


class Middleware:
    """Attach the credentials' tokens; on a refusal, refresh once for everyone and send again.

    For `ClientSession(middlewares=[Middleware(credentials)])`, with any
    carrier. May be shared by any number of sessions and event loops. Put it
    last in the list: then the others see the final response only, and what
    they make of the body is made once.

    A request opts out with `middlewares=()`, which takes the place of the
    session's; `ws_connect` has no such argument and needs another session.
    `Authorization` headers, `auth=` and cookies of our names give way on a
    request to our origins: opt out to send your own.

    Every hop of a redirect is attached and judged by itself, as is the
    handshake of `ws_connect`. To other origins nothing of ours goes, nor does
    any token stay in `response.request_info`.

    The time of `ClientTimeout(total=…)` goes on while a request waits for a
    refresh; whoever runs out of it gets aiohttp's TimeoutError, and the
    refresh goes on for the others. The other limits hold for each attempt.

    A body of bytes, text, JSON or a form is sent again, and so is a file that
    can seek, from where it stood. A refused generator or stream raises
    NotReplayable. Requests also raise what `Credentials.get_tokens` raises.
    Raises ConfigurationError for anything but Credentials.
    """

    def __init__(self, credentials: Credentials) -> None:
        if not isinstance(credentials, Credentials):
            raise ConfigurationError(
                f"Middleware takes keyturn.Credentials, not {type(credentials).__name__}"
            )
        self._credentials = credentials
        self._ours = addresses(credentials.origins)
        # Looked up once: nearly every request needs these and no more.
        carrier = credentials.carrier
        self._adopts, self._refused, self._fresh = carrier.adopts, carrier.refused, credentials.fresh

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Take one hop of a request through.

        Nearly every request needs no more thought until it is refused, so
        that much is kept short here.
        """
        credentials, url = self._credentials, request.url
        if (
            self._adopts
            or (url.scheme, url.raw_host, url.port) not in self._ours
            or not is_bytes(request.body)
            or (snapshot := self._fresh()) is None
            or begun_under(request, credentials) is not None
        ):
            return await _drive(HopCall(request, credentials, self._ours), handler)
        carrier = credentials.carrier
        kept = put_on(request, carrier, snapshot)
        try:
            response = await handler(request)
        except BaseException:
            may_go_on(request, credentials, snapshot)
            raise
        finally:
            take_off(request, carrier, kept)
        if response.status >= _MULTIPLE_CHOICES:
            may_go_on(request, credentials, snapshot)
        if not self._refused(response.status, response.headers):
            return response
        call = HopCall(request, credentials, self._ours)
        return await _drive(call, handler, (snapshot, response))


async def _drive(
    call: HopCall,
    handler: aiohttp.ClientHandlerType,
    refused: tuple[Snapshot, aiohttp.ClientResponse] | None = None,
) -> aiohttp.ClientResponse:
    """Drive authflow around the rest of aiohttp's middlewares."""
    flow: Journey[aiohttp.ClientResponse] = authflow(call.credentials, call, refused)
    response = None if refused is None else refused[1]
    try:
        step = next(flow)
        while True:
            reply: object = None
            if step is Step.SEND:
                try:
                    reply = response = await handler(call.request)
                finally:
                    call.detach()
            elif isinstance(step, Step):
                call.content = await _read(cast(aiohttp.ClientResponse, response))
            else:
                reply = await step.wait_async()
            step = flow.send(reply)
    except StopIteration as end:
        return cast(aiohttp.ClientResponse, end.value)
    except BaseException:
        if response is not None:
            response.close()
        raise
    finally:
        flow.close()


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read the body, which frees the connection, and leave it to be streamed by whoever gets the response."""
    content = await response.read()
    loop = asyncio.get_running_loop()
    stream = aiohttp.StreamReader(BaseProtocol(loop), max(len(content), 1), loop=loop)
    stream.feed_data(content)
    stream.feed_eof()
    response.content = stream
    return content


@dataclass(frozen=True, slots=True)
class Loaded:
    """A response that has been read, as `grant.read` takes it."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes


async def load(response: aiohttp.ClientResponse) -> Loaded:
    """Read a login response, for `credentials.sign_in(grant.read(await load(response)))`.

    Log in with `middlewares=()`, or with a session of its own, and load at
    once: aiohttp does not tell when a request was sent, so that `expires_in`
    counts from here.
    """
    return Loaded(response.status, response.headers, await response.read())

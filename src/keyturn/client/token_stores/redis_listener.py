"""The ear of a process: one subscription for all names, for as long as anybody watches.

It is renewed after any failure, with growing jittered pauses. What was
published meanwhile is lost, so each time that it stands, the first time
included, every watcher is told that something may have been missed.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections.abc import Callable

from redis.asyncio import Connection
from redis.exceptions import ConnectionError as RedisConnectionError

from keyturn.client.token_stores import Changed
from keyturn.client.token_stores.redis_errors import refusal
from keyturn.client.token_stores.watchers import Watchers
from keyturn.clocks import monotonic

_CONNECT = 3.0  # seconds, to connect and subscribe
_SILENCE = 2.0  # seconds without a word, after which the server is asked whether it is there; then once more
_LINGER = 10.0  # seconds that the subscription outlasts the last watcher
_PAUSES = (0.05, 5.0)
logger = logging.getLogger("keyturn.client")


class Listener:
    """One subscriber a store, and who watches which name."""

    def __init__(self, connect: Callable[[], Connection], channel: str) -> None:
        self._connect = connect
        self._channel = channel
        self._watchers = Watchers()
        self._left = 0.0  # when the last watcher left
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    def watch(self, name: str, changed: Changed) -> None:
        """Call `changed` from now on."""
        self._watchers.add(name, changed)
        self._start()

    def unwatch(self, name: str, changed: Changed) -> None:
        """Call it no more; one that does not watch is no error."""
        self._watchers.remove(name, changed)
        self._left = monotonic()

    async def close(self) -> None:
        """Stop listening and forget who watches."""
        self._watchers.clear()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _start(self) -> None:
        if self._task is None and self._watchers:
            running = asyncio.get_running_loop()
            self._task = running.create_task(self._listen_on(), context=contextvars.Context())

    async def _listen_on(self) -> None:
        shortest, longest = _PAUSES
        while not self._alone():
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                if self._failures == 0:
                    logger.info("notifications of the token store are interrupted: %s", refusal(error))
                pause = min(shortest * 2**self._failures, longest)
                self._failures = min(self._failures + 1, 20)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
        self._task = None

    async def _listen(self) -> None:
        """Listen until it fails, or nobody has watched for a while."""
        connection = self._connect()
        try:
            async with asyncio.timeout(_CONNECT):
                await connection.connect()  # type: ignore[no-untyped-call]
                await connection.send_command("SUBSCRIBE", self._channel)
                await connection.read_response()
            self._failures = 0
            self._watchers.tell_all()
            await self._hear_from(connection)
        finally:
            await connection.disconnect(nowait=True)

    async def _hear_from(self, connection: Connection) -> None:
        asked = False
        while not self._alone():
            heard = await connection.read_response(timeout=_SILENCE)
            if heard is not None:
                asked = False
                if heard[0] == b"message":
                    self._watchers.hear(heard[2])
            elif asked:
                raise RedisConnectionError("it does not answer")
            else:
                asked = True
                await connection.send_command("PING", check_health=False)

    def _alone(self) -> bool:
        return not self._watchers and monotonic() - self._left >= _LINGER

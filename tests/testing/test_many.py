"""A thousand clients at once."""

from __future__ import annotations

import asyncio
import resource
from urllib.parse import urlsplit

from keyturn.testing import StrictServer

_CLIENTS = 1_000


def test_a_thousand_simultaneous_connections_are_all_answered(strict_server: StrictServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4_096)), hard))
    access = strict_server.sign_in().access
    strict_server.hold_api(_CLIENTS)
    statuses = asyncio.run(_all_at_once(strict_server.url, access))
    assert statuses == [b"HTTP/1.1 200 "] * _CLIENTS
    stats = strict_server.stats
    assert (stats.connections, stats.api, stats.answered) == (_CLIENTS, _CLIENTS, _CLIENTS)


async def _all_at_once(url: str, access: str) -> list[bytes]:
    where = urlsplit(url)

    async def one() -> bytes:
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.write(f"GET /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {access}\r\n\r\n".encode())
        status = await reader.readexactly(13)
        writer.close()
        await writer.wait_closed()
        return status

    return await asyncio.gather(*(one() for _ in range(_CLIENTS)))

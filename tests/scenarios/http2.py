"""A host that speaks HTTP/2 over TLS, in a process of its own, in front of a strict server.

What arrives is passed on as it is; `x-arrived-by` in the answer tells the
version of HTTP that it came by.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, Any, Self, cast

import httpx2
import trustme

from tests.scenarios.service import ROOT

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
_BY_HOP = {b"connection", b"content-length", b"host", b"transfer-encoding"}


class Front:
    """A running front: `with Front(server.url, tmp_path) as front`; `ca` is its authority's file."""

    def __init__(self, behind: str, folder: Path) -> None:
        authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self._certificate = folder / "certificate.pem"
        authority.cert_pem.write_to_path(self.ca)
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(self._certificate)
        self._behind = behind
        self.url = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.scenarios.http2", self._behind, str(self._certificate)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.url = cast("IO[bytes]", self._process.stdout).readline().decode().strip()
        assert self.url, "the front did not come up"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


async def _pass_on(scope: dict[str, Any], receive: Receive, send: Send, to: httpx2.AsyncClient) -> None:
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    headers = [(name, value) for name, value in scope["headers"] if name not in _BY_HOP]
    path = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    answer = await to.request(scope["method"], path.decode(), headers=headers, content=body)
    kept = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() not in _BY_HOP]
    kept.append((b"x-arrived-by", scope["http_version"].encode()))
    await send({"type": "http.response.start", "status": answer.status_code, "headers": kept})
    await send({"type": "http.response.body", "body": answer.content})


async def _serve(behind: str, certificate: str) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=behind, timeout=60.0, limits=limits, trust_env=False) as to:

        async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            await _pass_on(scope, receive, send, to)

        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(100)
            config = Config()
            config.bind = [f"fd://{listening.fileno()}"]
            config.certfile = config.keyfile = certificate
            sys.stdout.write(f"https://localhost:{listening.getsockname()[1]}\n")
            sys.stdout.flush()
            gone = asyncio.to_thread(sys.stdin.read)  # whoever started this process has ended
            await serve(cast(Any, app), config, shutdown_trigger=lambda: gone)


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))

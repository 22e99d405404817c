"""Jupyter: a kernel whose loop runs all the time; cells await, or block, and share one refresh."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

from keyturn.testing import StrictServer
from tests.scenarios.program import written
from tests.waiting import WITHIN

SETUP = """
import asyncio, json
import httpx2, keyturn
from keyturn.client import grants
from keyturn.client.httpx2 import Auth

given = json.loads({given!r})
credentials = keyturn.Credentials(
    grants.OAuth2(given["url"] + "/token"),
    tokens=keyturn.Tokens(**given["tokens"]),
    origins=[given["url"]],
)
options = dict(base_url=given["url"], auth=Auth(credentials), verify=False, trust_env=False)
"""


class Kernel:
    """A notebook's kernel, in a process of its own."""

    def __init__(self, manager: Any) -> None:
        self._client = manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=WITHIN)

    def start(self, cell: str) -> None:
        """Send a cell off."""
        self._client.execute(cell, store_history=False)

    def result(self) -> str:
        """Return what the cell that was sent off first has for a result."""
        said = "None"
        while True:
            message = self._client.get_iopub_msg(timeout=WITHIN)
            kind, content = message["msg_type"], message["content"]
            about = message["parent_header"].get("msg_type")
            if kind == "error":
                pytest.fail("\n".join(content["traceback"]))
            if kind == "execute_result":
                said = content["data"]["text/plain"]
            if about == "execute_request" and content.get("execution_state") == "idle":
                return said

    def run(self, cell: str) -> str:
        """Run a cell and return its result."""
        self.start(cell)
        return self.result()

    def close(self) -> None:
        """Hang up."""
        self._client.stop_channels()


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """A kernel that writes nothing outside of the test's directory."""
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    manager: Any = KernelManager(kernel_name="python3")
    manager.start_kernel()
    try:
        kernel = Kernel(manager)
        yield kernel
        kernel.close()
    finally:
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def test_cells_await_or_block_in_the_running_loop_and_share_one_refresh(
    strict_server: StrictServer, kernel: Kernel
) -> None:
    tokens = written(strict_server.sign_in(ttl=-1.0))
    kernel.run(SETUP.format(given=json.dumps({"url": strict_server.url, "tokens": tokens})))
    strict_server.hold_refresh("after")

    kernel.run("waiting = asyncio.create_task(credentials.aget_tokens())")
    strict_server.wait_for(WITHIN, rotations=1)
    kernel.start("credentials.get_tokens().generation")  # blocks the loop that the task waits in
    strict_server.release()
    assert kernel.result() == "1"
    assert kernel.run("(await waiting).generation") == "1"
    assert kernel.run("(await credentials.aget_tokens()).generation") == "1"
    assert strict_server.stats.refreshes == 1

    strict_server.expire()
    kernel.run("api = httpx2.AsyncClient(**options)")
    many = "[one.status_code for one in await asyncio.gather(*(api.get('/x') for _ in range(5)))]"
    assert kernel.run(many) == "[200, 200, 200, 200, 200]"
    strict_server.expire()
    kernel.run("with httpx2.Client(**options) as blocking: status = blocking.get('/x').status_code")
    assert kernel.run("status, (await api.get('/x')).status_code") == "(200, 200)"
    assert strict_server.stats.refreshes == 3

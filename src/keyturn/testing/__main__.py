"""Run the strict server: one line of JSON on stdout says where it is; it ends when stdin closes.

python -m keyturn.testing [--port 8000] [--ttl 60] [--refresh-delay 0.05] ...
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import sys
import threading

from keyturn.testing.records import Settings


def main() -> int:
    """Serve until stdin closes."""
    parser = argparse.ArgumentParser(
        prog="python -m keyturn.testing", description="A strict rotating token server."
    )
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    for one in dataclasses.fields(Settings):
        flag = f"--{one.name.replace('_', '-')}"
        if isinstance(one.default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=one.default)
        else:
            parser.add_argument(flag, type=type(one.default), default=one.default)
    given = vars(parser.parse_args())
    port = given.pop("port")
    try:
        import h11  # noqa: F401
    except ImportError:
        sys.stderr.write("the strict server needs h11: pip install 'keyturn[testing]'\n")
        return 1
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(Settings(**given), port))
    return 0


async def _serve(settings: Settings, port: int) -> None:
    from keyturn.testing.protocol import listen
    from keyturn.testing.server import Server

    _allow_many_sockets()
    server, stop = Server(settings), asyncio.Event()
    loop = asyncio.get_running_loop()

    def until_stdin_closes() -> None:
        while os.read(0, 4096):
            pass
        with contextlib.suppress(RuntimeError):  # the loop has closed already
            loop.call_soon_threadsafe(stop.set)

    def ready(port: int) -> None:
        line = {"url": f"http://127.0.0.1:{port}", "control": server.secret}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        threading.Thread(target=until_stdin_closes, daemon=True).start()

    await listen(server.respond, port, stop, ready)


def _allow_many_sockets() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())

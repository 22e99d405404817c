"""`python -m tests.scenarios.apps.serve NAME`: serve `create_app` of an application in this directory.

It says on stdout where it listens, and ends when its stdin closes: with its
parent, however that ends.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading

from werkzeug.serving import WSGIRequestHandler, make_server


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing: the application keeps a record."""


def main(name: str) -> None:
    app = importlib.import_module(f"tests.scenarios.apps.{name}").create_app()
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])

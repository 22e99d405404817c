"""What every application here can do for its test: say what arrived, hold requests, move its clock."""

from __future__ import annotations

import threading
import time
from typing import Any

import flask

CONTROL = "/_test/"
HELD_AT_MOST = 20.0


class Record:
    """Every request of an application as it arrived, in order; and the hands on it from outside."""

    def __init__(self, app: flask.Flask) -> None:
        self.switches: dict[str, Any] = {}
        self._seen: list[dict[str, Any]] = []
        self._ahead = 0.0
        self._lock = threading.Lock()
        self._barrier: threading.Barrier | None = None
        self._left = 0
        app.before_request(self._arrives)
        app.after_request(self._leaves)
        app.add_url_rule(CONTROL + "<verb>", "test", self._control, methods=["POST"])

    def now(self) -> float:
        """The time by the application's clock, which the test may move."""
        return time.time() + self._ahead

    def _arrives(self) -> None:
        request = flask.request
        if request.path.startswith(CONTROL):
            return
        entry = {
            "method": request.method,
            "path": request.path,
            "csrf": request.headers.get("X-CSRF-TOKEN"),
            "authorization": request.headers.get("Authorization"),
            "cookies": dict(request.cookies),
            "body": request.get_data(as_text=True),
            "status": None,
        }
        flask.g.entry = entry
        barrier = None
        with self._lock:
            self._seen.append(entry)
            if self._left and not request.path.startswith(("/token", "/auth", "/login")):
                self._left -= 1
                barrier = self._barrier
        if barrier is not None:
            barrier.wait(HELD_AT_MOST)

    def _leaves(self, response: flask.Response) -> flask.Response:
        if "entry" in flask.g:
            flask.g.entry["status"] = response.status_code
        return response

    def _control(self, verb: str) -> dict[str, Any]:
        asked = flask.request.get_json()
        with self._lock:
            match verb:
                case "reset":
                    self._seen, self._ahead, self._left, self._barrier = [], 0.0, 0, None
                    self.switches.clear()
                case "switch":
                    self.switches.update(asked)
                case "hold":
                    self._left, self._barrier = asked["n"], threading.Barrier(asked["n"])
                case "ahead":
                    self._ahead = asked["seconds"]
                case "seen":
                    return {"seen": self._seen}
                case _:
                    flask.abort(404)
        return {}

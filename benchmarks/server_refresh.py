"""How many refreshes a second, beside what the database could do at most.

    python benchmarks/server_refresh.py

In one process and one thread, on one kind of file (SQLite, WAL, synchronous
NORMAL, one row a session): a bare conditional UPDATE, the store's read and
advance, and `Issuer.refresh` with its decision and both tokens. Then real
HTTP through gunicorn with two workers, beside a view that does nothing.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import flask

from keyturn.server import Issuer, Rotation
from keyturn.server.flask import Keyturn
from keyturn.server.session_stores.sqlite import SQLiteStore

SECRET = "a secret that is only used for measuring"
SESSIONS = 64
ROUNDS = 5


def rates(calls: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Calls a second of each: the best of several rounds, taken in turn so that all meet the same machine."""
    best = dict.fromkeys(calls, 0.0)
    for _ in range(ROUNDS):
        for name, call in calls.items():
            done, start = 0, time.perf_counter()
            while (spent := time.perf_counter() - start) < seconds / ROUNDS:
                for _ in range(20):
                    call()
                done += 20
            best[name] = max(best[name], done / spent)
    return best


def create_app() -> flask.Flask:
    """The service that gunicorn runs: every token is good once, so that each refresh is a rotation."""
    issuer = Issuer(
        secret=SECRET,
        store=SQLiteStore(os.environ["STORE"], timeout=30),
        rotation=Rotation(window=timedelta(0)),
    )
    auth = Keyturn(issuer, "bearer")
    app = flask.Flask(__name__)
    auth.init_app(app)

    @app.post("/login")
    def login() -> flask.Response:
        return auth.sign_in("alice")

    @app.post("/nothing")
    def nothing() -> dict[str, str]:
        flask.request.get_data()
        return {"access_token": "x" * 330, "refresh_token": "x" * 80}

    return app


def refreshing(issuer: Issuer) -> Callable[[], None]:
    current = [issuer.sign_in("alice") for _ in range(SESSIONS)]
    turns = itertools.cycle(range(SESSIONS))

    def refresh() -> None:
        turn = next(turns)
        current[turn] = issuer.refresh(current[turn].refresh)

    return refresh


def in_one_process(folder: Path, seconds: float) -> None:
    store = SQLiteStore(folder / "measured.db")
    strict = Rotation(window=timedelta(0))
    issuer = Issuer(secret=SECRET, store=store, rotation=strict)
    sids = itertools.cycle([issuer.sign_in("bob").sid for _ in range(SESSIONS)])
    counters: dict[str, int] = {}
    connection = sqlite3.connect(folder / "measured.db", isolation_level=None)
    connection.execute("PRAGMA synchronous = NORMAL")

    def bare() -> None:
        sid = next(sids)
        counter = counters.get(sid, 0)
        done = connection.execute(
            "UPDATE sessions SET counter = ?, rotated_at = ?"
            " WHERE sid = ? AND counter = ? AND ended_at IS NULL",
            (counter + 1, time.time(), sid, counter),
        )
        assert done.rowcount == 1
        counters[sid] = counter + 1

    def read_and_advance() -> None:
        sid = next(sids)
        row = store.get(sid)
        assert row is not None
        assert store.advance(sid, read=row.counter, to=row.counter + 1)
        counters[sid] = row.counter + 1

    measured = rates(
        {
            "a bare conditional UPDATE": bare,
            "the store's read and advance": read_and_advance,
            "Issuer.refresh on SQLite": refreshing(issuer),
            "Issuer.refresh on the memory store": refreshing(
                Issuer(secret=SECRET, store="memory://", rotation=strict)
            ),
        },
        seconds,
    )
    connection.close()
    store.close()
    print(f"one process, one thread, {SESSIONS} sessions; the bare UPDATE is the limit")
    limit = measured["a bare conditional UPDATE"]
    for name, figure in measured.items():
        print(f"  {name:36} {figure:8,.0f} /s {1e6 / figure:8.1f} µs   {figure / limit:.2f} of the limit")


def through_gunicorn(folder: Path, seconds: float, clients: int) -> None:
    paths = {"/nothing": 0.0, "/auth/refresh": 0.0}
    with serving(folder) as port:
        for _ in range(ROUNDS):
            for path in paths:
                paths[path] = max(paths[path], hammer(port, seconds / ROUNDS, clients, path))
    nothing, refreshed = paths.values()
    print(f"gunicorn, 2 workers x 4 threads, {clients} clients, all on {os.cpu_count()} processors")
    print(f"  a view that does nothing             {nothing:8,.0f} /s")
    print(f"  a refresh, each one a rotation       {refreshed:8,.0f} /s   {refreshed / nothing:.2f} of it")


def hammer(port: int, seconds: float, clients: int, path: str) -> float:
    counts = [0] * clients
    start, stop = threading.Barrier(clients + 1), threading.Event()

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        pair = call(connection, "/login", {})
        start.wait()
        while not stop.is_set():
            pair = call(connection, path, {"refresh_token": pair["refresh_token"]})
            counts[number] += 1
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


def call(connection: http.client.HTTPConnection, path: str, body: dict[str, str]) -> dict[str, str]:
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read()
    assert response.status == 200, text
    said = json.loads(text)
    return {"refresh_token": said["refresh_token"]}


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(256)
        command = [
            sys.executable, "-m", "gunicorn", "server_refresh:create_app()",
            "--chdir", str(Path(__file__).parent), "--workers", "2", "--threads", "4",
            "--bind", f"fd://{listener.fileno()}", "--log-level", "warning", "--no-control-socket",
        ]  # fmt: skip
        process = subprocess.Popen(
            command, pass_fds=[listener.fileno()], env=os.environ | {"STORE": str(folder / "served.db")}
        )
        try:
            yield listener.getsockname()[1]
        finally:
            process.terminate()
            process.wait(60)


def main() -> None:
    arguments = argparse.ArgumentParser(description="Measure refreshes a second.")
    arguments.add_argument("--seconds", type=float, default=4.0, help="for each figure (default 4)")
    arguments.add_argument("--clients", type=int, default=16, help="at gunicorn (default 16)")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        in_one_process(Path(folder), chosen.seconds)
        through_gunicorn(Path(folder), chosen.seconds, chosen.clients)


if __name__ == "__main__":
    main()

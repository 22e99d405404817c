"""gunicorn's prefork: each worker refreshes once, for itself; what was made before a fork is only used."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from keyturn.testing import StrictServer
from tests.environments.programs import ROOT
from tests.kit import in_threads
from tests.scenarios.program import written
from tests.waiting import WITHIN

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="gunicorn needs fork")

CROWD = 20


@contextmanager
def served(worker_class: str, **environment: str) -> Iterator[str]:
    """Serve the service by two workers; yield its URL. `preload` is among the environment's names."""
    with socket.socket() as listener, tempfile.TemporaryFile() as said:
        listener.bind(("127.0.0.1", 0))
        listener.listen(256)  # where connections wait until a worker is there
        more = ["--preload"] if environment.pop("preload") else []
        if environment["MADE"] == "in the hook":
            more += ["--config", "python:tests.environments.apps.gunicorn_conf"]
        if worker_class == "gthread":
            more += ["--threads", "8"]
        command = [
            *[sys.executable, "-m", "gunicorn", "tests.environments.apps.service:app", *more],
            *["--workers", "2", "--worker-class", worker_class, "--no-control-socket"],
            *["--bind", f"fd://{listener.fileno()}", "--log-level", "warning"],
        ]
        process = subprocess.Popen(
            command, pass_fds=[listener.fileno()], cwd=ROOT, env=os.environ | environment, stderr=said
        )
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.terminate()
            process.wait(WITHIN)
            said.seek(0)
            errors = said.read().decode()
    assert "Traceback" not in errors, errors


def call(url: str) -> dict[int, set[str]]:
    """Call the service from many threads, until both workers have answered; return what each said."""
    answers: dict[int, set[str]] = defaultdict(set)

    def ask(_: int) -> None:
        response = httpx2.get(
            url, headers={"Connection": "close"}, timeout=WITHIN, verify=False, trust_env=False
        )
        answer = response.json()
        answers[answer["worker"]].add(answer["said"])

    for _ in range(50):
        in_threads(CROWD, ask)
        if len(answers) == 2:
            return answers
    raise AssertionError(f"only {len(answers)} worker answers")


@pytest.mark.parametrize(
    ("worker_class", "preload", "made"),
    [
        ("sync", "", "at import"),
        ("sync", "yes", "in the hook"),
        ("sync", "yes", "at import"),
        ("gthread", "", "at import"),
        ("gthread", "yes", "in the hook"),
        ("gevent", "", "at import"),
        ("gevent", "yes", "in the hook"),
    ],
)
def test_each_worker_asks_once_for_its_tokens_and_answers_everyone(
    strict_server: StrictServer, worker_class: str, preload: str, made: str
) -> None:
    strict_server.configure(refresh_delay=0.05)
    with served(worker_class, preload=preload, SERVER=strict_server.url, MADE=made) as url:
        assert set().union(*call(url).values()) == {"200"}
        assert strict_server.stats.issued == 2

        strict_server.expire()
        assert set().union(*call(url).values()) == {"200"}
        assert 3 <= strict_server.stats.issued <= 4, "whoever was called asked again, once"


@pytest.mark.parametrize("worker_class", ["sync", "gthread", "gevent"])
def test_a_single_use_token_from_before_the_fork_is_refreshed_by_no_worker_and_each_is_told_the_way_out(
    strict_server: StrictServer, worker_class: str
) -> None:
    tokens = json.dumps(written(strict_server.sign_in(ttl=600.0)))
    environment = {"preload": "yes", "SERVER": strict_server.url, "MADE": "at import", "TOKENS": tokens}
    with served(worker_class, **environment) as url:
        assert set().union(*call(url).values()) == {"200"}, "the access token is used"

        strict_server.expire()
        (said,) = set().union(*call(url).values())

    assert said.startswith("RefreshAfterFork: ")
    assert "post_fork" in said
    assert strict_server.stats.refreshes == 0

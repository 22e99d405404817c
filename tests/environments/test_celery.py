"""Celery's prefork: credentials of worker_process_init refresh once a worker; those of the parent do not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import celery
import pytest
import redis

from keyturn.testing import StrictServer
from tests.environments.programs import ROOT
from tests.scenarios.program import written
from tests.waiting import WITHIN

BROKER = os.environ.get("KEYTURN_TEST_REDIS", "redis://127.0.0.1:6379")
CROWD = 20

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="Celery's prefork needs fork")


@pytest.fixture
def prefix() -> Iterator[str]:
    """Return what all keys in the broker begin with, and leave none there."""
    with redis.Redis.from_url(BROKER) as broker:
        try:
            broker.ping()
        except redis.ConnectionError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no broker at KEYTURN_TEST_REDIS ({error})")
        prefix = f"keyturn-test-{uuid.uuid4().hex}:"
        yield prefix
        for key in broker.scan_iter(f"{prefix}*"):
            broker.delete(key)


@contextmanager
def working(prefix: str, **environment: str) -> Iterator[celery.Celery]:
    """Have a worker of two processes work; yield what sends it tasks."""
    keys = {"global_keyprefix": prefix}
    command = [
        *[sys.executable, "-m", "celery", "--app", "tests.environments.apps.tasks", "--quiet", "worker"],
        *["--pool", "prefork", "--concurrency", "2", "--prefetch-multiplier", "1", "-O", "fair"],
        *["--without-heartbeat", "--without-gossip", "--without-mingle", "--loglevel", "ERROR"],
    ]
    surroundings = os.environ | environment | {"PREFIX": prefix, "BROKER": BROKER}
    with (
        tempfile.TemporaryFile() as said,
        celery.Celery(broker=BROKER, backend=BROKER, set_as_current=False) as app,
    ):
        app.conf.update(broker_transport_options=keys, result_backend_transport_options=keys)
        process = subprocess.Popen(command, cwd=ROOT, env=surroundings, stdout=said, stderr=said)
        try:
            yield app
        finally:
            process.terminate()
            process.wait(WITHIN)
            said.seek(0)
            errors = said.read().decode()
            app.backend.client.close()
    assert "Traceback" not in errors, errors


def call(app: celery.Celery) -> dict[int, set[str]]:
    """Call tasks until both processes have answered; return what each said."""
    answers: dict[int, set[str]] = {}
    for _ in range(50):
        sent = [app.send_task("tests.environments.apps.tasks.call") for _ in range(CROWD)]
        for one in sent:
            worker, said = one.get(timeout=WITHIN)
            answers.setdefault(worker, set()).add(said)
        if len(answers) == 2:
            return answers
    raise AssertionError(f"only {len(answers)} process answers")


def test_tasks_of_a_worker_share_the_credentials_of_its_hook_and_their_one_refresh(
    strict_server: StrictServer, prefix: str
) -> None:
    with working(prefix, SERVER=strict_server.url, MADE="in the hook") as app:
        for times in (1, 2):
            assert set().union(*call(app).values()) == {"200"}
            assert strict_server.stats.issued == 2 * times
            strict_server.expire()


def test_a_single_use_token_of_the_parent_is_used_by_its_workers_and_refreshed_by_none(
    strict_server: StrictServer, prefix: str
) -> None:
    tokens = json.dumps(written(strict_server.sign_in(ttl=600.0)))
    with working(prefix, SERVER=strict_server.url, MADE="at import", TOKENS=tokens) as app:
        assert set().union(*call(app).values()) == {"200"}
        strict_server.expire()
        (said,) = set().union(*call(app).values())
    assert said.startswith("RefreshAfterFork: ")
    assert "worker_process_init" in said
    assert strict_server.stats.refreshes == 0

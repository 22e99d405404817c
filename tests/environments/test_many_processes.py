"""docs/many-processes.md: its programs run as they stand, and all their processes share one refresh."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import celery
import httpx2
import pytest
import redis

import keyturn
from keyturn.client.token_stores import new_store
from keyturn.testing import StrictServer
from tests.client.token_stores.conftest import postgres_url, redis_url
from tests.client.token_stores.kit import on_loop
from tests.kit import in_threads
from tests.waiting import WITHIN

__all__ = ["postgres_url", "redis_url"]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="gunicorn and Celery's prefork need fork")

PAGE = Path(__file__).parents[2] / "docs" / "many-processes.md"
SERVICE, TASKS, SCRIPT = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
WORKERS, CROWD = 3, 20


@pytest.fixture(params=["file", "sqlite", "postgres", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the URL of a store of each kind, in which nobody else has the name of the page."""
    if request.param == "file":
        yield (tmp_path / "tokens").as_uri()
    elif request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'tokens.db'}"
    elif request.param == "redis":
        url = f"{request.getfixturevalue('redis_url')}?prefix=t{uuid.uuid4().hex}"
        yield url
        forget(url)
    else:
        url = f"{request.getfixturevalue('postgres_url')}?keyturn_table=t{uuid.uuid4().hex}"
        yield url
        drop(url)


def forget(url: str) -> None:
    """Leave nothing of the page's name in a store."""

    async def main() -> None:
        store = new_store(url)
        await store.remove("reports")
        await store.aclose()

    on_loop(main)


def drop(url: str) -> None:
    """Leave no table of a test's own."""
    import psycopg

    address, _, table = url.partition("?keyturn_table=")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {table}".encode())


def placed(block: str, name: str, folder: Path, server: StrictServer) -> None:
    """Write a block of the page into a folder, its hosts those of a test."""
    code = block.replace("https://id.example", server.url).replace("https://api.example", server.url)
    (folder / f"{name}.py").write_text(code)


def surroundings(tokens: keyturn.Tokens, store: str, **more: str) -> dict[str, str]:
    """Return the environment that the page tells of."""
    assert tokens.refresh is not None
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith("COV")},
        "KEYTURN_STORE": store,
        "ACCESS_TOKEN": tokens.access,
        "REFRESH_TOKEN": tokens.refresh,
        **more,
    }


@contextmanager
def running(command: list[str], folder: Path, environment: dict[str, str], *fds: int) -> Iterator[None]:
    """Run a server until the end of `with`, and see that it had nothing to complain of."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env=environment,
            stdout=said,
            stderr=said,
            pass_fds=fds,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(WITHIN)
            said.seek(0)
            complaints = said.read().decode()
    assert "Traceback" not in complaints, complaints


@contextmanager
def served(folder: Path, environment: dict[str, str], *options: str) -> Iterator[str]:
    """Serve the page's service by four workers; yield its URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(256)  # where connections wait until a worker is there
        command = [
            *["gunicorn", "service:app", "--workers", str(WORKERS), "--no-control-socket", *options],
            *["--bind", f"fd://{listener.fileno()}", "--log-level", "warning"],
        ]
        with running(command, folder, environment, listener.fileno()):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def statuses(url: str) -> list[int]:
    """Call the service from many threads at once; return what it answered."""

    def ask(_: int) -> int:
        answer = httpx2.get(
            url, headers={"Connection": "close"}, timeout=WITHIN, verify=False, trust_env=False
        )
        return answer.status_code

    return in_threads(CROWD, ask)


@contextmanager
def working(folder: Path, environment: dict[str, str], broker: str) -> Iterator[celery.Celery]:
    """Have the page's tasks done by a worker of four processes; yield what sends them."""
    prefix = f"t{uuid.uuid4().hex}:"
    keys = {"global_keyprefix": prefix}
    settings = (
        f"broker_transport_options = result_backend_transport_options = {keys!r}\n"
        "broker_connection_retry_on_startup = True\n"
    )
    (folder / "celeryconfig.py").write_text(settings)
    (folder / "tasks.py").write_text(
        (folder / "tasks.py").read_text() + 'app.config_from_object("celeryconfig")\n'
    )
    command = [
        *["celery", "--app", "tasks", "--quiet", "worker", "--concurrency", str(WORKERS)],
        *["--prefetch-multiplier", "1", "-O", "fair", "--loglevel", "ERROR"],
        *["--without-heartbeat", "--without-gossip", "--without-mingle"],
    ]
    environment = environment | {"CELERY_BROKER_URL": broker, "CELERY_RESULT_BACKEND": broker}
    try:
        with celery.Celery(broker=broker, backend=broker, set_as_current=False) as app:
            app.conf.update(broker_transport_options=keys, result_backend_transport_options=keys)
            with running(command, folder, environment):
                yield app
            app.backend.client.close()
    finally:
        with redis.Redis.from_url(broker) as client:
            for key in client.scan_iter(f"{prefix}*"):
                client.delete(key)


def done(app: celery.Celery) -> list[int]:
    """Have many tasks done at once; return what each returned."""
    sent = [app.send_task("tasks.statistics", [number]) for number in range(CROWD)]
    return [one.get(timeout=WITHIN) for one in sent]


def test_gunicorns_workers_share_each_refresh(
    strict_server: StrictServer, tmp_path: Path, store: str
) -> None:
    placed(SERVICE, "service", tmp_path, strict_server)
    with served(tmp_path, surroundings(strict_server.sign_in(), store)) as url:
        for refreshes in (1, 2):
            strict_server.expire()
            assert statuses(url) == [200] * CROWD
            assert strict_server.stats.refreshes == refreshes


@pytest.mark.parametrize("store", ["file", "redis"], indirect=True)
@pytest.mark.parametrize("options", [["--preload"], ["--threads", "8"]], ids=["preload", "threads"])
def test_it_is_the_same_with_preload_and_with_threads(
    strict_server: StrictServer, tmp_path: Path, store: str, options: list[str]
) -> None:
    placed(SERVICE, "service", tmp_path, strict_server)
    with served(tmp_path, surroundings(strict_server.sign_in(), store), *options) as url:
        strict_server.expire()
        assert statuses(url) == [200] * CROWD
    assert strict_server.stats.refreshes == 1


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_restart_with_the_environment_of_last_month_goes_on_with_todays_pair(
    strict_server: StrictServer, tmp_path: Path, store: str
) -> None:
    placed(SERVICE, "service", tmp_path, strict_server)
    environment = surroundings(strict_server.sign_in(), store)
    for _ in range(2):
        with served(tmp_path, environment) as url:
            if not strict_server.stats.refreshes:
                strict_server.expire()
            assert statuses(url) == [200] * CROWD
    assert strict_server.stats.refreshes == 1


@pytest.mark.parametrize("store", ["file", "redis"], indirect=True)
def test_celerys_processes_share_each_refresh(
    strict_server: StrictServer, tmp_path: Path, store: str, redis_url: str
) -> None:
    placed(TASKS, "tasks", tmp_path, strict_server)
    with working(tmp_path, surroundings(strict_server.sign_in(), store), redis_url) as app:
        for refreshes in (1, 2):
            strict_server.expire()
            assert done(app) == [200] * CROWD
            assert strict_server.stats.refreshes == refreshes


def test_service_and_tasks_share_one_session(
    strict_server: StrictServer, tmp_path: Path, redis_url: str
) -> None:
    store = (tmp_path / "tokens").as_uri()
    placed(SERVICE, "service", tmp_path, strict_server)
    placed(TASKS, "tasks", tmp_path, strict_server)
    environment = surroundings(strict_server.sign_in(), store)
    with served(tmp_path, environment) as url, working(tmp_path, environment, redis_url) as app:
        strict_server.expire()
        assert done(app) + statuses(url) == [200] * 2 * CROWD
    assert strict_server.stats.refreshes == 1


def test_a_script_goes_on_where_another_run_of_it_signed_in(
    strict_server: StrictServer, tmp_path: Path
) -> None:
    kept = SCRIPT.replace("file:///home/alice/.local/state/reports", (tmp_path / "tokens").as_uri())
    placed(kept + RUN, "script", tmp_path, strict_server)
    tokens = strict_server.sign_in()
    login = {"access_token": tokens.access, "refresh_token": tokens.refresh, "expires_in": 60}

    def run(*words: str) -> str:
        command = [sys.executable, "-W", "error", "script.py", *words]
        ended = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=WITHIN, check=False
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout

    assert run() == "NotSignedIn\n"
    assert run(json.dumps(login)) == "200\n"
    strict_server.expire()
    assert run() == run() == "200\n"
    assert strict_server.stats.refreshes == 1


RUN = """
import json, sys
try:
    if sys.argv[1:]:
        sign_in(httpx2.Response(200, json=json.loads(sys.argv[1])))
    print(report().status_code)
except keyturn.NotSignedIn as error:
    print(type(error).__name__)
"""


def test_what_a_user_writes_for_gunicorn_and_for_celery_is_ten_lines() -> None:
    service, tasks = SERVICE.split("\n\ndef app")[0], TASKS.split("\n\n@app")[0]
    assert len(service.splitlines()) <= 10
    assert len([line for line in tasks.splitlines() if line and line != "# tasks.py"]) <= 10


def test_the_links_of_the_page_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)[^)]*\)", PAGE.read_text()):
        assert (PAGE.parent / target).is_file(), target

"""The process of the strict server: it starts clearly, and never outlives its parent."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from keyturn import testing
from keyturn.errors import KeyturnError, MissingExtra
from keyturn.testing import Clock, StrictServer, process
from keyturn.testing.records import Settings, Switches

from .wire import call, raw, refresh

_HOLDER = """
    import sys
    from keyturn.testing import StrictServer
    server = StrictServer().start()
    print(server.url, flush=True)
    sys.stdin.read()
"""


def _ask(connection: socket.socket) -> None:
    """Have a request answered, so that the connection is known to have been accepted."""
    connection.sendall(b"HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n")
    assert connection.recv(4096).endswith(b"\r\n\r\n")


def test_the_server_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_HOLDER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        where = urlsplit(parent.stdout.readline().strip())
        assert where.hostname
        assert where.port
        with socket.create_connection((where.hostname, where.port), timeout=30) as open_connection:
            _ask(open_connection)
            parent.kill()
            assert open_connection.recv(1) == b"", "the connection closes with the process that held it"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((where.hostname, where.port), timeout=30)


def test_close_ends_the_process_and_may_be_called_again() -> None:
    server = StrictServer()
    assert repr(server) == "<StrictServer not running>"
    server.close()
    server.start()
    with raw(server) as bare:
        _ask(bare)
        server.close()
        assert bare.recv(1) == b""
    server.close()
    with pytest.raises(KeyturnError, match="not running"):
        _ = server.url
    with server:
        assert call(server, "/x").status == 401, "and it may be started again"


def test_two_servers_are_two_origins(strict_server: StrictServer, other_server: StrictServer) -> None:
    assert strict_server.url != other_server.url
    assert refresh(other_server, strict_server.sign_in().refresh).status == 400
    assert strict_server.stats.refreshes == 0


def test_a_second_start_is_refused(strict_server: StrictServer) -> None:
    with pytest.raises(KeyturnError, match="started before"):
        strict_server.start()


def test_the_repr_shows_no_secret(strict_server: StrictServer) -> None:
    assert repr(strict_server) == f"<StrictServer {strict_server.url}>"


def test_a_server_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "h11.py").write_text("raise SystemExit('this h11 is broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(KeyturnError, match="this h11 is broken"):
        StrictServer().start()


def test_a_server_that_does_not_come_up_in_time_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "h11.py").write_text("import threading; threading.Event().wait()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(process, "_STARTS_WITHIN", 0.5)
    with pytest.raises(KeyturnError, match="did not start"):
        StrictServer().start()


def test_a_server_that_died_is_reported_as_such() -> None:
    with StrictServer() as server:
        assert server._process is not None
        server._process._process.kill()
        server._process._process.wait()
        with pytest.raises(KeyturnError, match="does not answer"):
            _ = server.stats


def test_without_h11_the_error_is_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h11", None)
    with pytest.raises(MissingExtra, match=r": pip install 'keyturn\[testing\]'$"):
        StrictServer()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_does_not_end_its_parents_server() -> None:
    script = """
        import os, sys
        from keyturn.testing import StrictServer
        with StrictServer() as server:
            if (child := os.fork()) == 0:
                server.close()
                os._exit(0)
            os.waitpid(child, 0)
            print(server.stats.api)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.strip(), done.returncode) == ("0", 0), done.stderr


def test_started_by_hand_it_says_where_it_is_and_ends_with_its_stdin() -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "keyturn.testing", "--ttl=3", "--no-rotates"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        assert started.stdout is not None
        assert started.stdout.readline().startswith('{"url": "http://127.0.0.1:')
        out, err = started.communicate(timeout=30)
    assert (out, err, started.returncode) == ("", "", 0)


def test_it_ends_quietly_with_connections_and_held_requests_open() -> None:
    server = StrictServer().start()
    assert server._process is not None
    running = server._process._process
    assert running.stdin is not None
    server.hold_api(2)
    with raw(server) as idle, raw(server) as held:
        held.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        server.wait_for(api=1)
        running.stdin.close()
        assert (held.recv(1), idle.recv(1)) == (b"", b"")
    assert running.wait(30) == 0
    assert server._process.stderr() == "nothing on stderr"
    server.close()


def test_ctrl_c_in_a_terminal_is_for_the_tests_and_not_for_the_server(strict_server: StrictServer) -> None:
    assert strict_server._process is not None
    assert os.getpgid(strict_server._process._process.pid) != os.getpgid(0)


def test_the_typed_switches_are_the_settings() -> None:
    assert list(Switches.__annotations__) == list(Settings.__dataclass_fields__)


def test_it_imports_neither_the_client_nor_the_server_of_keyturn() -> None:
    imported: set[str] = set()
    for module in Path(testing.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.ImportFrom):
                imported.add(node.module or "")
            elif isinstance(node, ast.Import):
                imported.update(alias.name for alias in node.names)
    foreign = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names
    assert foreign == {"keyturn", "h11", "httpx2", "joserfc"}
    inner = {name.split(".")[1] for name in imported if name.startswith("keyturn.")}
    assert inner == {"clocks", "errors", "tokens", "testing"}


def test_a_clock_moves_only_when_it_is_told_to() -> None:
    clock = Clock()
    assert clock() == clock() == Clock()()
    start = clock()
    clock.advance(1.5)
    assert clock() - start == 1.5
    assert Clock(start=5.0)() == 5.0

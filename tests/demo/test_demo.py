"""`keyturn demo` as a person runs it: whole processes, a real server, real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import pytest

from keyturn.demo import clients, process, run, scene
from keyturn.tokens import Tokens

DEMO = [sys.executable, "-m", "keyturn", "demo"]
ESCAPE = re.compile(rb"\x1b(\[[0-9;?]*[A-Za-z])?")
COLOUR = re.compile(rb"\x1b\[[0-9;]*m")


class Traces:
    """Finds what a demo leaves behind: processes by a mark in their environment, files by their folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if name not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE"}
        } | {"KEYTURN_TEST": self.mark, "TMPDIR": str(folder), "PYTHONIOENCODING": "utf-8"}

    def processes(self) -> list[int]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:  # gone, or a zombie, or somebody else's
                continue
        return found

    def none_left(self) -> bool:
        return not self.processes() and not list(self.folder.iterdir())


@pytest.fixture
def traces(tmp_path: Path) -> Iterator[Traces]:
    if not Path("/proc/self/environ").exists():
        pytest.skip("needs /proc")
    found = Traces(tmp_path)
    yield found
    assert found.none_left()


def finished(traces: Traces, *words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    env = traces.environment | environment
    return subprocess.run([*DEMO, *words], env=env, capture_output=True, timeout=100, check=True)


@pytest.mark.parametrize("number", [1, 12])
def test_json_tells_the_storm_from_the_single_refresh(traces: Traces, number: int) -> None:
    done = finished(traces, "--json", "--requests", str(number))
    said = json.loads(done.stdout)
    naive, keyturn = said["naive"], said["keyturn"]

    assert list(said) == ["naive", "keyturn"]
    assert naive["refreshes"] == naive["of"] == number
    assert naive["answered"] == 1
    assert naive["signed_in"] is (number == 1)
    assert keyturn["refreshes"] == 1
    assert keyturn["answered"] == keyturn["of"] == number
    assert keyturn["signed_in"] is True


def test_json_lists_every_physical_request(traces: Traces) -> None:
    said = json.loads(finished(traces, "--json", "-n", "5").stdout)

    assert kinds(said["naive"]) == {
        ("call", 401): 5,
        ("refresh", 200): 1,
        ("refresh", 401): 4,
        ("replay", 200): 1,
    }
    assert kinds(said["keyturn"]) == {("call", 401): 5, ("refresh", 200): 1, ("replay", 200): 5}
    for lane in said.values():
        assert min(request["start_ms"] for request in lane["requests"]) == 0
        assert all(request["end_ms"] > request["start_ms"] >= 0 for request in lane["requests"])


def kinds(lane: dict[str, Any]) -> dict[tuple[str, int], int]:
    counted: dict[tuple[str, int], int] = {}
    for request in lane["requests"]:
        key = request["kind"], request["status"]
        counted[key] = counted.get(key, 0) + 1
    return counted


def test_it_says_what_it_is_doing_beside_the_json(traces: Traces) -> None:
    done = finished(traces, "--json", "-n", "2")

    assert done.stdout.startswith(b"{")
    assert len(done.stderr.splitlines()) >= 4
    assert b"\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize("width", [80, 120])
def test_a_pipe_gets_text_without_colour_or_cursor_control(traces: Traces, width: int) -> None:
    done = finished(traces, COLUMNS=str(width))
    text = done.stdout.decode()

    assert done.stderr == b""
    assert "\x1b" not in text
    assert "\r" not in text
    assert "12 refreshes   1 of 12 calls answered" in text
    assert "1 refresh   12 of 12 calls answered" in text
    assert "LOGGED OUT" in text
    assert "still signed in" in text
    picture = text[text.index("Naive:") :]
    assert max(map(len, picture.splitlines())) <= width


def test_an_ascii_terminal_gets_an_ascii_picture(traces: Traces) -> None:
    assert finished(traces, PYTHONIOENCODING="ascii").stdout.isascii()


def test_a_terminal_gets_colour_and_no_cursor_control(traces: Traces) -> None:
    shown = on_a_terminal(traces, TERM="xterm-256color")

    assert COLOUR.search(shown)
    assert ESCAPE.findall(shown) == COLOUR.findall(shown) or not ESCAPE.sub(b"", shown).count(b"\x1b")
    assert {match.group()[-1:] for match in ESCAPE.finditer(shown)} == {b"m"}


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_that_wants_no_colour_gets_none(traces: Traces, environment: dict[str, str]) -> None:
    shown = on_a_terminal(traces, **({"TERM": "xterm-256color"} | environment))

    assert b"\x1b" not in shown
    assert b"LOGGED OUT" in shown


def on_a_terminal(traces: Traces, **environment: str) -> bytes:
    """Return what the demo writes to a terminal of 80 columns."""
    master, slave = os.openpty()
    env = traces.environment | {"COLUMNS": "80"} | environment
    process = subprocess.Popen([*DEMO, "-n", "3"], env=env, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    shown = b""
    try:
        while read := os.read(master, 65536):
            shown += read
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(master)
    assert process.wait(60) == 0
    return shown


def the_child_is_there(process: subprocess.Popen[bytes], traces: Traces) -> None:
    until(lambda: len(traces.processes()) > 1)


def after_line(words: bytes) -> Callable[[subprocess.Popen[bytes], Traces], None]:
    def wait(process: subprocess.Popen[bytes], _traces: Traces) -> None:
        for line in cast("IO[bytes]", process.stderr):
            if words in line:
                return
        pytest.fail(f"the demo ended without saying {words!r}")

    return wait


MOMENTS = [
    pytest.param(the_child_is_there, id="while the server starts"),
    pytest.param(after_line(b"A server runs"), id="when the server is up"),
    pytest.param(after_line(b"Waiting"), id="while the token expires"),
    pytest.param(after_line(b"refreshes on every 401"), id="in the naive storm"),
    pytest.param(after_line(b"The same with keyturn"), id="in keyturn's storm"),
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_ends_it_with_130_and_leaves_nothing(
    traces: Traces, moment: Callable[[subprocess.Popen[bytes], Traces], None]
) -> None:
    with subprocess.Popen(
        [*DEMO, "--json"],
        env=traces.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        moment(process, traces)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group is told
        out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert out == b""
    assert b"Traceback" not in err
    assert err.endswith(b"Stopped.\n")


def test_the_server_does_not_outlive_a_demo_that_is_killed(traces: Traces) -> None:
    with subprocess.Popen(
        [*DEMO, "--json"], env=traces.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        after_line(b"A server runs")(process, traces)
        process.kill()

    until(lambda: not traces.processes())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


def test_the_outcome_does_not_depend_on_luck() -> None:
    """Every storm of many has the same headline."""

    async def storms(url: str) -> set[tuple[int, int, bool]]:
        pairs = [await run._sign_in(url) for _ in range(20)]
        await run._expired(url, *pairs)
        seen = set()
        for one, other in zip(pairs[::2], pairs[1::2], strict=True):
            naive = await clients.naive(url, one, scene.names(8))
            keyturn = await clients.with_keyturn(url, other, scene.names(8))
            seen |= {(lane.refreshes, lane.answered, lane.signed_in) for lane in (naive, keyturn)}
        return seen

    with process.Server() as url:
        assert asyncio.run(storms(url)) == {(8, 1, False), (1, 8, True)}


def test_signed_in_is_what_the_server_says() -> None:
    """A client that kept a refresh token which opens nothing is not signed in."""

    async def ask(url: str) -> tuple[bool, bool, bool]:
        pair: Tokens = await run._sign_in(url)
        return (
            await clients._signed_in(url, pair.refresh),
            await clients._signed_in(url, pair.refresh),
            await clients._signed_in(url, None),
        )

    with process.Server() as url:
        assert asyncio.run(ask(url)) == (True, False, False)


def test_a_server_that_does_not_start_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'the disk is on fire' >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))

    assert run.main(3, as_json=True) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "keyturn demo: the server did not come up: the disk is on fire\n"


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    silent = tmp_path / "python"
    silent.write_text("#!/bin/sh\nexec cat\n")
    silent.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(silent))
    monkeypatch.setattr(process, "_STARTS_WITHIN", 0.2)

    assert run.main(3, as_json=True) == 1
    assert "did not come up" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["-n", "1"], ["-n", "1", "--json"]])
def test_a_reader_that_goes_away_is_no_traceback(traces: Traces, words: list[str]) -> None:
    with subprocess.Popen(
        [*DEMO, *words], env=traces.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        cast("IO[bytes]", process.stdout).close()
        err = cast("IO[bytes]", process.stderr).read()

    assert process.returncode == 1
    assert b"Traceback" not in err

"""Scenario 8, the end of a process or of credentials: what was sent comes home, nothing else is sent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
import trio

import keyturn
from keyturn.client import events
from keyturn.errors import CredentialsClosed, RefreshTimeout, RefreshUnavailable
from keyturn.testing import StrictServer
from tests.kit import credentials_for, in_threads
from tests.scenarios.program import Program, given
from tests.waiting import WITHIN, aboard, patient_oauth2, start, until

AT_ONCE = 20.0  # seconds; what would be waited for in vain takes longer, or for ever

# How a program leaves, and with which exit code.
ENDINGS = {
    "end": 0,
    "leave": 3,
    "fail": 1,
    "leave_daemons_waiting": 3,
    "leave_tasks_waiting": 3,
}
every_ending = pytest.mark.parametrize("ending", ENDINGS)


def check_stderr(ending: str, stderr: str) -> None:
    """Check that a program complained of nothing but its own failure."""
    if ending == "fail":
        assert stderr.splitlines()[0].startswith("Traceback")
        assert stderr.splitlines()[-1] == "ZeroDivisionError"
        assert stderr.count("Traceback") == 1
    else:
        assert stderr == ""


@every_ending
def test_a_process_that_exits_waits_for_the_refresh_that_it_has_sent(
    strict_server: StrictServer, ending: str
) -> None:
    unrotated = ending in {"leave", "fail"}  # the others leave with a refresh token that is spent
    strict_server.hold_refresh("before" if unrotated else "after")
    tokens = strict_server.sign_in(ttl=-1.0)
    with Program("exiting", given(strict_server, tokens, ending=ending)) as program:
        strict_server.wait_for(WITHIN, refreshes=1, rotations=0 if unrotated else 1)
        program.tell()
        assert program.line() == "leaving"
        strict_server.release()
        assert program.line() == "event: Refreshed"
        assert program.line() == "the interpreter goes on with its exit"
        assert program.ends_after() < AT_ONCE
        code, stderr = program.end()
    assert code == ENDINGS[ending]
    check_stderr(ending, stderr)
    stats = strict_server.stats
    assert (stats.refreshes, stats.rotations) == (1, 1)


def test_threads_that_the_interpreter_waits_for_get_their_answer_at_exit(strict_server: StrictServer) -> None:
    strict_server.hold_refresh("after")
    tokens = strict_server.sign_in(ttl=-1.0)
    with Program("exiting", given(strict_server, tokens, ending="leave_threads_waiting")) as program:
        strict_server.wait_for(WITHIN, rotations=1)
        program.tell()
        strict_server.release()
        lines = program.lines()
        assert program.end() == (3, "")
    assert lines.count("1") >= 10
    assert set(lines) == {"1", "event: Refreshed", "leaving", "the interpreter goes on with its exit"}


class HangingTLS:
    """An https origin that accepts connections and never shakes hands."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.url = f"https://127.0.0.1:{listener.getsockname()[1]}"

    def reached(self) -> socket.socket:
        """Return the connection once its client has begun its handshake."""
        connection, _ = self._listener.accept()
        connection.settimeout(WITHIN)
        assert connection.recv(1, socket.MSG_PEEK) == b"\x16"
        return connection


@pytest.fixture
def hanging_tls() -> Iterator[HangingTLS]:
    """An https origin where no request can be sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WITHIN)
        yield HangingTLS(listener)


def everything(connection: socket.socket) -> bytes:
    """Return all that arrives until the other side closes."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("ending", ["fail", "leave_daemons_waiting", "close"])
def test_a_process_that_exits_before_its_refresh_is_sent_does_not_send_it_and_ends_at_once(
    strict_server: StrictServer, hanging_tls: HangingTLS, ending: str
) -> None:
    tokens = strict_server.sign_in(ttl=-1.0)
    what = given(strict_server, tokens, ending=ending, token_url=hanging_tls.url)
    with Program("exiting", what) as program, hanging_tls.reached() as connection:
        program.tell()
        assert program.ends_after() < AT_ONCE
        lines = program.lines()
        code, stderr = program.end()
        assert b"refresh" not in everything(connection), "a client hello, and nothing after it"
    assert code == ENDINGS.get(ending, 0)
    check_stderr(ending, stderr)
    closing = ["closed: CredentialsClosed"] if ending == "close" else []
    failing = ["event: Failed"]
    assert sorted(lines) == sorted([*failing, *closing, "leaving", "the interpreter goes on with its exit"])


def test_a_process_that_exits_while_its_refresh_waits_for_a_retry_ends_at_once(
    strict_server: StrictServer,
) -> None:
    strict_server.fail_refresh(503, headers={"Retry-After": "25"})
    what = given(strict_server, strict_server.sign_in(ttl=600.0), ending="end")
    with Program("exiting", what) as program:
        strict_server.wait_for(WITHIN, refreshes=1)
        program.tell("once stalled")
        assert program.line() == "stalled"
        assert program.ends_after() < AT_ONCE
        assert program.lines() == ["leaving", "event: Failed", "the interpreter goes on with its exit"]
        assert program.end() == (0, "")
    assert strict_server.stats.refreshes == 1


def test_a_process_that_exits_while_its_refresh_waits_for_a_name_ends_at_once(
    strict_server: StrictServer,
) -> None:
    what = given(
        strict_server,
        strict_server.sign_in(ttl=-1.0),
        ending="end",
        token_url="http://id.example",
        resolver="hangs",
    )
    with Program("exiting", what) as program:
        assert program.line() == "looking up a name"
        program.tell()
        assert program.ends_after() < AT_ONCE
        assert program.lines() == ["leaving", "event: Failed", "the interpreter goes on with its exit"]
        assert program.end() == (0, "")


# The end of credentials, in a process that goes on


def held(server: StrictServer) -> keyturn.Credentials:
    """Return credentials that need a refresh, which the server will hold when it has rotated."""
    server.hold_refresh("after")
    return credentials_for(server, server.sign_in(ttl=-1.0), grant=patient_oauth2(server))


def _close(credentials: keyturn.Credentials, timeout: float | None = None) -> None:
    credentials.close(timeout)


def _aclose(credentials: keyturn.Credentials, timeout: float | None = None) -> None:
    asyncio.run(credentials.aclose(timeout))


def _aclose_in_trio(credentials: keyturn.Credentials, timeout: float | None = None) -> None:
    trio.run(credentials.aclose, timeout)


def _with(credentials: keyturn.Credentials, timeout: float | None = None) -> None:
    with credentials:
        pass


def _async_with(credentials: keyturn.Credentials, timeout: float | None = None) -> None:
    async def main() -> None:
        async with credentials:
            pass

    asyncio.run(main())


WAYS = [_close, _aclose, _aclose_in_trio, _with, _async_with]
Way = Callable[..., None]


@pytest.mark.parametrize("close", WAYS)
def test_closing_waits_for_the_refresh_that_was_sent_and_so_do_its_callers(
    strict_server: StrictServer, close: Way
) -> None:
    credentials = held(strict_server)
    waiting = [start(credentials.get_tokens) for _ in range(3)]
    strict_server.wait_for(WITHIN, rotations=1)
    until(lambda: aboard(credentials) == 3)
    flight = credentials._flight
    assert flight is not None
    closing = [start(lambda: close(credentials)) for _ in range(2)]
    until(lambda: flight._over.waiters == 2)
    assert not any(one.done() for one in closing)

    strict_server.release()

    assert [one.result(WITHIN).generation for one in waiting] == [1] * 3
    for one in closing:
        one.result(WITHIN)
    with pytest.raises(CredentialsClosed):
        credentials.get_tokens()
    close(credentials)  # may be closed again
    assert strict_server.stats.refreshes == 1


@pytest.mark.parametrize("close", [_close, _aclose, _aclose_in_trio])
def test_closing_keeps_its_own_time_and_tells_those_who_still_wait(
    strict_server: StrictServer, close: Way
) -> None:
    credentials = held(strict_server)
    waiting = [start(credentials.get_tokens) for _ in range(3)]
    strict_server.wait_for(WITHIN, rotations=1)
    until(lambda: aboard(credentials) == 3)

    close(credentials, 0.0)

    for one in waiting:
        with pytest.raises(CredentialsClosed):
            one.result(WITHIN)
    strict_server.release()


@pytest.mark.parametrize("close", WAYS)
def test_closing_gives_up_at_once_what_was_not_sent(
    strict_server: StrictServer, hanging_tls: HangingTLS, close: Way
) -> None:
    grant = keyturn.client.grants.OAuth2(hanging_tls.url + "/token", timeout=timedelta(seconds=2 * WITHIN))
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=-1.0), grant=grant)
    waiting = [start(credentials.get_tokens) for _ in range(3)]
    with hanging_tls.reached() as connection:
        until(lambda: aboard(credentials) == 3)
        close(credentials)
        for one in waiting:
            with pytest.raises(RefreshUnavailable):
                one.result(WITHIN)
        everything(connection)
    with pytest.raises(CredentialsClosed):
        credentials.get_tokens()


def test_no_refresh_starts_while_closing_waits(strict_server: StrictServer, hanging_tls: HangingTLS) -> None:
    told: list[BaseException] = []

    def ask_again(event: events.Event) -> None:
        if isinstance(event, events.Landing):
            try:
                credentials.get_tokens()
            except keyturn.KeyturnError as error:
                told.append(error)

    grant = keyturn.client.grants.OAuth2(hanging_tls.url + "/token", timeout=timedelta(seconds=2 * WITHIN))
    credentials = credentials_for(
        strict_server, strict_server.sign_in(ttl=-1.0), grant=grant, on_event=ask_again
    )
    waiting = start(credentials.get_tokens)
    with hanging_tls.reached() as connection:
        credentials.close()  # gives the flight up: the callback runs before that is over
        with pytest.raises(RefreshUnavailable):
            waiting.result(WITHIN)
        everything(connection)
    assert [type(error) for error in told] == [CredentialsClosed]


def test_a_handshake_that_is_cut_off_leaves_no_connection_behind(
    strict_server: StrictServer, hanging_tls: HangingTLS
) -> None:
    grant = keyturn.client.grants.OAuth2(hanging_tls.url + "/token", timeout=timedelta(seconds=0.2))
    credentials = credentials_for(
        strict_server, strict_server.sign_in(ttl=-1.0), grant=grant, retry_for=timedelta(0)
    )
    waiting = start(credentials.get_tokens)
    with hanging_tls.reached() as connection:
        with pytest.raises(RefreshUnavailable):
            waiting.result(WITHIN)
        everything(connection)  # which ends when the other side hangs up


def test_closing_that_is_cancelled_has_closed_all_the_same(strict_server: StrictServer) -> None:
    credentials = held(strict_server)
    with contextlib.suppress(RefreshTimeout):
        credentials.get_tokens(timeout=0.0)
    strict_server.wait_for(WITHIN, rotations=1)

    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await credentials.aclose()

    trio.run(main)
    with pytest.raises(CredentialsClosed):
        credentials.get_tokens()
    strict_server.release()


def test_closing_under_a_crowd_ends_in_an_answer_for_everyone(strict_server: StrictServer) -> None:
    strict_server.configure(refresh_delay=0.05)
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=-1.0))

    def use(i: int) -> str:
        try:
            if i == 7:
                credentials.close()
                return "closed"
            return str(credentials.get_tokens(timeout=WITHIN).generation)
        except (CredentialsClosed, RefreshUnavailable) as error:
            return type(error).__name__

    answers = in_threads(20, use)
    assert set(answers) <= {"1", "closed", "CredentialsClosed", "RefreshUnavailable"}
    stats = strict_server.stats
    assert stats.refreshes == stats.rotations <= 1

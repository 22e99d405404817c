"""End with a shared store open, in one way or another, in the middle of waiting or with a save to be done."""

from __future__ import annotations

import atexit
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable

from keyturn.client import events
from tests.environments.programs import rounds
from tests.scenarios.programs import after_keyturn, given, outcome, say, told


def heard(event: events.Event) -> None:
    """Say what was bought and could not be saved. That a refresh was given up may be said too late."""
    if isinstance(event, events.Refreshed | events.SaveFailed):
        say(f"event: {type(event).__name__}")


mine = rounds.shared(on_event=heard)


def wait(*, daemon: bool = True) -> None:
    """Have threads wait for what another process refreshes."""
    for _ in range(3):
        threading.Thread(target=lambda: outcome(mine.get_tokens), daemon=daemon).start()
    told()


def fall_off_the_end() -> None:
    """End with everything open, and nothing to do."""
    say(outcome(mine.get_tokens))
    told()


def while_threads_wait() -> None:
    """End while daemon threads wait."""
    wait()


def by_exit_in_a_thread() -> None:
    """Exit in a thread, which ends that thread, and then end."""
    wait()
    leaving = threading.Thread(target=sys.exit, args=(3,))
    leaving.start()
    leaving.join()


def by_os_exit() -> None:
    """End without a word."""
    wait()
    os._exit(4)


def by_sigterm() -> None:
    """Be ended."""
    wait()
    signal.raise_signal(signal.SIGTERM)


def by_ctrl_c() -> None:
    """Be interrupted in the middle of waiting."""
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        mine.get_tokens()
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)


def with_a_save_to_do() -> None:
    """End while what was bought cannot be saved: no file may grow any more."""
    waiting = threading.Thread(target=lambda: say(outcome(mine.get_tokens)))
    waiting.start()
    told()
    if given["store"].startswith(("file", "sqlite")):
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    say("full")
    waiting.join()


WAYS: dict[str, Callable[[], None]] = {
    one.__name__: one
    for one in (
        fall_off_the_end,
        while_threads_wait,
        by_exit_in_a_thread,
        by_os_exit,
        by_sigterm,
        by_ctrl_c,
        with_a_save_to_do,
    )
}
say("ready")
atexit.register(lambda: say("leaving"))
after_keyturn.append("the interpreter goes on with its exit")
WAYS[given["way"]]()

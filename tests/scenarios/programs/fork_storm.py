"""Fork again and again while threads take every lock there is; each child must find all of them free."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading

from tests.scenarios.programs import CHILD_WITHIN, credentials, given, outcome, say
from tests.waiting import start

shared = credentials()
enough = threading.Event()


def hammer() -> None:
    """Take the locks of credentials, make some, and refresh again and again."""
    mine = credentials(grant=lambda tokens, http: tokens)
    while not enough.is_set():
        shared.get_tokens()
        credentials()
        mine.renew(mine.get_tokens())


hammering = [start(hammer) for _ in range(3)]
for own in given["own"]:
    pid = os.fork()
    if pid == 0:
        faulthandler.dump_traceback_later(CHILD_WITHIN, exit=True)
        mine = credentials(tokens=own)
        say(f"child: {outcome(shared.get_tokens)} {outcome(mine.get_tokens)}")
        sys.exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != 0:
        sys.exit(f"a child ended with {code}")
enough.set()
for one in hammering:
    one.result()
say(f"parent: {outcome(lambda: shared.renew(shared.get_tokens()))}")

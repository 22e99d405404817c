"""Processes that come from each other, with credentials in a shared store, each told what to do.

A line on stdin names a process by the way to it, and what it is to do:

    parent request          send a request
    parent crowd            send some at once
    parent.child fork       have a child of that name, which has what its parent has
    parent.child end        end with everything open, and tell by what code

`method` says how children come: as `multiprocessing` has them, or by os.fork
and an exit of Python's own.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import sys
from collections.abc import Callable
from typing import Any

from tests.environments.programs import rounds
from tests.scenarios.programs import given, say, told

Connection = multiprocessing.connection.Connection
METHOD: str = given["method"]
mine = rounds.shared()


class Child:
    """A child, and the pipe to it."""

    def __init__(self) -> None:
        if METHOD == "os.fork":
            self.pipe, theirs = multiprocessing.Pipe()
            self.pid = os.fork()
            if self.pid == 0:
                serve(theirs.recv, theirs.send)
                sys.exit(0)
        else:
            there = multiprocessing.get_context(METHOD)
            self.pipe, theirs = there.Pipe()
            self._process: Any = there.Process(target=serve_over, args=(theirs,))  # type: ignore[attr-defined]
            self._process.start()
        theirs.close()

    def ask(self, what: str) -> str:
        """Have something done by the child or a descendant of its."""
        self.pipe.send(what)
        if what.count(".") or not what.endswith(" end"):
            return str(self.pipe.recv())
        self.pipe.close()
        if METHOD == "os.fork":
            return str(os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]))
        self._process.join()
        code = str(self._process.exitcode)
        self._process.close()
        return code


def serve_over(pipe: Connection) -> None:
    """Serve the parent of this process."""
    serve(pipe.recv, pipe.send)


def serve(receive: Callable[[], str], answer: Callable[[str], None]) -> None:
    """Do what is said until that is to end."""
    children: dict[str, Child] = {}
    answers = {
        "request": lambda: rounds.request(mine),
        "crowd": lambda: " ".join(sorted(set(rounds.in_threads(mine)))),
    }
    while True:
        way, what = receive().split()
        _, _, further = way.partition(".")
        child = further.partition(".")[0]
        if not further and what == "end":
            return
        if not further:
            answer(answers[what]())
        elif further == child and what == "fork":
            children[child] = Child()
            answer("forked")
        else:
            answer(children[child].ask(f"{further} {what}"))


if __name__ == "__main__":
    serve(told, say)

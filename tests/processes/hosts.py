"""Hosts: two places that workers run in, each with a network of its own and a clock that is wrong.

Network namespaces where this machine permits it: what runs in one reaches
nothing but the other end of its own wire. Elsewhere two loopback addresses,
by which the same servers are reached.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from keyturn import Tokens

AHEAD = 1800.0  # seconds: so the clocks of two hosts are an hour apart, and neither shows the store's time


@dataclass(frozen=True)
class Host:
    """Where the servers are reached from there, what runs a command there, and how far its clock is ahead."""

    servers: str
    within: tuple[str, ...]
    ahead: float

    def dated(self, tokens: Tokens) -> Tokens:
        """Return tokens as a sign-in on this host would have read them: they expire by its own clock."""
        assert tokens.expires_at is not None
        return replace(tokens, expires_at=tokens.expires_at + self.ahead)


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Have two hosts, and take them away again."""
    with ExitStack() as stack:
        try:
            ends = [stack.enter_context(_namespace(number)) for number in (0, 1)]
        except (OSError, subprocess.CalledProcessError):
            ends = [("127.0.0.1", ()), ("127.0.0.2", ())]
        yield Host(*ends[0], AHEAD), Host(*ends[1], -AHEAD)


@contextmanager
def _namespace(number: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Make a network namespace and a wire to it. Raises OSError or CalledProcessError where it cannot."""
    mark = os.getpid()
    name = f"keyturn-{mark}-{number}"
    wire = f"kt{mark}.{number}"
    subnet = f"10.{128 + mark // 64 % 64}.{mark % 64 * 4 + number}"
    here, there = f"{subnet}.1", f"{subnet}.2"
    inside = ("ip", "netns", "exec", name)
    with ExitStack() as stack:
        _run("ip", "netns", "add", name)
        stack.callback(_run, "ip", "netns", "delete", name)
        _run("ip", "link", "add", wire, "type", "veth", "peer", "name", "wire", "netns", name)
        _run("ip", "address", "add", f"{here}/30", "dev", wire)
        _run("ip", "link", "set", wire, "up")
        _run(*inside, "ip", "address", "add", f"{there}/30", "dev", "wire")
        _run(*inside, "ip", "link", "set", "wire", "up")
        _run(*inside, "ip", "link", "set", "lo", "up")
        yield here, inside


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)

"""Fork before, during or after a flight; use the credentials on both sides; end both in the ordinary way."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from concurrent.futures import Future

import httpx2

import keyturn
from keyturn.client.httpx2 import Auth
from tests.scenarios.programs import credentials, given, outcome, say, told
from tests.waiting import start

HERE, THERE = given["url"], given["other_url"]

flying = credentials()
second = credentials(url=THERE, tokens=given["second"])


def current(mine: keyturn.Credentials) -> keyturn.client.Snapshot:
    """Return the tokens at hand."""
    if mine.tokens is None:
        sys.exit("there are no tokens")
    return mine.tokens


def use(mine: keyturn.Credentials, url: str) -> str:
    """Send a request from a loop, and one without; return their statuses."""

    async def main() -> int:
        async with httpx2.AsyncClient(base_url=url, auth=Auth(mine), verify=False, trust_env=False) as api:
            return (await api.get("/task")).status_code

    with httpx2.Client(base_url=url, auth=Auth(mine), verify=False, trust_env=False) as api:
        return f"{outcome(lambda: asyncio.run(main()))} {outcome(lambda: api.get('/thread'))}"


def renew(mine: keyturn.Credentials) -> str:
    """Report the tokens at hand as refused."""
    return outcome(lambda: mine.renew(current(mine)))


def arenew(mine: keyturn.Credentials) -> str:
    """Report the tokens at hand as refused, from a loop."""
    return outcome(lambda: asyncio.run(mine.arenew(current(mine))))


def child() -> None:
    """Use what the parent has, refresh what is one's own, and end as any program does."""
    say(f"child: uses {use(flying, HERE)} {use(second, THERE)}")
    say(f"child: renews {renew(flying)} {arenew(flying)} {renew(second)}")
    say(f"child: retries {outcome(flying.retry_unknown)}")
    mine = credentials(url=THERE, tokens=given["own"])
    say(f"child: with its own {outcome(mine.get_tokens)} {use(mine, THERE)} {renew(mine)}")
    second.sign_out()
    say(f"child: signed out {outcome(second.get_tokens)}")
    second.sign_in(keyturn.Tokens(**given["signed_in"]))
    say(f"child: signed in {outcome(second.get_tokens)} {use(second, THERE)} {renew(second)}")
    grandchild = os.fork()
    if grandchild == 0:
        say(f"grandchild: uses {use(second, THERE)} {use(mine, THERE)}")
        say(f"grandchild: renews {renew(second)} {renew(mine)} {renew(flying)}")
        sys.exit(0)
    say(f"child: left with {os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1])} {renew(mine)}")
    if given["ending"] == "close":
        for one in (flying, second, mine):
            one.close()
    gc.collect()
    sys.exit(0)


def parent() -> None:
    """Have a flight, fork, and go on as if nothing had happened."""
    waiting: list[Future[str]] = []
    if given["when"] != "before":
        waiting = [start(lambda: renew(flying)), start(lambda: arenew(flying))]
    if given["when"] == "after":
        for one in waiting:
            one.result()
    told()
    pid = os.fork()
    if pid == 0:
        child()
    say(f"parent: left with {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}")
    told()
    say(f"parent: landed {' '.join(one.result() for one in waiting)}")
    say(f"parent: uses {use(flying, HERE)} {use(second, THERE)}")
    say(f"parent: renews {renew(flying)} {renew(second)} {use(flying, HERE)} {use(second, THERE)}")


parent()

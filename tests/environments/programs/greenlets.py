"""gevent, patched early or late: do what `does` says with one refresh that the server may hold."""

from __future__ import annotations

import json
import sys

if json.loads(sys.argv[1])["patches"] == "late":
    import warnings

    import keyturn.client.httpx2

    warnings.filterwarnings("ignore", "Monkey-patching ssl after ssl")

from gevent import monkey

monkey.patch_all()

# Before keyturn: what it registers for the exit runs after what keyturn does there.
from tests.scenarios.programs import after_keyturn, credentials, given, outcome, say  # noqa: E402

CROWD = 120
URL = given["url"]

import asyncio  # noqa: E402
import atexit  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
from collections.abc import Callable  # noqa: E402
from contextlib import suppress  # noqa: E402

import gevent  # noqa: E402
import gevent.os  # noqa: E402
import gevent.threadpool  # noqa: E402
import httpx2  # noqa: E402
import requests  # noqa: E402

import keyturn  # noqa: E402
import keyturn.client.requests  # noqa: E402
from keyturn.client import grants, loop  # noqa: E402
from keyturn.client.httpx2 import Auth  # noqa: E402
from tests.waiting import aboard, until  # noqa: E402

if given["does"] != "use_pool_threads":  # gevent's locks, as a log's handlers have, hang real threads
    logging.basicConfig(level=logging.DEBUG, filename=os.devnull)


def plain(tokens: keyturn.Tokens, http: httpx2.Client) -> keyturn.Tokens:
    """Refresh by a blocking call."""
    form = {"grant_type": "refresh_token", "refresh_token": tokens.refresh, "client_id": "programs"}
    return grants.OAuth2(URL + "/token").read(http.post(URL + "/token", data=form))


def quiet() -> httpx2.Client:
    """Return a client without a TLS context, which takes long to make."""
    return httpx2.Client(verify=False, trust_env=False, timeout=60)


mine = credentials(
    grants.Call(plain, sync_http=quiet) if given["grant"] == "plain" else None,
    on_event=lambda event: (
        say("event: Refreshed") if isinstance(event, keyturn.client.events.Refreshed) else None
    ),
)


def told() -> str:
    """Wait for a line on stdin while other greenlets go on."""
    return str(gevent.os.tp_read(0, 100).decode())


def is_marked() -> bool:
    """Tell whether asyncio takes this greenlet for one that runs inside a loop."""
    with suppress(RuntimeError):
        return asyncio.get_running_loop() is not None
    return False


def crowd() -> None:
    """Refresh for 120 greenlets of two libraries and a loop, while another greenlet ticks."""
    pool = httpx2.Limits(max_connections=CROWD)
    api = httpx2.Client(base_url=URL, auth=Auth(mine), limits=pool, timeout=60, verify=False, trust_env=False)
    session = requests.Session()
    session.trust_env = False
    session.auth = keyturn.client.requests.Auth(mine)
    calls: list[Callable[[], int]] = [
        lambda: api.get("/x").status_code,
        lambda: session.get(URL + "/x", timeout=60).status_code,
    ]
    everyone = [gevent.spawn(calls[i % 2]) for i in range(CROWD)]
    everyone.append(gevent.spawn(lambda: asyncio.run(mine.aget_tokens()).generation))
    until(lambda: aboard(mine) == CROWD + 1)
    marked = 0
    for _ in range(100):
        gevent.sleep(0)
        marked += loop.is_current() or (is_marked() and not everyone[-1].started)
    say(f"ticked, marked {marked}")
    gevent.joinall(everyone)
    say(sorted({one.value for one in everyone[:-1]}), everyone[-1].value)
    api.close()
    session.close()
    for generation in range(2, 12):
        mine.renew(mine.get_tokens())
        assert mine.get_tokens().generation == generation
    say(f"marked {is_marked()}")


def exit_while_it_flies() -> None:
    """Leave with greenlets waiting for what is sent."""
    for _ in range(10):
        gevent.spawn(lambda: outcome(mine.get_tokens))
    until(lambda: aboard(mine) == 10)
    told()
    atexit.register(lambda: say("leaving"))
    after_keyturn.append("the interpreter goes on with its exit")
    sys.exit(3)


def fork_while_it_flies() -> None:
    """Fork; have the child's hub run when the answer arrives; go on in the parent."""
    waiting = gevent.spawn(lambda: outcome(mine.get_tokens))
    until(lambda: aboard(mine) == 1)
    told()
    pid = os.fork()
    if pid == 0:
        say(f"child: {outcome(mine.get_tokens)}")
        told()
        for _ in range(20):
            gevent.sleep(0.001)
        own = credentials(tokens=given["own"])
        say(f"child: with its own {outcome(own.get_tokens)}")
        os._exit(0)
    _, status = monkey.get_original("os", "waitpid")(pid, 0)  # the parent's hub stands still
    say(f"parent: left with {status}")
    say(f"parent: {waiting.get()}", f"parent: {outcome(mine.get_tokens)}")


def use_pool_threads() -> None:
    """Use real threads: before the main one has refreshed, and beside it."""
    threads = gevent.threadpool.ThreadPool(10)

    def ask() -> str:
        return outcome(mine.get_tokens)

    say(threads.apply(ask))
    everyone = [
        gevent.spawn(ask),
        *(threads.spawn(ask) for _ in range(10)),
        *(gevent.spawn(ask) for _ in range(9)),
    ]
    until(lambda: aboard(mine) == 20)
    say("all wait")
    say(sorted({one.get() for one in everyone}))


{one.__name__: one for one in (crowd, exit_while_it_flies, fork_while_it_flies, use_pool_threads)}[
    given["does"]
]()

"""Use credentials in a shared store, whatever this process runs on: threads, greenlets, one loop or many.

Each line on stdin is a round of requests, and is answered by what came of
them. `runs` says on what, `clock` who has hold of the time. It ends when it
is told to, with everything open that it has opened.
"""

from __future__ import annotations

import json
import sys

given = json.loads(sys.argv[1])

if given["runs"].startswith("gevent"):
    if given["runs"] == "gevent_late":
        import warnings

        import keyturn.client.httpx2  # noqa: F401 - before gevent patches

        warnings.filterwarnings("ignore", "Monkey-patching ssl after ssl")
    from gevent import monkey

    monkey.patch_all()

import contextlib  # noqa: E402
import datetime  # noqa: E402

with contextlib.ExitStack() as frozen:
    if given["clock"] == "freezegun":
        import freezegun
        import psycopg  # noqa: F401 - whose binary part warns of a `datetime` that is freezegun's

        frozen.enter_context(freezegun.freeze_time(datetime.datetime.now(datetime.UTC)))
    elif given["clock"] == "time_machine":
        import time_machine

        now = datetime.datetime.now(datetime.UTC)
        frozen.enter_context(time_machine.travel(now, tick=False))
    from tests.environments.programs import rounds

    rounds.serve()

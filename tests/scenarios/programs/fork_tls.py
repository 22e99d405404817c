"""Fork while the first flight makes its TLS context, under a lock as OpenSSL's, which outlives a fork."""

from __future__ import annotations

import faulthandler
import os
import ssl
import sys
import threading
import time
from typing import Any

import httpx2

from keyturn.client import grants
from tests.scenarios.programs import CHILD_WITHIN, credentials, given, outcome, say
from tests.waiting import start

openssl = threading.Lock()
building = threading.Event()
make = httpx2.create_ssl_context


def make_slowly(*args: Any, **options: Any) -> ssl.SSLContext:
    """Make a context under OpenSSL's lock, and take one's time."""
    with openssl:
        building.set()
        time.sleep(0.3)
        return make(*args, **options)


httpx2.create_ssl_context = make_slowly
oauth2 = grants.OAuth2(given["url"] + "/token", client_id="programs")  # with the default client
mine = credentials(oauth2)
flight = start(lambda: outcome(mine.get_tokens))
building.wait()
pid = os.fork()
if pid == 0:
    faulthandler.dump_traceback_later(CHILD_WITHIN, exit=True)
    say(f"child: {outcome(credentials(oauth2, tokens=given['own']).get_tokens)}")
    sys.exit(0)
say(f"parent: left with {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}")
say(f"parent: {flight.result()}")

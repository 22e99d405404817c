"""Refresh in a subinterpreter, isolated or as an embedding program makes them, and in the main one."""

from __future__ import annotations

import importlib
import json
import os
import sys

given = json.loads(sys.argv[1])

PRELUDE = f"""
import logging, os, sys
logging.disable(logging.WARNING)  # asyncio warns of callbacks that take 100 ms
sys.path[:] = {sys.path!r}
sys.argv = ["", {json.dumps(given)!r}]
import keyturn
from keyturn.client import grants

def say(line):
    os.write(1, f"{{line}}\\n".encode())

def outcome(call):
    try:
        return call().generation
    except keyturn.KeyturnError as error:
        return type(error).__name__

def event(event):
    if type(event).__name__ == "Refreshed":
        say("event: Refreshed")

given = {given!r}

def credentials(tokens):
    grant = grants.OAuth2(given["url"] + "/token", client_id="programs")
    shared = {{key: given[key] for key in ("store", "name") if key in given}}
    return keyturn.Credentials(
        grant, tokens=keyturn.Tokens(**tokens), origins=[given["url"]], on_event=event, **shared
    )
"""
ISOLATED = """
try:
    mine, valid = credentials(given["tokens"]), credentials(given["valid"])
except keyturn.KeyturnError as error:
    say(f"grant: {type(error).__name__}")
else:
    say(outcome(mine.get_tokens))
    say(f"valid: {outcome(valid.get_tokens)}")
"""
EMBEDDED = """
mine = credentials(given["tokens"])
outcome(lambda: mine.get_tokens(timeout=0.0))
os.read(0, 100)
say("ending")
"""


def run_isolated(code: str) -> None:
    """Run code in an isolated subinterpreter, and end it."""
    if sys.version_info >= (3, 13):
        interpreters = importlib.import_module("_interpreters")
        made = interpreters.create("isolated")
        failure = interpreters.exec(made, code)
        if failure is not None:
            sys.exit(str(failure))
    else:
        interpreters = importlib.import_module("_xxsubinterpreters")
        made = interpreters.create(isolated=True)
        interpreters.run_string(made, code)
    interpreters.destroy(made)


if (
    given["kind"] == "embedded"
):  # and nothing here, since asyncio is one for all interpreters until Python 3.12
    importlib.import_module("_testcapi").run_in_subinterp(PRELUDE + EMBEDDED)
else:
    from tests.scenarios.programs import credentials, outcome, say

    run_isolated(PRELUDE + ISOLATED)
    mine = credentials()
    say(f"main: {outcome(mine.get_tokens)}")
os.write(1, b"ended\n")
sys.stderr.flush()
os._exit(0)  # some Pythons 3.12 crash at an exit after an isolated subinterpreter has imported asyncio

"""Hand tokens, and then credentials, to other processes: spawned, forkserved, forked, or of a pool."""

from __future__ import annotations

import logging
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import httpx2

import keyturn
from keyturn.client.httpx2 import Auth


def use(url: str, tokens: keyturn.Tokens) -> tuple[int, int]:
    """Make credentials of handed tokens in this process; return a status and the generation."""
    from keyturn.client import grants

    logging.getLogger("asyncio").setLevel(logging.ERROR)  # in development mode it warns of slow callbacks
    mine = keyturn.Credentials(grants.OAuth2(url + "/token", client_id="x"), tokens=tokens, origins=[url])
    with httpx2.Client(base_url=url, auth=Auth(mine), verify=False, trust_env=False) as api:
        return api.get("/x").status_code, mine.get_tokens().generation


def use_inherited(_: int) -> str:
    """Use what a forked child has from its parent."""
    from tests.scenarios.programs import outcome

    return outcome(inherited[0].get_tokens)


inherited: list[keyturn.Credentials] = []

if __name__ == "__main__":
    from tests.scenarios.programs import credentials, given, outcome, say

    method = given["method"]
    mine = credentials()
    say(f"before: {outcome(mine.get_tokens)}")
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        handed = keyturn.Tokens(**given["handed"])
        say(f"tokens: {pool.submit(use, given['url'], handed).result()}")
        try:
            pool.submit(use, given["url"], mine).result()  # type: ignore[arg-type]  # which is what is wrong
        except TypeError as error:
            say(f"credentials: {error}")
    if method == "fork":
        inherited.append(credentials(tokens=given["inherited"]))
        with multiprocessing.get_context("fork").Pool(2) as forked:
            say(f"inherited: {' '.join(forked.map(use_inherited, range(4), 1))}")
            forked.close()
            forked.join()
    mine.renew(mine.get_tokens())
    say(f"after: {outcome(mine.get_tokens)}")
    sys.exit(0)

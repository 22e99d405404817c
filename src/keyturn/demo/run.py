"""`keyturn demo`: run both clients against one server, and show what was seen."""

from __future__ import annotations

import asyncio
import json
import os

import httpx2
from rich.console import Console

from keyturn.demo import clients, scene
from keyturn.demo.process import Server
from keyturn.demo.record import Lane
from keyturn.demo.waterfall import draw, glyphs_for, in_words
from keyturn.errors import KeyturnError
from keyturn.tokens import Tokens

_EXPIRES_WITHIN = 15.0
_DONE_WITHIN = 60.0


def main(requests: int, *, as_json: bool) -> int:
    """Run the demo and return its exit code: 0, or 1 if it could not be run to its end."""
    news = _console(stderr=as_json)
    try:
        with Server() as url:
            lanes = asyncio.run(_compare(url, requests, news))
        if as_json:
            said = {name: lane.as_json() for name, lane in lanes.items()}
            print(json.dumps(said, indent=2), flush=True)  # noqa: T201 - the result, for a pipe
        else:
            _show([*lanes.values()])
    except BrokenPipeError:
        raise  # whoever read this has seen enough; click ends quietly
    except (KeyturnError, httpx2.HTTPError, OSError) as problem:  # TimeoutError is an OSError
        _console(stderr=True).print(f"keyturn demo: {str(problem) or 'it took too long'}")
        return 1
    return 0


async def _compare(url: str, number: int, news: Console) -> dict[str, Lane]:
    paths = scene.names(number)
    calls = "1 dashboard call" if number == 1 else f"{number} dashboard calls at once"
    async with asyncio.timeout(_DONE_WITHIN):
        news.print(f"A server runs at {url}. It takes each refresh token once.")
        first, second = await _sign_in(url), await _sign_in(url)
        news.print("Signed in. Waiting for the access token to expire, until it gets a 401 ...")
        await _expired(url, first, second)
        news.print(f"{calls}, with a client that refreshes on every 401 ...")
        naive = await clients.naive(url, first, paths)
        news.print("The same with keyturn ...")
        return {"naive": naive, "keyturn": await clients.with_keyturn(url, second, paths)}


async def _sign_in(url: str) -> Tokens:
    async with clients.plain(url) as api:
        answer = (await api.post(scene.LOGIN)).raise_for_status().json()
        return Tokens(answer["access_token"], answer["refresh_token"])


async def _expired(url: str, *pairs: Tokens) -> None:
    """Return when the server refuses the access token of each pair."""
    async with clients.plain(url) as api, asyncio.timeout(_EXPIRES_WITHIN):
        for pair in pairs:
            bearer = {"Authorization": f"Bearer {pair.access}"}
            while (await api.get("/statistics", headers=bearer)).status_code != 401:  # noqa: ASYNC110 - only the server knows
                await asyncio.sleep(0.05)


def _show(lanes: list[Lane]) -> None:
    out = _console()
    colour = out.color_system is not None
    out.print()
    lines = draw(lanes, out.width, glyphs=glyphs_for(out.encoding), colour=colour)
    for line in lines:
        out.print(line, no_wrap=True, overflow="ignore", crop=False)
    if out.is_terminal and len(lines) > out.height:  # the upper half has scrolled away
        out.print()
        for lane in lanes:
            out.print(in_words(lane))


def _console(*, stderr: bool = False) -> Console:
    # With NO_COLOR rich leaves out the colours, but not bold and dim.
    plain = bool(os.environ.get("NO_COLOR"))
    return Console(stderr=stderr, highlight=False, markup=False, color_system=None if plain else "auto")

"""What sharing a session costs, in each token store: real processes, a strict server, one run.

    uv run --group bench python -m benchmarks.token_stores [--write]

    8 x 50      8 processes with 50 requests each, and a token that has expired: token calls, answers,
                and the wall time beside one process with the 400 in memory
    followers   from the moment when the leader's save returns to the last of 7 other processes that
                has the new tokens; 95 of 100 rounds are at or below that
    steady      what `get_tokens()` costs with a fresh token, beside the memory store
    10,000      10,000 credentials of one pool in each of 4 processes; 1,000 of them are refused in all
                four at once: token calls, refreshes a second, and the memory of a process

PostgreSQL and Redis are those of KEYTURN_TEST_POSTGRES and KEYTURN_TEST_REDIS. `--write` puts the
tables into docs/benchmarks.md.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, cast

import httpx2

import keyturn
from keyturn.client import grants
from keyturn.client.entry import Entry
from keyturn.client.httpx2 import Auth
from keyturn.testing import StrictServer

PROCESSES, REQUESTS = 8, 50
ROUNDS = 100
CALLS = 200_000
FLEET, POOL, TOGETHER = 4, 10_000, 1_000
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
COMMAND = "`uv run --group bench python -m benchmarks.token_stores --write`"
MARKS = "<!-- token stores:begin -->", "<!-- token stores:end -->"


# One process of a fleet: it is told by lines, and answers with lines


def credentials(given: dict[str, Any]) -> keyturn.Credentials:
    """Return what one process holds."""
    shared = {} if given["store"] == "memory://" else {"store": given["store"]}
    return keyturn.Credentials(
        grants.OAuth2(given["url"] + "/token"),
        tokens=_tokens(given["seed"]),
        origins=[given["url"]],
        name=given["name"],
        **shared,
    )


def _tokens(written: list[Any]) -> keyturn.Tokens:
    access, refresh, expires_at = written
    return keyturn.Tokens(access, refresh, expires_at)


def _written(tokens: keyturn.Tokens) -> list[Any]:
    return [tokens.access, tokens.refresh, tokens.expires_at]


def say(what: object) -> None:
    """Answer with one line."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def storm(given: dict[str, Any]) -> None:
    """Send the requests when told, all at once; say how many were answered."""
    creds = credentials(given)

    async def main() -> int:
        limits = httpx2.Limits(max_connections=REQUESTS)
        async with httpx2.AsyncClient(
            base_url=given["url"], auth=Auth(creds), limits=limits, timeout=60, trust_env=False
        ) as api:
            say("ready")
            sys.stdin.readline()
            calls = (api.get(f"/statistics/{i}") for i in range(given["requests"]))
            return sum(answer.status_code == 200 for answer in await asyncio.gather(*calls))

    say(asyncio.run(main()))
    creds.close()


def follow(given: dict[str, Any]) -> None:
    """Report the tokens at hand as refused, round by round; say when that was over, and when a save was."""
    creds = credentials(given)
    saved: list[float] = []
    save = Entry.save

    async def timed(*args: Any, **options: Any) -> bool:
        done = await save(*args, **options)
        saved.append(time.monotonic())
        return done

    Entry.save = timed  # type: ignore[method-assign]
    held = creds.get_tokens()
    say("ready")
    for _ in range(ROUNDS):
        sys.stdin.readline()
        saved.clear()
        held = creds.renew(held)
        say([time.monotonic(), saved[0] if saved else None])
    creds.close()


def crowd(given: dict[str, Any]) -> None:
    """Load a pool, then have a part of it refused at once; say what memory and what time that took."""
    seeds = json.loads(Path(given["seeds"]).read_text())
    before = _memory()
    pool = keyturn.CredentialsPool(
        grants.OAuth2(given["url"] + "/token"),
        origins=[given["url"]],
        tokens=lambda name: _tokens(seeds[name]),
        store=given["store"],
        most_idle=POOL,
    )

    async def main() -> None:
        names = list(seeds)
        held: list[keyturn.client.Snapshot] = []
        for i in range(0, POOL, 500):
            held += await asyncio.gather(*(pool[name].aget_tokens() for name in names[i : i + 500]))
        say(["loaded", _memory() - before])
        sys.stdin.readline()
        began = time.monotonic()
        renewed = await asyncio.gather(
            *(pool[name].arenew(one, timeout=300) for name, one in zip(names[:TOGETHER], held, strict=False))
        )
        say([began, time.monotonic(), sum(one.generation == 1 for one in renewed), _memory() - before])

    asyncio.run(main())
    pool.close()


def _memory() -> float:
    """Return the most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# The fleet


class Fleet:
    """Processes of one kind."""

    def __init__(self, kind: Callable[[dict[str, Any]], None], given: dict[str, Any], count: int) -> None:
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.token_stores", kind.__name__, json.dumps(given)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=Path(__file__).parents[1],
            )
            for _ in range(count)
        ]
        self.ready = self.answers()

    def tell(self) -> None:
        """Let all of them go on."""
        for one in self._processes:
            stdin = cast("IO[bytes]", one.stdin)
            stdin.write(b"\n")
            stdin.flush()

    def answers(self) -> list[Any]:
        """Return a line of each."""
        return [json.loads(cast("IO[bytes]", one.stdout).readline()) for one in self._processes]

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._processes:
            cast("IO[bytes]", one.stdin).close()
            cast("IO[bytes]", one.stdout).close()
            one.wait(60)


@contextmanager
def stores() -> Iterator[dict[str, str]]:
    """Yield an empty place in each kind of store, by its name; clean up afterwards."""
    mine = f"keyturn_{uuid.uuid4().hex[:12]}"
    postgres = os.environ.get("KEYTURN_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/test")
    redis_url = os.environ.get("KEYTURN_TEST_REDIS", "redis://127.0.0.1:6379")
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        yield {
            "file": f"file://{folder}/tokens",
            "SQLite": f"sqlite:///{folder}/tokens.db",
            "PostgreSQL": f"{postgres}{'&' if '?' in postgres else '?'}keyturn_table={mine}",
            "Redis": f"{redis_url}{'&' if '?' in redis_url else '?'}prefix={mine}",
        }
        import psycopg
        import redis

        with psycopg.connect(postgres) as connection:
            connection.execute(f"DROP TABLE IF EXISTS {mine}".encode())
        with redis.Redis.from_url(redis_url) as client:
            for key in client.scan_iter(f"*{mine}*"):
                client.delete(key)


def given(server: StrictServer, store: str, tokens: keyturn.Tokens, **more: Any) -> dict[str, Any]:
    """Return what a process is told at its start."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    return {"url": server.url, "store": store, "name": name, "seed": _written(tokens), **more}


# The rows


def storm_row(name: str, store: str) -> list[str]:
    """Measure 8 x 50."""
    alone = name == "memory"
    times, calls, answered = [], [], []
    for _ in range(5):
        with StrictServer() as server:
            tokens = server.sign_in(ttl=-1.0)
            requests = PROCESSES * REQUESTS if alone else REQUESTS
            with Fleet(
                storm, given(server, store, tokens, requests=requests), 1 if alone else PROCESSES
            ) as fleet:
                began = time.monotonic()
                fleet.tell()
                answered.append(sum(fleet.answers()))
                times.append(time.monotonic() - began)
            calls.append(server.stats.refreshes)
            assert server.stats.reuses == 0
    return [
        name,
        "1 x 400" if alone else "8 x 50",
        _all(calls),
        f"{_all(answered)} of {PROCESSES * REQUESTS}",
        f"{statistics.median(times):.2f} s",
    ]


def _all(values: list[int]) -> str:
    return " or ".join(map(str, sorted(set(values))))


def follow_row(name: str, store: str) -> list[str]:
    """Measure from the leader's save to the last follower."""
    lags = []
    with StrictServer(ttl=3600.0) as server:
        with Fleet(follow, given(server, store, server.sign_in()), PROCESSES) as fleet:
            for _ in range(ROUNDS):
                fleet.tell()
                rounds = fleet.answers()
                (saved,) = [one for _, one in rounds if one is not None]
                lags.append(max(resumed for resumed, one in rounds if one is None) - saved)
        assert server.stats.refreshes == ROUNDS
    ordered = sorted(lags)
    return [
        name,
        f"{statistics.median(lags) * 1e3:.0f} ms",
        f"{ordered[int(ROUNDS * 0.95) - 1] * 1e3:.0f} ms",
    ]


def steady_rows(places: dict[str, str]) -> list[list[str]]:
    """Measure a call with a fresh token, each store in turn, the best of many turns."""
    with StrictServer(ttl=3600.0) as server:
        made = {
            name: credentials(given(server, store, server.sign_in()))
            for name, store in {"memory": "memory://", **places}.items()
        }
        for one in made.values():
            one.get_tokens()
        best = dict.fromkeys(made, float("inf"))
        for _ in range(10):
            for name, one in made.items():
                began = time.perf_counter()
                for _ in range(CALLS // 10):
                    one.get_tokens()
                best[name] = min(best[name], (time.perf_counter() - began) / (CALLS // 10))
        for one in made.values():
            one.close()
    return [[name, f"{cost * 1e9:.0f} ns", f"{cost / best['memory']:.2f}"] for name, cost in best.items()]


def crowd_row(name: str, store: str) -> list[str]:
    """Measure 10,000 credentials, 1,000 of which are refused in 4 processes at once."""
    with StrictServer(ttl=3600.0) as server, tempfile.NamedTemporaryFile("w", suffix=".json") as seeds:
        later = time.time() + 3600
        everyone: dict[str, list[Any]] = {
            f"{name} {i}": _written(server.sign_in(f"tenant {i}")) for i in range(TOGETHER)
        }
        everyone |= {f"{name} {i}": [f"access-{i}", f"refresh-{i}", later] for i in range(TOGETHER, POOL)}
        json.dump(everyone, seeds)
        seeds.flush()
        with Fleet(crowd, {"url": server.url, "store": store, "seeds": seeds.name}, FLEET) as fleet:
            fleet.tell()
            ended = fleet.answers()
        assert all(renewed == TOGETHER for _, _, renewed, _ in ended), ended
        assert server.stats.reuses == 0
        took = max(end for _, end, _, _ in ended) - min(began for began, _, _, _ in ended)
        memory = statistics.mean(loaded for _, loaded in fleet.ready)
        return [
            name,
            str(server.stats.refreshes),
            f"{took:.1f} s",
            f"{TOGETHER / took:.0f}",
            f"{memory:.0f} MB",
        ]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table as a page has it."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def main() -> None:
    """Measure everything and print it; write it where that is asked for."""
    began = time.monotonic()
    with stores() as places:
        everything = "\n\n".join(
            [
                COMMAND + f", on {time.strftime('%Y-%m-%d')}, Python {sys.version.split()[0]}.",
                table(
                    ["", "", "token calls", "answered", "wall time, median of 5"],
                    [storm_row(*one) for one in {"memory": "memory://", **places}.items()],
                ),
                "From the leader's save to the last of 7 followers:",
                table(["", "median", "95th of 100"], [follow_row(*one) for one in places.items()]),
                "`get_tokens()` with a fresh token:",
                table(["", "a call", "of memory's"], steady_rows(places)),
                "10,000 credentials in each of 4 processes, 1,000 of them refused in all four at once:",
                table(
                    [
                        "",
                        "token calls",
                        "until all have new tokens",
                        "refreshes a second",
                        "memory a process",
                    ],
                    [crowd_row(*one) for one in places.items()],
                ),
            ]
        )
    print(everything)
    print(f"\n{time.monotonic() - began:.0f} s")
    if "--write" in sys.argv:
        page = PAGE.read_text()
        before, _, rest = page.partition(MARKS[0])
        _, _, after = rest.partition(MARKS[1])
        PAGE.write_text(f"{before}{MARKS[0]}\n\n{everything}\n\n{MARKS[1]}{after}")


if __name__ == "__main__":
    kinds = {one.__name__: one for one in (storm, follow, crowd)}
    if len(sys.argv) > 1 and sys.argv[1] in kinds:
        kinds[sys.argv[1]](json.loads(sys.argv[2]))
    else:
        main()

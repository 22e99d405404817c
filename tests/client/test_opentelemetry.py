"""The span of a refresh and the callers who wait for it, with OpenTelemetry's own SDK, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
import trio
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

import keyturn
from keyturn.client import events, grants
from keyturn.client.opentelemetry import MOST_LINKS, Telemetry
from keyturn.testing import StrictServer
from tests.client.recorder import Recorder, Where, links, where
from tests.kit import HOSTS, Host, credentials_for, in_threads, run_in_loop
from tests.waiting import WITHIN, aboard, patient_oauth2, start, until


def expired(server: StrictServer, recorder: Recorder, **options: object) -> keyturn.Credentials:
    """Return credentials whose first caller starts a refresh, which the server holds."""
    server.hold_refresh()
    return credentials_for(
        server,
        server.sign_in(ttl=-1.0),
        grant=patient_oauth2(server),
        on_event=recorder.telemetry,
        **options,
    )


def call(recorder: Recorder, credentials: keyturn.Credentials, seconds: float | None = WITHIN) -> Where:
    """Ask for tokens in a span of one's own; return which it was."""
    with recorder.span() as span, contextlib.suppress(keyturn.KeyturnError):
        credentials.get_tokens(timeout=seconds)
    return where(span)


async def acall(recorder: Recorder, credentials: keyturn.Credentials) -> Where:
    """Do as `call` does, in a task of asyncio or trio."""
    with recorder.span() as span:
        await credentials.aget_tokens(timeout=WITHIN)
    return where(span)


def calls_in_asyncio(recorder: Recorder, credentials: keyturn.Credentials, count: int) -> list[Where]:
    """Call from tasks of a loop."""

    async def main() -> list[Where]:
        return await asyncio.gather(*(acall(recorder, credentials) for _ in range(count)))

    return asyncio.run(main())


def calls_in_trio(recorder: Recorder, credentials: keyturn.Credentials, count: int) -> list[Where]:
    """Call from tasks of trio."""
    called = list[Where]()

    async def one() -> None:
        called.append(await acall(recorder, credentials))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(one)

    trio.run(main)
    return called


def calls_in_threads(recorder: Recorder, credentials: keyturn.Credentials, count: int) -> list[Where]:
    """Call from threads."""
    return in_threads(count, lambda _: call(recorder, credentials))


def nothing_is_left(recorder: Recorder) -> bool:
    """Tell whether the bridge remembers no flight."""
    return recorder.telemetry._flights == {}


def test_one_refresh_is_one_span_linked_with_every_thread_and_task_that_waited(
    strict_server: StrictServer,
) -> None:
    recorder = Recorder()
    credentials = expired(strict_server, recorder, name="alice")
    ways = (calls_in_threads, calls_in_asyncio, calls_in_trio, calls_in_asyncio)
    crowds = [start(lambda way=way: way(recorder, credentials, 10)) for way in ways]  # type: ignore[misc]
    until(lambda: aboard(credentials) == 40)
    strict_server.release()
    callers = {one for crowd in crowds for one in crowd.result(WITHIN)}

    refresh = recorder.refresh()
    assert sorted(links(refresh)) == sorted(callers)
    assert len(callers) == 40
    assert {one for span in recorder.named("call") for one in links(span)} == {where(refresh)}
    assert all(len(links(span)) == 1 for span in recorder.named("call"))
    assert refresh.parent is None
    assert where(refresh)[0] not in {trace_id for trace_id, _ in callers}, "a trace of its own"
    assert (refresh.kind, refresh.status.status_code) == (SpanKind.INTERNAL, StatusCode.UNSET)
    assert credentials.tokens is not None
    assert dict(refresh.attributes or {}) == {
        "keyturn.credentials.name": "alice",
        "keyturn.epoch": credentials.tokens.epoch,
        "keyturn.generation": 0,
        "keyturn.result": "refreshed",
        "keyturn.waiters": 40,
        "keyturn.attempts": 1,
    }
    assert recorder.count("refreshes") == strict_server.stats.refreshes == 1
    assert (
        recorder.count("wait.duration")
        == recorder.count("wait.duration", keyturn__wait__result="renewed")
        == 40
    )
    assert nothing_is_left(recorder)


def test_the_span_lasts_from_take_off_to_landing_and_the_histogram_as_long_as_the_wait(
    strict_server: StrictServer,
) -> None:
    recorder = Recorder()
    credentials = credentials_for(strict_server, strict_server.sign_in(ttl=-1.0), on_event=recorder.telemetry)
    strict_server.configure(refresh_delay=0.1)
    call(recorder, credentials)

    refresh, (caller,) = recorder.refresh(), recorder.named("call")
    [(_, waited)] = recorder.points("wait.duration")
    assert None not in (refresh.start_time, refresh.end_time, caller.start_time, caller.end_time)
    took = ((refresh.end_time or 0) - (refresh.start_time or 0)) / 1e9
    assert took >= 0.1
    assert 0.1 <= waited.sum <= ((caller.end_time or 0) - (caller.start_time or 0)) / 1e9
    assert (waited.explicit_bounds[0], waited.explicit_bounds[-1]) == (0.005, 60.0)
    assert [one.span_id for one in waited.exemplars] == [where(caller)[1]], (
        "it leads to a trace of one who waited"
    )


def test_a_span_that_waits_many_times_is_linked_once(strict_server: StrictServer) -> None:
    recorder = Recorder()
    credentials = expired(strict_server, recorder)

    async def page() -> Where:
        with recorder.span("page") as span:
            await asyncio.gather(*(credentials.aget_tokens(timeout=WITHIN) for _ in range(20)))
        return where(span)

    shown = start(lambda: asyncio.run(page()))
    until(lambda: aboard(credentials) == 20)
    strict_server.release()

    refresh = recorder.refresh()
    assert links(refresh) == [shown.result(WITHIN)]
    assert links(recorder.named("page")[0]) == [where(refresh)]


def test_of_a_great_crowd_as_many_are_linked_as_a_span_keeps_links(strict_server: StrictServer) -> None:
    recorder = Recorder()
    credentials = expired(strict_server, recorder)
    crowd = start(lambda: calls_in_asyncio(recorder, credentials, MOST_LINKS + 100))
    until(lambda: aboard(credentials) == MOST_LINKS + 100)
    strict_server.release()
    crowd.result(WITHIN)

    refresh = recorder.refresh()
    assert len(links(refresh)) == len(set(links(refresh))) == MOST_LINKS
    assert refresh.dropped_links == 0
    assert (refresh.attributes or {})["keyturn.waiters"] == MOST_LINKS + 100


def test_callers_without_a_span_are_counted_and_link_nothing(strict_server: StrictServer) -> None:
    recorder = Recorder()
    credentials = expired(strict_server, recorder)
    waiting = [start(lambda: credentials.get_tokens(timeout=WITHIN)) for _ in range(5)]
    until(lambda: aboard(credentials) == 5)
    strict_server.release()
    assert {one.result(WITHIN).generation for one in waiting} == {1}

    assert links(recorder.refresh()) == []
    assert recorder.count("wait.duration") == 5


def test_callers_that_are_not_sampled_are_not_linked_and_nor_is_a_refresh_that_is_not(
    strict_server: StrictServer,
) -> None:
    recorder, silent = Recorder(), Recorder(ALWAYS_OFF)
    credentials = expired(strict_server, recorder)
    waiting = start(lambda: call(silent, credentials))
    until(lambda: aboard(credentials) == 1)
    strict_server.release()
    waiting.result(WITHIN)
    assert links(recorder.refresh()) == []

    credentials = expired(strict_server, silent)
    waiting = start(lambda: call(recorder, credentials))
    until(lambda: aboard(credentials) == 1)
    strict_server.release()
    waiting.result(WITHIN)
    assert links(recorder.named("call")[0]) == []
    assert silent.spans == []
    assert silent.count("refreshes") == 1, "metrics do not depend on the sampling of spans"


# Who leaves early


def test_a_cancelled_task_is_linked_and_counted_and_the_span_goes_on(strict_server: StrictServer) -> None:
    recorder = Recorder()
    credentials = expired(strict_server, recorder)

    async def in_asyncio() -> None:
        task = asyncio.create_task(acall(recorder, credentials))
        await asyncio.to_thread(strict_server.wait_for, refreshes=1)  # the flight has been told of
        await asyncio.to_thread(until, lambda: aboard(credentials) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def in_trio() -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(acall, recorder, credentials)
                await trio.to_thread.run_sync(until, lambda: aboard(credentials) == 1)
                scope.cancel()
        assert scope.cancelled_caught

    asyncio.run(in_asyncio())
    trio.run(in_trio)
    assert recorder.count("wait.duration", keyturn__wait__result="cancelled") == 2
    assert recorder.named("keyturn refresh") == []
    strict_server.release()

    refresh = recorder.refresh()
    left = recorder.named("call")
    assert sorted(links(refresh)) == sorted(where(span) for span in left)
    assert [links(span) for span in left] == [[where(refresh)]] * 2
    assert recorder.count("refreshes") == 1
    assert nothing_is_left(recorder)


def test_a_caller_whose_time_runs_out_is_counted_by_that(strict_server: StrictServer) -> None:
    recorder = Recorder()
    credentials = expired(strict_server, recorder)
    early = call(recorder, credentials, seconds=0.0)
    strict_server.wait_for(refreshes=1)
    later = call(recorder, credentials, seconds=0.0)
    strict_server.release()

    assert set(links(recorder.refresh())) == {early, later}
    assert [told for told, _ in recorder.points("wait.duration")] == [
        {"keyturn.wait.result": "timed_out", "error.type": "RefreshTimeout"}
    ]
    assert recorder.count("wait.duration") == 2
    assert nothing_is_left(recorder)


HEAD: dict[str, Any] = {"name": None, "epoch": "e", "generation": 0}
FIGURES: dict[str, Any] = {"flight": 7, "waiters": 1, "duration": 1.0, "attempts": 1}
TAKE_OFF, LANDING = events.Refreshing(**HEAD, flight=7), events.Refreshed(**HEAD, **FIGURES)
ARRIVAL = events.Waiting(**HEAD, flight=7)


def leaving(result: events.Result, cause: keyturn.KeyturnError | None = None) -> events.Waited:
    """Return the event of a caller who waits no more."""
    return events.Waited(**HEAD, flight=7, duration=0.0, result=result, cause=cause)


def in_the_flight(recorder: Recorder, *told: events.Event) -> None:
    """Tell the bridge of events as a flight does: in a context of the flight's own."""
    flight = contextvars.Context()
    for event in told:
        flight.run(recorder.telemetry, event)


@pytest.mark.parametrize(
    "left",
    [
        leaving("renewed"),
        leaving("kept", keyturn.RefreshUnavailable("away")),
        leaving("failed", keyturn.RefreshUnavailable("away")),
    ],
    ids=lambda left: left.result,
)
def test_a_caller_who_comes_when_the_flight_was_told_to_have_landed_leaves_nothing_behind(
    left: events.Waited,
) -> None:
    recorder = Recorder()
    in_the_flight(recorder, TAKE_OFF, LANDING)
    with recorder.span() as span:
        recorder.telemetry(ARRIVAL)
        assert not nothing_is_left(recorder)
        recorder.telemetry(left)

    assert nothing_is_left(recorder)
    assert links(recorder.refresh()) == links(span) == []


def test_a_caller_who_waits_before_the_flight_is_told_of_is_linked_also_if_he_has_left_by_then() -> None:
    recorder = Recorder()
    with recorder.span() as span:
        recorder.telemetry(ARRIVAL)
        with recorder.span("another"):
            recorder.telemetry(ARRIVAL)
            recorder.telemetry(leaving("timed_out", keyturn.RefreshTimeout("later")))
        in_the_flight(recorder, TAKE_OFF, LANDING)
        recorder.telemetry(leaving("renewed"))

    refresh, (another,) = recorder.refresh(), recorder.named("another")
    assert links(refresh) == [where(span), where(another)]
    assert (links(span), links(another)) == ([where(refresh)], [])
    assert nothing_is_left(recorder)


# The context of the exchange


def in_a_task(body: Callable[[], None]) -> grants.Function:
    """Return an async grant that runs `body` and gives a pair."""

    async def grant(tokens: keyturn.Tokens, http: httpx2.AsyncClient) -> keyturn.Tokens:
        await asyncio.create_task(asyncio.sleep(0))
        body()
        return keyturn.Tokens("new")

    return grant


def on_a_thread(body: Callable[[], None]) -> grants.Function:
    """Return a plain grant that does the same."""

    def grant(tokens: keyturn.Tokens, http: httpx2.Client) -> keyturn.Tokens:
        body()
        return keyturn.Tokens("new")

    return grant


@pytest.mark.parametrize("way", [in_a_task, on_a_thread])
def test_what_the_exchange_records_belongs_to_the_refresh_and_to_none_of_the_callers(
    way: Callable[[Callable[[], None]], grants.Function],
) -> None:
    recorder, carried = Recorder(), list[object]()

    def body() -> None:
        carried.append(baggage.get_baggage("of", context.get_current()))
        with recorder.span("exchange"):
            pass

    credentials = keyturn.Credentials(
        way(body),
        tokens=keyturn.Tokens("old", "refresh", 1.0),
        origins=["https://api.example"],
        on_event=recorder.telemetry,
    )
    token = context.attach(baggage.set_baggage("of", "the first caller"))
    try:
        call(recorder, credentials)
        after = trace.get_current_span()
    finally:
        context.detach(token)

    refresh, (exchange,) = recorder.refresh(), recorder.named("exchange")
    assert exchange.parent is not None
    assert (exchange.parent.trace_id, exchange.parent.span_id) == where(refresh)
    assert carried == [None]
    assert after is trace.INVALID_SPAN


def test_the_refresh_of_a_refresh_is_linked_with_it(
    strict_server: StrictServer, other_server: StrictServer
) -> None:
    recorder = Recorder()
    options: dict[str, Any] = {"on_event": recorder.telemetry}
    outer = credentials_for(other_server, other_server.sign_in(ttl=-1.0), name="outer", **options)

    async def grant(tokens: keyturn.Tokens, http: httpx2.AsyncClient) -> keyturn.Tokens:
        await outer.aget_tokens()
        return keyturn.Tokens("new")

    credentials_for(
        strict_server, strict_server.sign_in(ttl=-1.0), grant=grants.Call(grant), **options
    ).get_tokens()

    by_name = {
        (span.attributes or {}).get("keyturn.credentials.name"): span for span in recorder.refreshes(2)
    }
    assert by_name["outer"].parent is None
    assert links(by_name["outer"]) == [where(by_name[None])]
    assert links(by_name[None]) == [where(by_name["outer"])]


# Requests


@pytest.mark.parametrize("host", HOSTS, ids=str)
def test_a_storm_of_requests_is_one_refresh_linked_with_each_and_a_replay_for_each(
    strict_server: StrictServer, host: Host
) -> None:
    recorder = Recorder()
    credentials = credentials_for(strict_server, on_event=recorder.telemetry)
    strict_server.expire()
    strict_server.hold_api(20)
    strict_server.hold_refresh()

    async def main() -> list[Where]:
        async with host.async_client(strict_server, credentials) as api:

            async def get(i: int) -> Where:
                with recorder.span() as span:
                    assert (await api.get(f"/statistics/{i}")).status_code == 200
                return where(span)

            return await asyncio.gather(*(get(i) for i in range(20)))

    crowd = start(lambda: run_in_loop(main))
    until(lambda: aboard(credentials) == 20)
    strict_server.release()
    callers = crowd.result(WITHIN)
    assert sorted(links(recorder.refresh())) == sorted(callers)
    assert (recorder.count("refreshes"), recorder.count("replays")) == (1, 20)
    assert recorder.count("wait.duration", keyturn__wait__result="renewed") == 20


def test_a_pair_that_came_with_a_response_is_an_adoption() -> None:
    recorder = Recorder()
    credentials = keyturn.Credentials(
        in_a_task(lambda: None),
        tokens=keyturn.Tokens("old", "refresh"),
        origins=["https://api.example"],
        on_event=recorder.telemetry,
    )
    before = credentials.tokens
    assert before is not None
    assert credentials.adopt(keyturn.Tokens("new", "refresh"), before)
    assert (recorder.count("adoptions"), recorder.spans) == (1, [])


def test_a_save_that_fails_is_counted() -> None:
    recorder = Recorder()
    cause = keyturn.TokenStoreUnavailable("away")
    recorder.telemetry(events.SaveFailed(name="alice", epoch="e", generation=1, attempts=2, cause=cause))
    assert (recorder.count("save_failures"), recorder.spans) == (1, [])


# How it is put together


def test_names_are_in_the_metrics_only_where_they_are_asked_for(strict_server: StrictServer) -> None:
    for names, told in ((False, {}), (True, {"keyturn.credentials.name": "tenant-7"})):
        recorder = Recorder(names=names)
        tokens = strict_server.sign_in(ttl=-1.0)
        named = credentials_for(strict_server, tokens, name="tenant-7", on_event=recorder.telemetry)
        named.get_tokens(timeout=WITHIN)
        recorder.refresh()
        assert [attributes for attributes, _ in recorder.points("refreshes")] == [told]
        [(waited, _)] = recorder.points("wait.duration")
        assert waited == {"keyturn.wait.result": "renewed", **told}


def test_one_bridge_serves_many_credentials_and_a_second_one_disturbs_nobody(
    strict_server: StrictServer, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    second = Telemetry(tracer_provider=recorder.tracers, meter_provider=recorder.meters)
    for on_event in (recorder.telemetry, recorder.telemetry, second):
        tokens = strict_server.sign_in(ttl=-1.0)
        credentials_for(strict_server, tokens, on_event=on_event).get_tokens(timeout=WITHIN)

    recorder.refreshes(3)
    assert recorder.count("refreshes") == 3
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []


def test_a_callback_of_the_users_own_is_told_beside_it(strict_server: StrictServer) -> None:
    recorder, told = Recorder(), list[events.Event]()
    both = events.to_all(recorder.telemetry, told.append)
    credentials_for(strict_server, strict_server.sign_in(ttl=-1.0), on_event=both).get_tokens(timeout=WITHIN)

    recorder.refresh()
    until(lambda: len(told) == 4)
    assert {type(event) for event in told} == {
        events.Refreshing,
        events.Waiting,
        events.Waited,
        events.Refreshed,
    }


def run(program: str) -> str:
    """Run a program in an interpreter of its own; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_providers_the_global_ones_are_used_also_those_that_are_set_later() -> None:
    program = """
import keyturn
from keyturn.client.opentelemetry import Telemetry
from opentelemetry import metrics, trace
from tests.client.recorder import Recorder

async def grant(tokens, http):
    return keyturn.Tokens("new")

credentials = keyturn.Credentials(
    grant, tokens=keyturn.Tokens("old", "refresh", 1.0), origins=["https://api.example"], on_event=Telemetry()
)
recorder = Recorder()
trace.set_tracer_provider(recorder.tracers)
metrics.set_meter_provider(recorder.meters)
credentials.get_tokens(timeout=30)
assert recorder.refresh().instrumentation_scope.name == "keyturn.client"
print(recorder.count("refreshes"))
"""
    assert run(program) == "1"


def test_without_a_sdk_nothing_is_recorded_and_nothing_breaks() -> None:
    program = """
import keyturn
from keyturn.client.opentelemetry import Telemetry

async def grant(tokens, http):
    return keyturn.Tokens("new")

credentials = keyturn.Credentials(
    grant, tokens=keyturn.Tokens("old", "refresh", 1.0), origins=["https://api.example"], on_event=Telemetry()
)
print(credentials.get_tokens(timeout=30).access)
"""
    assert run(program) == "new"


def test_without_the_extra_the_import_says_what_to_install() -> None:
    program = """
import sys
sys.modules["opentelemetry"] = None
import keyturn
try:
    import keyturn.client.opentelemetry
except keyturn.MissingExtra as error:
    print(error)
"""
    assert run(program) == "keyturn.client.opentelemetry needs opentelemetry-api: pip install 'keyturn[otel]'"


def test_callers_on_many_threads_at_once_are_all_linked(strict_server: StrictServer) -> None:
    recorder = Recorder()
    credentials = expired(strict_server, recorder)
    barrier = threading.Barrier(60)

    def caller() -> Where:
        barrier.wait(WITHIN)
        return call(recorder, credentials)

    callers = [start(caller) for _ in range(60)]
    until(lambda: aboard(credentials) == 60)
    strict_server.release()

    refresh = recorder.refresh()
    assert sorted(links(refresh)) == sorted(one.result(WITHIN) for one in callers)
    until(lambda: len(recorder.named("call")) == 60)
    assert all(links(span) == [where(refresh)] for span in recorder.named("call"))
    assert nothing_is_left(recorder)

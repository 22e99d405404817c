"""OpenTelemetry for credentials: a span around each refresh, counters, a histogram of waiting.

    keyturn.Credentials(…, on_event=Telemetry())

One `Telemetry` serves any number of credentials. A flight belongs to nobody,
so its span is the root of a trace of its own: it is linked to the spans of
the callers that waited for it, and those to it. What runs inside the exchange
finds the span in its context.

What attributes hold is bounded: names of keyturn's own errors, status codes,
the registered error codes of OAuth 2.0, counts. Texts of errors are left out.
"""

from __future__ import annotations

import importlib.metadata
from collections import deque

from keyturn.client import events
from keyturn.errors import KeyturnError, MissingExtra

try:
    from opentelemetry import context, metrics, trace
except ImportError as error:
    raise MissingExtra(
        "keyturn.client.opentelemetry needs opentelemetry-api: pip install 'keyturn[otel]'"
    ) from error

# RFC 6749 §5.2 and what later RFCs registered for token end points; any other word might be anything.
OAUTH_ERRORS = frozenset(
    (
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "invalid_target",  # RFC 8707 §2
        "invalid_dpop_proof",  # RFC 9449 §5
        "use_dpop_nonce",  # RFC 9449 §8
        "insufficient_user_authentication",  # RFC 9470 §3
        "access_denied",
        "server_error",
        "temporarily_unavailable",
    )
)

# Seconds: from a token end point next door to a waiter who outlasts its retries.
WAIT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

MOST_LINKS = 128  # what the SDK keeps of a span's links unless told otherwise

Attributes = dict[str, str | int | bool]


class Telemetry:
    """An `on_event` callback that records what happens with OpenTelemetry.

    Without providers it records to the global ones, also to those that are
    set later. `names` adds the credentials' name to the metrics, which have
    one time series for each name then; spans carry it always. Beside a
    callback of your own: `on_event=events.to_all(Telemetry(), mine)`.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        names: bool = False,
    ) -> None:
        version = importlib.metadata.version("keyturn")
        self._tracer = trace.get_tracer("keyturn.client", version, tracer_provider)
        meter = metrics.get_meter("keyturn.client", version, meter_provider)
        self._refreshes = meter.create_counter(
            "keyturn.client.refreshes", "{refresh}", "Refreshes that brought new tokens"
        )
        self._failures = meter.create_counter(
            "keyturn.client.failures", "{refresh}", "Refreshes that brought none, by cause"
        )
        self._adoptions = meter.create_counter(
            "keyturn.client.adoptions", "{adoption}", "Newer tokens taken over from responses"
        )
        self._replays = meter.create_counter(
            "keyturn.client.replays", "{replay}", "Refused requests that were sent again"
        )
        self._unsaved = meter.create_counter(
            "keyturn.client.save_failures", "{attempt}", "Attempts to save new tokens that failed"
        )
        self._waits = meter.create_histogram(
            "keyturn.client.wait.duration",
            "s",
            "How long callers waited for a refresh",
            explicit_bucket_boundaries_advisory=WAIT_BUCKETS,
        )
        self._names = names
        self._flights: dict[int, _Company] = {}

    def __call__(self, event: events.Event) -> None:
        """Record one event."""
        match event:
            case events.Waiting():
                self._company(event.flight).join(trace.get_current_span())
            case events.Waited():
                self._waited(event)
            case events.Replayed():
                self._replays.add(1, self._series(event))
            case events.Adopted():
                self._adoptions.add(1, self._series(event))
            case events.SaveFailed():
                self._unsaved.add(1, self._series(event))
            case events.Refreshing():
                self._take_off(event)
            case events.Landing():
                self._land(event)

    def _take_off(self, event: events.Refreshing) -> None:
        attributes: Attributes = {"keyturn.epoch": event.epoch, "keyturn.generation": event.generation}
        span = self._tracer.start_span("keyturn refresh", attributes=attributes | _name(event))
        context.attach(trace.set_span_in_context(span))  # the flight's own, empty before and gone with it
        self._company(event.flight).depart(span)

    def _land(self, event: events.Landing) -> None:
        cause = _cause(event.cause) if isinstance(event, events.Ended | events.Failed) else {}
        if cause:
            self._failures.add(1, self._series(event) | cause)
        elif isinstance(event, events.Refreshed):
            self._refreshes.add(1, self._series(event))
        company = self._flights.pop(event.flight, None)
        if company is None or (span := company.span) is None:
            return
        company.span = None  # from here on nobody is linked
        result = type(event).__name__.lower()
        if isinstance(event, events.Loaded) and not event.found:
            result = "absent"
        figures: Attributes = {"keyturn.waiters": event.waiters, "keyturn.attempts": event.attempts}
        span.set_attributes({"keyturn.result": result, **figures, **cause})
        if cause:
            span.set_status(trace.StatusCode.ERROR)
        span.end()

    def _waited(self, event: events.Waited) -> None:
        cause = event.cause
        told: Attributes = {"keyturn.wait.result": event.result}
        if cause is not None and event.result in ("failed", "timed_out"):
            told["error.type"] = _type(cause)
        self._waits.record(event.duration, self._series(event) | told)
        if event.result == "renewed" or (cause is not None and event.result != "timed_out"):
            self._forget(event.flight)  # which has landed

    def _company(self, flight: int) -> _Company:
        """Return the company of a flight: whoever comes first, a caller or the flight, starts it."""
        return self._flights.setdefault(flight, _Company())

    def _forget(self, flight: int) -> None:
        """Drop what a caller left behind who came when his flight had been told to have landed."""
        company = self._flights.get(flight)
        if company is not None and company.span is None:
            self._flights.pop(flight, None)

    def _series(self, event: events.Event) -> Attributes:
        return _name(event) if self._names else {}


class _Company:
    """The span of a flight and those of the callers who wait for it, linked both ways.

    Callers come on threads of their own, before the flight's span is there or
    after; single operations on the deque and the set need no lock, which a
    fork might leave taken.
    """

    __slots__ = ("_known", "_waiting", "span")

    def __init__(self) -> None:
        self.span: trace.Span | None = None
        self._waiting: deque[trace.Span] = deque()
        self._known: set[tuple[int, int]] = set()

    def join(self, caller: trace.Span) -> None:
        """Link a caller's span, once however often it waits; one that is not sampled leads nowhere."""
        where = caller.get_span_context()
        key = where.trace_id, where.span_id
        leads_somewhere = where.is_valid and where.trace_flags.sampled
        if leads_somewhere and key not in self._known and len(self._known) < MOST_LINKS:
            self._known.add(key)
            self._waiting.append(caller)
            self._link()

    def depart(self, span: trace.Span) -> None:
        """Begin, with those who wait already."""
        self.span = span
        self._link()

    def _link(self) -> None:
        span = self.span
        while span is not None:
            try:
                caller = self._waiting.popleft()
            except IndexError:
                return
            span.add_link(caller.get_span_context())
            if span.is_recording() and caller.is_recording():
                caller.add_link(span.get_span_context())


def _name(event: events.Event) -> Attributes:
    return {} if event.name is None else {"keyturn.credentials.name": event.name}


def _cause(error: KeyturnError) -> Attributes:
    """Return what happened as attributes: a class of ours, a status, a registered word, and nothing else."""
    told: Attributes = {"error.type": _type(error)}
    status: object = getattr(error, "status", None)
    if isinstance(status, int) and 100 <= status <= 599:
        told["http.response.status_code"] = status
    code: object = getattr(error, "error", None)
    if code is not None:
        told["keyturn.oauth.error"] = code if isinstance(code, str) and code in OAUTH_ERRORS else "_OTHER"
    return told


def _type(error: KeyturnError) -> str:
    """Return the name of the error in keyturn's tree, also of one that a user has derived from it."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == KeyturnError.__module__)

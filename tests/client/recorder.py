"""What OpenTelemetry's own SDK collected, in memory, as tests look at it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, MetricsData
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import Span

from keyturn.client.opentelemetry import Telemetry
from tests.waiting import until

Where = tuple[int, int]  # a span: its trace and itself


class Recorder:
    """Providers of the SDK, an `on_event` callback that records to them, and what they collected."""

    def __init__(self, sampler: Sampler | None = None, **options: Any) -> None:
        self._spans, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.telemetry = Telemetry(tracer_provider=self.tracers, meter_provider=self.meters, **options)
        self._data: MetricsData | None = None

    @contextlib.contextmanager
    def span(self, name: str = "call") -> Iterator[Span]:
        """Run the body in a span, as an application's own instrumentation would."""
        with self.tracers.get_tracer("the application").start_as_current_span(name) as span:
            yield span

    @property
    def spans(self) -> list[ReadableSpan]:
        """Every span that has ended."""
        return list(self._spans.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        """Return the spans of a name that have ended."""
        return [span for span in self.spans if span.name == name]

    def refreshes(self, count: int = 1) -> list[ReadableSpan]:
        """Return the spans of refreshes, once there are `count`: callers may be woken before they end."""
        until(lambda: len(self.named("keyturn refresh")) >= count)
        spans = self.named("keyturn refresh")
        assert len(spans) == count
        return spans

    def refresh(self) -> ReadableSpan:
        """Return the span of the one refresh."""
        return self.refreshes()[0]

    @property
    def data(self) -> MetricsData:
        """All metrics as they stand; the last state where nothing has happened since."""
        data = self._reader.get_metrics_data()
        if isinstance(data, MetricsData):
            self._data = data
        assert self._data is not None
        return self._data

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """Return the attributes and the data point of every series of a metric, without "keyturn.client."."""
        return [
            (dict(point.attributes or {}), point)
            for resource in self.data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == f"keyturn.client.{name}"
            for point in metric.data.data_points
        ]

    def count(self, name: str, **attributes: object) -> int:
        """Return the sum of a counter, or the count of a histogram, over the series with these attributes."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        return sum(
            point.count if isinstance(point, HistogramDataPoint) else point.value
            for told, point in self.points(name)
            if wanted.items() <= told.items()
        )

    def everything(self) -> str:
        """Return all that was collected as one text."""
        return "\n".join([*(span.to_json() for span in self.spans), self.data.to_json()])


def where(span: ReadableSpan | Span) -> Where:
    """Return which span this is."""
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


def links(span: ReadableSpan | Span) -> list[Where]:
    """Return which spans this one is linked to."""
    assert isinstance(span, ReadableSpan)
    return [(link.context.trace_id, link.context.span_id) for link in span.links]

"""What instrumented code tells OpenTelemetry."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Recorder:
    """Providers that keep what they are told."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider(metric_readers=[self.reader])

    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended since the last call."""
        found = list(self.exporter.get_finished_spans())
        self.exporter.clear()
        return found

    def names(self) -> list[str]:
        """The names of these."""
        return [span.name for span in self.spans()]

    def named(self, name: str) -> list[ReadableSpan]:
        """The spans of one name that have ended."""
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def text(self) -> str:
        """All that the spans say."""
        return "".join(span.to_json() for span in self.exporter.get_finished_spans())

    def metrics(self) -> dict[str, list[Any]]:
        """The data points of each metric, by its name."""
        data = self.reader.get_metrics_data()
        found: dict[str, list[Any]] = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found.setdefault(metric.name, []).extend(metric.data.data_points)
        return found

    def points(self, name: str) -> list[Any]:
        """The data points of one metric."""
        return self.metrics().get(name, [])

    def close(self) -> None:
        """End the providers."""
        self.tracers.shutdown()
        self.meters.shutdown()

"""Metrics and events in memory, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

Point = tuple[float, dict[str, Any]]
"""A number and its attributes: of a histogram how many values it has, else the value."""


class Measured:
    """A meter provider, and what has been recorded with it. Each look takes all that there is."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)

    def metrics(self) -> Mapping[str, Any]:
        """Return each metric by its name, as the SDK has it."""
        data = self._reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def text(self) -> str:
        """Return all of it as text."""
        data = self._reader.get_metrics_data()
        return data.to_json() if data else ""

    def points(self, name: str) -> list[Any]:
        """Return the points of a metric, in order of their attributes."""
        metric = self.metrics().get(name)
        return (
            sorted(metric.data.data_points, key=lambda point: sorted(map(str, point.attributes.items())))
            if metric
            else []
        )

    def counts(self) -> dict[str, list[Point]]:
        """Return the points of every metric: of histograms how many values, of others the value; without the server."""
        return {
            name: [
                (
                    point.count if hasattr(point, "count") else point.value,
                    {key: value for key, value in point.attributes.items() if not key.startswith("server.")},
                )
                for point in self.points(name)
            ]
            for name in self.metrics()
        }


class Logged:
    """A logger provider, and the events that it was told."""

    def __init__(self) -> None:
        self._exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]  # it has no annotations
        self.provider = LoggerProvider(shutdown_on_exit=False)
        self.provider.add_log_record_processor(SimpleLogRecordProcessor(self._exporter))

    def events(self, name: str | None = None) -> list[Any]:
        """Return the records so far, or those of one name."""
        records = [record.log_record for record in self._exporter.get_finished_logs()]
        return [record for record in records if name is None or record.event_name == name]

    def text(self) -> str:
        """Return all records as text, each as it would be sent."""
        return "\n".join(record.to_json() for record in self._exporter.get_finished_logs())

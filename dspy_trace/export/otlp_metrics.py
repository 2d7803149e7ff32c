"""Metrics over OTLP: a meter provider of our own, and the stock exporter, built where nobody waits for it."""

from __future__ import annotations

import os
from typing import Any

from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation

from dspy_trace.observing.observer import active
from dspy_trace.settings import metrics as names
from dspy_trace.settings.metrics import setting


def provider() -> MeterProvider:
    """Return a meter provider that exports as OpenTelemetry's variables say, on a thread of its own."""
    return MeterProvider([PeriodicExportingMetricReader(LazyOTLPMetricExporter())])


class LazyOTLPMetricExporter(MetricExporter):
    """The OTLP exporter of metrics that OpenTelemetry's variables ask for, made with the first export.

    A reader asks before that how its exporter wants things; that is answered as the exporter would. While another
    provider takes the metrics, the application's or one that was given, or nobody does, only what is new is exported:
    what was recorded until then, and what calls record that began before. The same again would go on for ever.
    """

    def __init__(self) -> None:
        # The rest of the kinds are ours to make, and we make none of them.
        wants_delta = os.environ.get(names.METRICS_TEMPORALITY, "").strip().lower() in ("delta", "lowmemory")
        temporality = AggregationTemporality.DELTA if wants_delta else AggregationTemporality.CUMULATIVE
        exponential = os.environ.get(names.METRICS_HISTOGRAMS, "").strip() == "base2_exponential_bucket_histogram"
        super().__init__(
            preferred_temporality={Counter: temporality, Histogram: temporality},
            preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()} if exponential else None,
        )
        self._exporter: MetricExporter | None = None
        self._exported: list[Any] = []

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Export with the exporter for ``OTEL_EXPORTER_OTLP_PROTOCOL``, gRPC by default."""
        points = _points(metrics_data)
        if points == self._exported and not _is_in_force():
            return MetricExportResult.SUCCESS
        if self._exporter is None:
            self._exporter = _exporter()
        result = self._exporter.export(metrics_data, timeout_millis, **kwargs)
        if result is MetricExportResult.SUCCESS:
            self._exported = points
        return result

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Shut the exporter down, if there is one."""
        if self._exporter is not None:
            self._exporter.shutdown(timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Flush the exporter, if there is one."""
        return self._exporter is None or self._exporter.force_flush(timeout_millis)


def _is_in_force() -> bool:
    """Return whether calls that begin now are measured by our provider."""
    observer = active()
    if observer is None or observer.providers.spare_meter is None:
        return False
    return observer.providers.meter_now() is observer.providers.spare_meter


def _points(data: MetricsData) -> list[Any]:
    """Return what there is to export, without the time of it."""
    scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
    return [
        (metric.name, point.attributes, point.start_time_unix_nano, getattr(point, "count", getattr(point, "value", 0)))
        for scope in scopes
        for metric in scope.metrics
        for point in metric.data.data_points
    ]


def _exporter() -> MetricExporter:
    if (setting(names.OTLP_METRICS_PROTOCOLS) or "grpc").startswith("http"):
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as OverHTTP

        return OverHTTP()
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as OverGRPC

    return OverGRPC()

"""``OTEL_TRACES_EXPORTER=mlflow``: the zero-code way into MLflow, as a plain span exporter."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from dspy_trace.export.outlet import outlet


class MlflowSpanExporter(SpanExporter):
    """Exports to the MLflow experiment that ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME`` or ``_ID`` name.

    Once DSPy is instrumented, spans take the way of :class:`~dspy_trace.export.processor.SpoolProcessor` instead, which
    loses nothing: then this exporter has nothing left to do, and what is recorded beside our spans goes along.
    """

    adopted = False
    """Whether the processor has taken over; for all exporters of the process."""

    def __init__(self) -> None:
        outlet()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Hand spans to the delivery, unless the processor does."""
        if not MlflowSpanExporter.adopted:
            outlet().processor.take(spans)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Write out what is queued."""
        outlet().processor.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Write out what is queued."""
        return outlet().processor.force_flush(timeout_millis)

"""OTLP beside MLflow: the stock exporter, built where nobody waits for it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from dspy_trace.settings import OTLP_PROTOCOLS
from dspy_trace.settings.metrics import setting


class LazyOTLPExporter(SpanExporter):
    """The OTLP exporter that OpenTelemetry's variables ask for, made with the first export.

    Making one takes a quarter of a second for imports; a batch processor exports on a thread of its own.
    """

    def __init__(self) -> None:
        self._exporter: SpanExporter | None = None
        import_in_time(setting(OTLP_PROTOCOLS))

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export with the exporter for ``OTEL_EXPORTER_OTLP_PROTOCOL``, gRPC by default."""
        if self._exporter is None:
            self._exporter = _exporter()
        return self._exporter.export(spans)

    def shutdown(self) -> None:
        """Shut the exporter down, if there is one."""
        if self._exporter is not None:
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the exporter, if there is one."""
        return self._exporter is None or self._exporter.force_flush(timeout_millis)


def import_in_time(protocol: str | None) -> None:
    """Import what the exporter for gRPC imports and what begins threads: at the end of a program that is too late.

    A program that takes no longer than a batch is held back makes its exporter there.
    """
    if not (protocol or "").startswith("http"):
        importlib.import_module("opentelemetry.sdk._logs")  # the rest takes ten times as long


def _exporter() -> SpanExporter:
    protocol = setting(OTLP_PROTOCOLS) or "grpc"
    if protocol.startswith("http"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHTTP

        return OverHTTP()
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGRPC

    return OverGRPC()

"""The provider that we offer where the application has none, and how it gives way to the application's own.

OpenTelemetry's default provider can be set once in a process, and that once is the application's. Until it comes, ours
stands in its place. Whoever asks for a tracer meanwhile, often when a module is imported, keeps that tracer for good:
so it has to record with whatever is the default when a span starts, as OpenTelemetry's own stand-in does.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider as SDKTracerProvider
from opentelemetry.trace import ProxyTracer, Tracer, TracerProvider
from opentelemetry.util import types

from dspy_trace import settings as names
from dspy_trace.guard import attempt, shielded
from dspy_trace.settings.metrics import setting

logger = logging.getLogger("dspy_trace")


GaveWay = Callable[[TracerProvider], None]


class OfferedProvider(SDKTracerProvider):
    """The SDK's provider, set up by OpenTelemetry's variables.

    Args:
        own: scope that always records here, so that no trace of ours is torn.
        gave_way: told of another provider that has become the default, before the first span of a tracer that was got
            here starts there.
    """

    def __init__(self, own: str, gave_way: GaveWay) -> None:
        super().__init__(shutdown_on_exit=True)
        self.gave_way = gave_way
        self._own = own

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: types.Attributes = None,
    ) -> Tracer:
        """Return a tracer that records here for as long as this is the default provider."""
        asked = (instrumenting_module_name, instrumenting_library_version, schema_url, attributes)
        tracer = super().get_tracer(*asked)
        return tracer if instrumenting_module_name == self._own else _Follower(self, tracer, *asked)


class _Follower(ProxyTracer):
    """Records with the default provider, whichever that is when a span starts."""

    def __init__(
        self,
        home: OfferedProvider,
        tracer: Tracer,
        name: str,
        version: str | None,
        schema: str | None,
        about: types.Attributes,
    ) -> None:
        super().__init__(name, version, schema, about)
        self._asked = (name, version, schema, about)
        self._home = (home, tracer)
        self._at: tuple[TracerProvider, Tracer] = self._home

    @property
    def _tracer(self) -> Tracer:
        provider, tracer = self._at
        now = trace.get_tracer_provider()
        if now is not provider:
            home, tracer = self._home
            if now is not home:
                shielded("following a provider", home.gave_way, now)
                tracer = now.get_tracer(*self._asked)
            self._at = (now, tracer)
        return tracer


def make(own: str, gave_way: GaveWay) -> OfferedProvider | None:
    """Return an :class:`OfferedProvider` that exports over OTLP where OpenTelemetry's variables ask for it.

    Returns:
        ``None`` where the SDK cannot be set up; a WARNING has said why.
    """
    provider, error = attempt(OfferedProvider, own, gave_way)
    if error is not None:
        logger.warning(
            "dspy-trace: OpenTelemetry's SDK cannot be set up, so nothing is traced: %s. Mend the OTEL_ variables.",
            error,
        )
        return None
    if wants_otlp(names.TRACES_EXPORTER, names.OTLP_ENDPOINTS):
        _, error = attempt(_export, provider)
        if error is not None:
            logger.warning("dspy-trace: nothing is exported over OTLP: %s Mend the OTEL_ variables.", error)
    made: OfferedProvider = provider
    return made


def wants_otlp(exporter: str, endpoints: Sequence[str]) -> bool:
    """Return whether OpenTelemetry's variables ask for OTLP: one of `endpoints` is set, and `exporter` allows it."""
    exporters = os.environ.get(exporter, "").lower()
    if exporters.strip() and "otlp" not in (name.strip() for name in exporters.split(",")):
        return False
    return setting(endpoints) is not None


def _export(provider: SDKTracerProvider) -> None:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from dspy_trace.export.otlp import LazyOTLPExporter

    provider.add_span_processor(BatchSpanProcessor(LazyOTLPExporter()))

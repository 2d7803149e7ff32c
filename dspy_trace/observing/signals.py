"""Where spans, metrics and events go: the providers that were given, else the application's, whenever it sets them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import opentelemetry.metrics._internal as metrics_api
import opentelemetry.trace as trace_api
from opentelemetry._logs import LoggerProvider, get_logger_provider
from opentelemetry.environment_variables import OTEL_PYTHON_METER_PROVIDER, OTEL_PYTHON_TRACER_PROVIDER
from opentelemetry.metrics import MeterProvider, get_meter_provider
from opentelemetry.trace import TracerProvider, get_tracer_provider

from dspy_trace.guard import ask, shielded

T = TypeVar("T")


def _named() -> frozenset[str]:
    return frozenset({OTEL_PYTHON_METER_PROVIDER, OTEL_PYTHON_TRACER_PROVIDER} & os.environ.keys())


@dataclass(frozen=True, slots=True)
class Providers:
    """Who was asked to record; ``None`` stands for the global one.

    Attributes:
        tracer: takes spans.
        meter: takes metrics.
        logger: takes events.
        spare_meter: takes metrics for as long as the application has no meter provider.
        named: variables by which the environment chooses a global provider; OpenTelemetry makes it when it is asked.
    """

    tracer: TracerProvider | None = None
    meter: MeterProvider | None = None
    logger: LoggerProvider | None = None
    spare_meter: MeterProvider | None = None
    named: frozenset[str] = field(default_factory=_named)

    # The public functions of OpenTelemetry read the environment each time. The names behind them are private: where
    # they are gone, so is the short cut.

    def tracer_now(self) -> TracerProvider | None:
        """Return who takes spans now, or ``None`` where nobody does."""
        if self.tracer is not None:
            return _real(self.tracer)
        found: Any = getattr(trace_api, "_TRACER_PROVIDER", self)
        if found is self or (found is None and OTEL_PYTHON_TRACER_PROVIDER in self.named):
            found = shielded("finding the tracer provider", get_tracer_provider)
        return _real(found)

    def meter_now(self) -> MeterProvider | None:
        """Return who takes metrics now, or ``None`` where nobody does."""
        if self.meter is not None:
            return _real(self.meter)
        found: Any = getattr(metrics_api, "_METER_PROVIDER", self)
        if found is self or (found is None and OTEL_PYTHON_METER_PROVIDER in self.named):
            found = _real(shielded("finding the meter provider", get_meter_provider))
        return self.spare_meter if found is None else _real(found)

    def logger_now(self) -> LoggerProvider | None:
        """Return who takes events now, or ``None`` where nobody does."""
        found = self.logger if self.logger is not None else shielded("finding loggers", get_logger_provider)
        return _real(found)


UNSEEN: Final = object()
"""Stands for a global provider that OpenTelemetry does not show: the names behind its functions are private."""


def are_global(seen: tuple[Any, Any]) -> bool:
    """Return whether those that take spans and metrics globally are still those `seen`."""
    return (
        getattr(trace_api, "_TRACER_PROVIDER", UNSEEN) is seen[0]
        and getattr(metrics_api, "_METER_PROVIDER", UNSEEN) is seen[1]
    )


def global_ones() -> tuple[Any, Any] | None:
    """Return those that take spans and metrics globally, for :func:`are_global`; ``None`` where that is not shown."""
    found = getattr(trace_api, "_TRACER_PROVIDER", UNSEEN), getattr(metrics_api, "_METER_PROVIDER", UNSEEN)
    return None if UNSEEN in found else found


_NONE: Final = frozenset(
    {"NoOpLoggerProvider", "NoOpMeterProvider", "NoOpTracerProvider", "NoneType"}
    | {"ProxyLoggerProvider", "ProxyTracerProvider", "_ProxyMeterProvider"}
)
"""Classes that stand for there being none. Two of them have no public name to compare them by."""


def _real(provider: T | None) -> T | None:
    return None if provider is None or type(provider).__name__ in _NONE else provider


def leaves_out_beneath(provider: TracerProvider | None) -> bool:
    """Return whether `provider` is certain to sample no span whose parent, of this process, is not sampled.

    The name is private: where it is gone, the sampler is asked of every span.
    """
    sampler = ask(getattr, provider, "sampler")
    if sampler is None:
        return False
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

    if isinstance(sampler, ParentBased) and type(sampler).should_sample is ParentBased.should_sample:
        sampler = ask(getattr, sampler, "_local_parent_not_sampled")
    return sampler is ALWAYS_OFF

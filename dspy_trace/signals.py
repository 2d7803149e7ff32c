"""Where metrics and events go: the providers that were given, else the application's, whenever it sets them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar

import opentelemetry.metrics._internal as metrics_api
from opentelemetry._logs import LoggerProvider, get_logger_provider
from opentelemetry.metrics import MeterProvider, get_meter_provider
from opentelemetry.trace import TracerProvider

from dspy_trace.guard import shielded


@dataclass(frozen=True, slots=True)
class Providers:
    """Who was asked to record; ``None`` stands for the global one.

    Attributes:
        tracer: takes spans.
        meter: takes metrics.
        logger: takes events.
        spare_meter: takes metrics for as long as the application has no meter provider.
    """

    tracer: TracerProvider | None = None
    meter: MeterProvider | None = None
    logger: LoggerProvider | None = None
    spare_meter: MeterProvider | None = None

    def meter_now(self) -> MeterProvider | None:
        """Return who takes metrics now, or ``None`` where nobody does."""
        found = self.meter if self.meter is not None else _global_meter_provider()
        return self.spare_meter if found is None else _real(found)

    def logger_now(self) -> LoggerProvider | None:
        """Return who takes events now, or ``None`` where nobody does."""
        found = self.logger if self.logger is not None else shielded("finding loggers", get_logger_provider)
        return _real(found)


_NONE: Final = frozenset(
    {"NoOpLoggerProvider", "NoOpMeterProvider", "NoneType", "ProxyLoggerProvider", "_ProxyMeterProvider"}
)
"""Classes that stand for there being none. Two of them have no public name to compare them by."""


T = TypeVar("T")


def _real(provider: T) -> T | None:
    return None if type(provider).__name__ in _NONE else provider


def _global_meter_provider() -> MeterProvider | None:
    """Return the application's meter provider, if it has set one.

    This runs for each trace, and where there is no SDK for each call. The public function reads the environment every
    time, which takes longer than all the rest; the name behind it is private. Where it is gone, so is the short cut.
    """
    if hasattr(metrics_api, "_METER_PROVIDER"):
        return metrics_api._METER_PROVIDER  # pyright: ignore[reportPrivateUsage]  # see above
    found: MeterProvider | None = _real(shielded("finding meters", get_meter_provider))
    return found

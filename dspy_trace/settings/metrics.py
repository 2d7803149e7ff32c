"""OpenTelemetry's variables for metrics over OTLP, named here as the others are in ``settings.py``."""

from __future__ import annotations

import os
from collections.abc import Sequence

OTLP_METRICS_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
"""Where an OTLP collector of metrics listens (OpenTelemetry SDK). Example: ``http://localhost:4318``."""

METRICS_EXPORTER = "OTEL_METRICS_EXPORTER"
"""Comma-separated exporters of metrics; where it is set and lacks ``otlp``, nothing goes over OTLP (OpenTelemetry SDK).
Example: ``otlp``."""

METRICS_TEMPORALITY = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
"""``delta`` sends what is new each time, ``cumulative`` (default) all (OpenTelemetry SDK). Example: ``delta``."""

METRICS_HISTOGRAMS = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
"""How histograms are kept (OpenTelemetry SDK). Example: ``base2_exponential_bucket_histogram``."""

OTLP_METRICS_PROTOCOLS = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
"""How to speak to a collector of metrics (OpenTelemetry SDK). Example: ``http/protobuf``."""


def setting(variables: Sequence[str]) -> str | None:
    """Return the value of the first of `variables` that is set."""
    return next((value for name in variables if (value := os.environ.get(name, "").strip())), None)

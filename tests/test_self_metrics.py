"""The accounts of delivery as metrics: the same figures that `stats()` gives."""

from __future__ import annotations

from typing import Any

import dspy
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import dspy_trace
from dspy_trace.export.outlet import outlet
from dspy_trace.export.self_metrics import tell_metrics
from tests.outlets import Kept, dummy, kept

__all__ = ["kept"]


def collected(reader: InMemoryMetricReader) -> dict[tuple[str, str], float]:
    """Return the newest figures by name and attribute."""
    data: Any = reader.get_metrics_data()
    metrics = [metric for told in data.resource_metrics for scope in told.scope_metrics for metric in scope.metrics]
    return {
        (metric.name, "".join(map(str, point.attributes.values()))): point.value
        for metric in metrics
        for point in metric.data.data_points
    }


def test_metrics_are_the_accounts(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `stats()` says, at the moment that the meter's reader asks; a spool that cannot be read costs nothing."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    dspy_trace.autolog()
    tell_metrics(outlet(), provider)
    with dspy.context(lm=dummy()):
        dspy.Predict("question -> answer")(question="?")
    kept.out.processor.write_out()
    kept.out.processor.counts.observed += 1  # one that is dropped
    kept.out.processor.counts.dropped += 1
    told, stats = collected(reader), dspy_trace.stats()
    assert told["dspy_trace.spans.observed", ""] == stats.observed == 3
    assert told["dspy_trace.spans.waiting", "spool"] == stats.spooled == 2
    assert told["dspy_trace.spans.waiting", "memory"] == stats.queued == 0
    assert told["dspy_trace.spans.dropped", "queue full"] == 1
    assert told["dspy_trace.spool.size", ""] == stats.bytes > 0
    assert 0 <= told["dspy_trace.spool.age", ""] <= stats.age
    assert told["dspy_trace.spans.delivered", ""] == told["dspy_trace.spans.dead", ""] == 0
    provider.shutdown()

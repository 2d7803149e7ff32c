"""Providers that are not as the SDK's default: of another maker, with processors that run at once, slow to join."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ConcurrentMultiSpanProcessor, TracerProvider

import dspy_trace
from tests.outlets import Kept, kept, names, nothing_is_said, provider_of_app  # noqa: F401  # fixtures
from tests.pair import PAIR, SECRET, TREE, call

pytestmark = pytest.mark.usefixtures("nothing_is_said")


def test_processors_that_run_at_once(kept: Kept) -> None:
    """A provider that calls its processors in threads of its own tells us of ours all the same."""
    processors = ConcurrentMultiSpanProcessor(2)
    provider, exporter = provider_of_app(active_span_processor=processors)
    trace.set_tracer_provider(provider)
    dspy_trace.autolog()
    call()
    assert names(exporter) == PAIR
    assert kept.tree() == TREE
    assert str(kept.rows()).count(SECRET) >= len(PAIR)
    provider.shutdown()


class Vendor(trace.TracerProvider):
    """A provider that is not the SDK's."""

    def __init__(self) -> None:
        self.started: list[str] = []

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        return VendorTracer(self.started)


class VendorTracer(trace.Tracer):
    def __init__(self, started: list[str]) -> None:
        self._started = started

    def start_span(self, name: str, *args: Any, **kwargs: Any) -> trace.Span:
        self._started.append(name)
        return trace.INVALID_SPAN

    start_as_current_span: Any = None


def test_a_provider_that_is_not_the_sdks(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    """It records as it can; that nothing of it reaches MLflow is one WARNING with the remedy."""
    vendor = Vendor()
    trace.set_tracer_provider(vendor)
    dspy_trace.autolog()
    call()
    call()
    assert vendor.started == 2 * PAIR
    assert kept.rows() == []
    (said,) = [record.getMessage() for record in caplog.records]
    caplog.clear()
    assert "Vendor" in said
    assert "tracer_provider=" in said


def test_two_first_calls_at_once(kept: Kept) -> None:
    """Threads that find a new provider at the same moment join it once."""
    from concurrent.futures import ThreadPoolExecutor

    class Slow(TracerProvider):
        def add_span_processor(self, span_processor: Any) -> None:
            import time

            time.sleep(0.05)
            super().add_span_processor(span_processor)

    trace.set_tracer_provider(Slow(shutdown_on_exit=False))
    dspy_trace.autolog()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: call(), range(4)))
    assert sorted(kept.tree().split("> ")) == sorted(["\n", *[TREE.split("> ")[1]] * 4])
    assert dspy_trace.stats().observed == 4 * len(PAIR)

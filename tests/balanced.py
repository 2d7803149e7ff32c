"""A recording that must balance: every span that starts ends, once."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from dspy_trace.testing import Recording, record


class Balance(SpanProcessor):
    """Counts how often each span has started and ended."""

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.open[f"{span.name} {span.get_span_context().span_id:x}"] += 1

    def on_end(self, span: ReadableSpan) -> None:
        assert span.context is not None
        self.open[f"{span.name} {span.context.span_id:x}"] -= 1

    def off(self) -> list[str]:
        """Return the spans that are still open, or have ended twice."""
        return [name for name, count in self.open.items() if count]

    def settle(self, timeout: float = 10.0) -> None:
        """Wait until every span has ended: some do on threads that their program has abandoned."""
        deadline = monotonic() + timeout
        while self.off() and monotonic() < deadline:
            gc.collect()
            sleep(0.01)
        assert self.off() == []


@contextmanager
def balanced(**kwargs: Any) -> Generator[Recording]:
    """Record as ``dspy_trace.testing.record`` does, and check at the end of the block that no span is left open."""
    with record(**kwargs) as trace:
        balance = Balance()
        trace.provider.add_span_processor(balance)
        yield trace
        balance.settle()


def traces(trace: Recording) -> int:
    """Return how many traces there are."""
    return len({span.context.trace_id for span in trace.spans if span.context})


@contextmanager
def fresh_cache() -> Generator[None]:
    """Give DSPy an empty cache in memory for the length of the block."""
    import dspy
    from dspy.clients.cache import Cache

    before = dspy.cache
    dspy.cache = Cache(enable_disk_cache=False, enable_memory_cache=True, disk_cache_dir=None)
    try:
        yield
    finally:
        dspy.cache = before

"""A ``SpoolProcessor`` on a provider of its own, and what it hands on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.trace import Span, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import set_span_in_context

from dspy_trace.export.processor import Limits, SpoolProcessor
from dspy_trace.export.traces import LiveTrace
from dspy_trace.export.undecided import Ended

STILL = 1e9
"""Seconds or spans: so many that the thread does nothing by itself."""


class Spooled:
    """What a processor has been told of and what it has handed on.

    Args:
        still: let the thread do nothing by itself.
        limits: bounds.
        **asked: as for ``SpoolProcessor``.
    """

    def __init__(self, *, still: bool = True, limits: Limits | None = None, **asked: Any) -> None:
        self.limits = limits or Limits()
        if still:
            self.limits.seconds = STILL
            self.limits.batch = int(STILL)
        self.opened: list[LiveTrace] = []
        self.written: list[list[tuple[LiveTrace, list[Ended]]]] = []
        self.processor = SpoolProcessor(self.written.append, self.opened.append, limits=self.limits, **asked)
        self.provider = self.joined()
        self.tracer = self.provider.get_tracer("test")

    def joined(self) -> TracerProvider:
        """Return another provider with the processor on it."""
        provider = TracerProvider(shutdown_on_exit=False, id_generator=RandomIdGenerator())
        provider.add_span_processor(self.processor)
        return provider

    def begin(self, name: str, above: Span | None = None, tracer: Any = None) -> Any:
        """Start a span beneath another, or a root."""
        context = set_span_in_context(above) if above is not None else None
        return (tracer or self.tracer).start_span(name, context)

    def end(self, *spans: Span, ours: bool = False) -> None:
        """End spans, as ours or as the application's."""
        for span in spans:
            if ours:
                self.processor.keep(span.get_span_context(), {"of": span.name})
            span.end()

    @contextmanager
    def span(self, name: str, above: Span | None = None, *, ours: bool = False) -> Iterator[Any]:
        """Have a span for the length of the block."""
        made = self.begin(name, above)
        yield made
        self.end(made, ours=ours)

    def all(self) -> list[Ended]:
        """Return everything that has been handed on."""
        self.processor.write_out()
        return [ended for decided in self.written for _, spans in decided for ended in spans]

    def told(self) -> list[str]:
        """Return the names of what has been handed on, local roots marked ``>``."""
        return [("> " if ended.root else "") + ended.span.name for ended in self.all()]

    def counts(self) -> tuple[int, int, int, int, int]:
        """Return how many spans were observed, and are queued, handed on, dropped and filtered."""
        counts = self.processor.counts
        return counts.observed, self.processor.queued(), counts.handed_on, counts.dropped, counts.filtered

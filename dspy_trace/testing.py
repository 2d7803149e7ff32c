"""Helpers for tests of DSPy programs: their trace in memory, and as a tree of text.

Example::

    from dspy_trace.testing import record

    def test_asks_once():
        with record() as trace:
            program(question="...")
        assert trace.tree() == '''
        invoke_workflow RAG
          retrieval Embeddings
          Predict answer
            chat gpt-4o-mini
        '''
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import StatusCode

from dspy_trace.instrumentor import DSPyInstrumentor
from dspy_trace.vocab import keys


class Recording:
    """Spans that have ended since recording began."""

    def __init__(self, provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
        self.provider = provider
        self._exporter = exporter

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """All finished spans, in order of their end."""
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        """Return the spans of that name, in order of their start."""
        return sorted((span for span in self.spans if span.name == name), key=lambda span: span.start_time or 0)

    def one(self, name: str) -> ReadableSpan:
        """Return the only span of that name.

        Raises:
            AssertionError: there is none, or more than one; the message shows the tree.
        """
        found = self.named(name)
        if len(found) != 1:
            raise AssertionError(f"{len(found)} spans are named {name!r}, not one:\n{self.tree()}")
        return found[0]

    def tree(self, *attributes: str, events: bool = True) -> str:
        """Return all traces as text; see :func:`tree`."""
        return tree(self.spans, *attributes, events=events)

    def clear(self) -> None:
        """Forget what was recorded so far."""
        self._exporter.clear()


@contextmanager
def record(*, sampler: Sampler | None = None, limits: SpanLimits | None = None, **kwargs: Any) -> Generator[Recording]:
    """Observe DSPy for the length of a ``with`` block, with a provider of its own; the global one is left alone.

    Args:
        sampler: sampler of the provider.
        limits: span limits of the provider.
        **kwargs: as for :meth:`dspy_trace.DSPyInstrumentor.instrument`.

    Raises:
        RuntimeError: DSPy is already instrumented; two would only see each other's spans.
    """
    instrumentor = DSPyInstrumentor()
    if instrumentor.is_instrumented_by_opentelemetry:
        raise RuntimeError("DSPy is instrumented already: call DSPyInstrumentor().uninstrument() first")
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler, span_limits=limits, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor.instrument(tracer_provider=provider, **kwargs)
    try:
        yield Recording(provider, exporter)
    finally:
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()


def tree(spans: Iterable[ReadableSpan], *attributes: str, events: bool = True) -> str:
    """Return spans as an indented tree, one line a span, siblings by start and roots first to last.

    A failed span ends in ``!ErrorType``, a linked root in ``(linked)``, and an event stands beneath its span as
    ``* name``. The text begins with a line break, as a triple-quoted string does.

    Args:
        spans: finished spans, of one trace or of several.
        *attributes: keys to show behind each span that has them, as ``key=value``.
        events: whether to show events; exceptions are left out, since the span says so.
    """
    ordered = sorted(spans, key=lambda span: span.start_time or 0)
    known = {span.context.span_id for span in ordered if span.context}
    children: defaultdict[int | None, list[ReadableSpan]] = defaultdict(list)
    for span in ordered:
        children[span.parent.span_id if span.parent and span.parent.span_id in known else None].append(span)
    lines: list[str] = [""]

    def add(span: ReadableSpan, depth: int) -> None:
        lines.append("  " * depth + _line(span, attributes))
        if events:
            lines.extend("  " * (depth + 1) + f"* {event.name}" for event in span.events if event.name != "exception")
        for child in children[span.context.span_id if span.context else None]:
            add(child, depth + 1)

    for root in children[None]:
        add(root, 0)
    return "\n".join(lines) + "\n"


def _line(span: ReadableSpan, attributes: Sequence[str]) -> str:
    told = span.attributes or {}
    line = span.name
    if span.links and span.parent is None:
        line += " (linked)"
    if span.status.status_code is StatusCode.ERROR:
        line += f" !{told.get(keys.ERROR_TYPE)}"
    return line + "".join(f" {key}={told[key]!r}" for key in attributes if key in told)

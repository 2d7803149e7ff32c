"""Rows of real programs, as they would go to MLflow: for tests that need neither a spool nor a tracking store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanContext
from opentelemetry.trace import TracerProvider as AnyProvider

from dspy_trace.export.mlflow import TraceFacts, row
from dspy_trace.instrumentor import DSPyInstrumentor
from dspy_trace.observing.observer import Beside, capture_of
from dspy_trace.settings import Settings
from dspy_trace.vocab.mlflow import MLflow

Row = dict[str, Any]


class Copy(SpanProcessor):
    """Makes a row of every span that ends, with what travelled beside it."""

    def __init__(self) -> None:
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self)
        self.rows: list[Row] = []
        self.beside_of: dict[str, Mapping[str, Any]] = {}
        self.facts: dict[int, TraceFacts] = {}
        self._kept: dict[int, Mapping[str, Any]] = {}

    def beside(self, settings: Settings) -> Beside:
        vocabulary = MLflow()
        capture = capture_of(settings) if settings.content_for_mlflow else None
        return Beside(vocabulary.spellings, vocabulary.of_session, capture, self._keep)

    def join(self, provider: AnyProvider) -> None:
        """The provider of :func:`rows` has this processor already."""

    def _keep(self, context: SpanContext, beside: Mapping[str, Any]) -> None:
        self._kept[context.span_id] = beside

    def on_end(self, span: ReadableSpan) -> None:
        assert span.context is not None
        beside = self._kept.pop(span.context.span_id, {})
        trace = self.facts.setdefault(span.context.trace_id, TraceFacts())
        root = span.parent is None or span.parent.is_remote
        parent = None if root or span.parent is None else span.parent.span_id
        made = row(span, beside, trace_id=span.context.trace_id, parent_id=parent, root=root, trace=trace)
        self.beside_of[made["span_id"]] = beside
        self.rows.append(orjson.loads(orjson.dumps(made)))

    def named(self, name: str) -> list[Row]:
        """Return the rows of that name, in order of their start."""
        return sorted((one for one in self.rows if one["name"] == name), key=lambda one: int(one["start"]))

    def one(self, name: str) -> Row:
        """Return the only row of that name."""
        (found,) = self.named(name)
        return found

    def root(self) -> Row:
        """Return the only root."""
        (found,) = (one for one in self.rows if one["root"])
        return found


@contextmanager
def rows(**asked: Any) -> Iterator[Copy]:
    """Observe DSPy for the length of the block as ``autolog()`` does, and make rows of its spans."""
    copy = Copy()
    instrumentor = DSPyInstrumentor()
    instrumentor.instrument(tracer_provider=copy.provider, _outlet=copy, **asked)
    try:
        yield copy
    finally:
        instrumentor.uninstrument()

"""Traces that are going on in this process: their local roots, and where each goes.

A *local root* is a span whose parent is absent, remote or recorded by a provider that we are not on. MLflow shows a
trace as unfinished and nameless until its root arrives, so that a parent that never comes must not be named as one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, Span

REMEMBERED = 1_024
"""Traces remembered after their last span has ended, for children that come late."""


@dataclass(slots=True, eq=False)
class LiveTrace:
    """A trace, as far as it happens in this process.

    Attributes:
        trace_id: its id.
        spans: ids of its spans that were started here.
        open: number of them that have not ended.
        ours: whether one of them is ours.
        destination: where it goes; told when its first local root starts.
        mlflow_trace_id: MLflow's trace that it is part of, under ``@mlflow.trace``.
        mlflow_parent_id: MLflow's span above its local roots, there.
        about: what is known of the trace as a whole when it starts: its run.
        facts: what its spans say of it as a whole.
    """

    trace_id: int
    spans: set[int] = field(default_factory=set)
    open: int = 0
    ours: bool = False
    destination: Any = None
    mlflow_trace_id: int | None = None
    mlflow_parent_id: int | None = None
    about: dict[str, Any] = field(default_factory=dict)
    facts: Any = None


class LiveTraces:
    """All traces that are going on, with those that have just ended.

    Args:
        opened: called once for each trace, when its first local root starts, on the thread that starts it.
    """

    def __init__(self, opened: Callable[[LiveTrace], None]) -> None:
        self._opened = opened
        self._lock = threading.Lock()
        self._traces: dict[int, LiveTrace] = {}
        self._ended: OrderedDict[int, LiveTrace] = OrderedDict()

    def started(self, span: Span, begin: bool = True) -> None:
        """Follow a span that has started; unless `begin`, only in a trace that is followed already."""
        context = span.get_span_context()
        with self._lock:
            trace = self._traces.get(context.trace_id) or self._ended.pop(context.trace_id, None)
            new = trace is None
            if new and not begin:
                return
            trace = trace or LiveTrace(context.trace_id)
            self._traces[context.trace_id] = trace
            trace.spans.add(context.span_id)
            trace.open += 1
        if new:
            self._opened(trace)

    def ended(self, span: ReadableSpan, ours: bool = False) -> tuple[LiveTrace, int | None, bool] | None:
        """Return the trace of a span that has ended, its parent's id and whether it is a local root.

        ``None`` where its start was not seen: it began before we were there.
        """
        context = span.context
        assert context is not None
        with self._lock:
            trace = self._traces.get(context.trace_id)
            if trace is None or context.span_id not in trace.spans:
                return None
            trace.ours = trace.ours or ours
            trace.open -= 1
            if trace.open == 0:
                del self._traces[context.trace_id]
                self._ended[context.trace_id] = trace
                if len(self._ended) > REMEMBERED:
                    self._ended.popitem(last=False)
            parent = span.parent
            root = parent is None or parent.is_remote or parent.span_id not in trace.spans
        return trace, None if parent is None else parent.span_id, root

    def adopted(self, span: ReadableSpan, ours: bool = False) -> tuple[LiveTrace, int | None, bool]:
        """Return the same for a span that ended before it was seen: only a missing or remote parent makes it a root."""
        context, parent = span.context, span.parent
        assert context is not None
        root = parent is None or parent.is_remote
        with self._lock:
            trace = self._traces.pop(context.trace_id, None) or self._ended.pop(context.trace_id, None)
            new = trace is None
            trace = trace or LiveTrace(context.trace_id)
            trace.spans.add(context.span_id)
            trace.ours = trace.ours or ours
            # Whether more will come is not known; the root usually comes last.
            trace.open = 0 if root else 1
            (self._ended if root else self._traces)[context.trace_id] = trace
        if new:
            self._opened(trace)
        return trace, None if parent is None else parent.span_id, root

    def forgotten(self, trace: LiveTrace) -> bool:
        """Forget the spans of a trace that holds none of ours, if all have ended; return whether that is so.

        None of them goes anywhere: what comes later begins anew, instead of naming one of them as its parent.
        """
        with self._lock:
            if trace.open or trace.ours:
                return False
            trace.spans.clear()
            return True

    def get(self, trace_id: int) -> LiveTrace | None:
        """Return a trace that is going on or is still remembered."""
        with self._lock:
            return self._traces.get(trace_id) or self._ended.get(trace_id)

    def forked(self) -> None:
        """Begin anew in a child process, where no trace of the parent's goes on."""
        self._lock = threading.Lock()
        self._traces, self._ended = {}, OrderedDict()

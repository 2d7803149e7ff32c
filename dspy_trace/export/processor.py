"""From finished spans to the spool: what is queued on the program's threads, and written on ours.

The SDK's batch processor drops silently, cannot be accounted for and waits for seconds. This one does a bounded amount
of work when a span ends, counts what it has to drop, and writes the rest within a fifth of a second.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import SpanContext

from dspy_trace.export.traces import LiveTrace, LiveTraces
from dspy_trace.export.undecided import Ended, Undecided
from dspy_trace.guard import shielded
from dspy_trace.observing.observer import SCOPE

T = TypeVar("T")

_MOST_ENDING = 1_000
"""Spans that may be about to end at once, one a thread; more are of a provider that does not tell us of the end."""

Write = Callable[[list[tuple[LiveTrace, list[Ended]]]], None]
"""Takes the finished spans of some traces, on our thread."""


@dataclass(slots=True)
class Limits:
    """Bounds of the queue and pace of its thread."""

    spans: int = 20_000
    bytes: int = 64 * 2**20
    batch: int = 512
    seconds: float = 0.2
    undecided: int = 2_000


@dataclass(slots=True)
class Counts:
    """What became of the spans that ended. Each span is counted once it is decided."""

    observed: int = 0
    dropped: int = 0
    filtered: int = 0
    handed_on: int = 0

    @property
    def queued(self) -> int:
        """Spans that wait in memory, undecided ones included."""
        return self.observed - self.dropped - self.filtered - self.handed_on


@dataclass(slots=True)
class _Queue:
    items: deque[Ended] = field(default_factory=deque)
    bytes: int = 0
    touched: dict[int, LiveTrace] = field(default_factory=dict)
    """Traces of the spans in it, and of those that it had no room for."""


class SpoolProcessor(SpanProcessor):
    """Queues finished spans and hands them on by trace.

    Args:
        write: called on our thread with the spans of each trace that holds one of ours.
        opened: called on the program's thread when a local root starts; tells where its trace goes.
        limits: bounds of the queue.
        sync: call `write` on the program's thread, before ``span.end()`` returns.
        foreign: hand on traces that hold no span of ours, too.
    """

    def __init__(
        self,
        write: Write,
        opened: Callable[[LiveTrace], None],
        *,
        limits: Limits | None = None,
        sync: bool = False,
        foreign: bool = False,
    ) -> None:
        self.live = True
        """Whether traces that start are followed; those that go on are in any case."""
        self.counts = Counts()
        self.limits = limits or Limits()
        self._write = write
        self._sync = sync
        self._foreign = foreign
        self._traces = LiveTraces(opened)
        self._beside: dict[int, Mapping[str, Any]] = {}
        self._lock = threading.Lock()
        self._writing = threading.RLock()
        self._queue = _Queue()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._undecided = Undecided()
        _processors.add(self)

    def keep(self, context: SpanContext, beside: Mapping[str, Any]) -> None:
        """Take what travels beside a span of ours; called on its thread right before it ends."""
        if len(self._beside) >= _MOST_ENDING:
            self._beside.clear()
        self._beside[context.span_id] = beside

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if span.get_span_context().trace_flags.sampled:
            shielded("following a trace", self._traces.started, span, self.live)

    def on_end(self, span: ReadableSpan) -> None:
        shielded("queueing a span", self._ended, span)

    def _ended(self, span: ReadableSpan) -> None:
        if span.context is None:
            return
        kept = self._beside.pop(span.context.span_id, None)
        if not span.context.trace_flags.sampled:
            return
        found = self._traces.ended(span, ours=kept is not None)
        if found is None:
            return
        trace, parent_id, root = found
        beside = kept if kept is not None else {}
        self._put(Ended(span, beside, trace, parent_id, root, _size(span, beside)))

    def take(self, spans: Sequence[ReadableSpan]) -> None:
        """Queue spans whose start was not seen here, as a plain exporter gets them; ours are known by their scope."""
        for span in spans:
            if span.context is not None:
                scope = span.instrumentation_scope
                trace, parent_id, root = self._traces.adopted(span, ours=scope is not None and scope.name == SCOPE)
                self._put(Ended(span, {}, trace, parent_id, root, _size(span, {})))

    def _put(self, ended: Ended) -> None:
        with self._lock:
            self.counts.observed += 1
            queue = self._queue
            queue.touched[id(ended.trace)] = ended.trace
            if len(queue.items) >= self.limits.spans or queue.bytes + ended.size > self.limits.bytes:
                self.counts.dropped += 1
                return
            queue.items.append(ended)
            queue.bytes += ended.size
            full = len(queue.items) >= self.limits.batch
        if self._sync:
            self.write_out()
            return
        if self._thread is None:
            self._start()
        if full:
            self._wake.set()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dspy-trace-spool", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while self._thread is threading.current_thread():
            self._wake.wait(self.limits.seconds)
            self._wake.clear()
            shielded("writing spans", self.write_out)

    def end(self) -> None:
        """Write out what is queued and end our thread; a later span starts another."""
        self._thread = None
        self._wake.set()
        self.write_out()

    def write_out(self) -> None:
        """Hand on all that is queued, now and on this thread."""
        with self._writing:
            with self._lock:
                queue, self._queue = self._queue, _Queue()
            for ended in queue.items:
                self._undecided.add(ended)
            decided = [(trace, spans) for trace in queue.touched.values() if (spans := self._decide(trace))]
            if decided:
                self._hand_on(decided)

    def _decide(self, trace: LiveTrace) -> list[Ended]:
        """Return the spans of `trace` that are to be handed on now.

        Until a trace holds a span of ours its spans wait; when all have ended without one, they are filtered.
        """
        if trace.ours or self._foreign:
            return self._undecided.take(trace)
        if self._traces.forgotten(trace):
            filtered = len(self._undecided.take(trace))
            with self._lock:
                self.counts.filtered += filtered
        elif not trace.ours:
            limits = self.limits
            dropped = self._undecided.bound(trace, limits.undecided, limits.spans, limits.bytes)
            with self._lock:
                self.counts.dropped += dropped
        return []

    def _hand_on(self, decided: list[tuple[LiveTrace, list[Ended]]]) -> None:
        number = sum(len(spans) for _, spans in decided)
        written = False
        try:
            self._write(decided)
            written = True
        finally:
            with self._lock:
                self.counts.handed_on += number if written else 0
                self.counts.dropped += 0 if written else number

    def shutdown(self) -> None:
        """Write out what is queued. A provider that shuts down is not the end of the program."""
        shielded("writing spans", self.write_out)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Write out what is queued."""
        shielded("writing spans", self.write_out)
        return True

    def trace(self, trace_id: int) -> LiveTrace | None:
        """Return a trace that is going on or has ended lately."""
        return self._traces.get(trace_id)

    def queued(self) -> int:
        """Return how many spans wait in memory."""
        with self._lock:
            return self.counts.queued

    def lags(self) -> bool:
        """Return whether more waits than is handed on at once."""
        return len(self._queue.items) > self.limits.batch

    def counted(self, others: Callable[[], T]) -> tuple[Counts, T]:
        """Return the counts, and what `others` returns while nothing is handed on: so that both add up."""
        with self._writing:
            told = others()
            with self._lock:
                return replace(self.counts), told

    def forked(self) -> None:
        """Begin anew in a child process: the parent's spans are the parent's to write, its threads are not here."""
        self._lock, self._writing = threading.Lock(), threading.RLock()
        self._queue, self._thread = _Queue(), None
        self._beside, self._undecided = {}, Undecided()
        self._wake, self.counts = threading.Event(), Counts()
        self._traces.forked()


def _size(span: ReadableSpan, beside: Mapping[str, Any]) -> int:
    """Return about how many bytes a span holds."""
    # Of the SDK's attributes each is read under a lock. The dict beneath is private: where it is gone, the slow way.
    attributes: Any = getattr(getattr(span, "_attributes", None), "_dict", span.attributes or {})
    texts = [len(value) for value in (*attributes.values(), *beside.values()) if isinstance(value, str)]
    return 512 + 16 * (len(attributes) + len(beside)) + sum(texts)


_processors: weakref.WeakSet[SpoolProcessor] = weakref.WeakSet()


def _after_fork() -> None:
    for processor in list(_processors):
        processor.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

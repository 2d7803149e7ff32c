"""Ended spans of traces of which it is not known yet whether they hold a span of ours."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from dspy_trace.export.traces import LiveTrace


@dataclass(slots=True)
class Ended:
    """A finished span, with what travels beside it and its place in its trace."""

    span: ReadableSpan
    beside: Mapping[str, Any]
    trace: LiveTrace
    parent_id: int | None
    root: bool
    size: int


class Undecided:
    """What waits for the answer, by trace, oldest trace first. Used by one thread at a time."""

    def __init__(self) -> None:
        self._traces: OrderedDict[int, list[Ended]] = OrderedDict()
        self._spans = 0
        self._bytes = 0

    def add(self, ended: Ended) -> None:
        """Keep a span."""
        self._traces.setdefault(id(ended.trace), []).append(ended)
        self._spans += 1
        self._bytes += ended.size

    def take(self, trace: LiveTrace) -> list[Ended]:
        """Return what waits of a trace, and keep it no longer."""
        spans = self._traces.pop(id(trace), [])
        self._less(spans)
        return spans

    def bound(self, trace: LiveTrace, most_of_trace: int, most: int, most_bytes: int) -> int:
        """Drop the first spans of a trace that has too many, and the oldest traces if all have; return how many."""
        dropped = 0
        waiting = self._traces.get(id(trace), [])
        if len(waiting) > most_of_trace:
            dropped = len(waiting) - most_of_trace
            self._less(waiting[:dropped])
            del waiting[:dropped]
        while self._spans > most or self._bytes > most_bytes:
            _, spans = self._traces.popitem(last=False)
            self._less(spans)
            dropped += len(spans)
        return dropped

    def _less(self, spans: list[Ended]) -> None:
        self._spans -= len(spans)
        self._bytes -= sum(ended.size for ended in spans)

"""A program watched while it is traced: its spans in memory, and what it is doing, for the person who waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from dspy_trace.terminal.tree import money
from dspy_trace.vocab import keys


class Watch(SpanProcessor):
    """Keeps finished spans, and tells what has begun last.

    Args:
        show: takes a line that replaces the one before.
    """

    def __init__(self, show: Callable[[str], Any]) -> None:
        self._show = show
        self._lock = Lock()
        self._spans: list[ReadableSpan] = []
        self._heard = ""

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """Spans that have ended."""
        return tuple(self._spans)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._show(f"{span.name} ...")

    def on_end(self, span: ReadableSpan) -> None:
        with self._lock:
            self._spans.append(span)

    def hear(self, piece: str) -> None:
        """Show an answer that arrives piece by piece."""
        self._heard += piece
        self._show(f"A  {self._heard}")

    def sums(self) -> str:
        """Return what the program has used."""
        roots = [span.attributes or {} for span in self._spans if span.parent is None]
        calls, hits, given, taken, cost = (sum(_number(root.get(key)) for root in roots) for key in SUMS)
        told = [f"{len(self._spans)} spans", f"{calls} LM calls"]
        if hits:
            told.append(f"{hits} of them answered by the cache")
        if given or taken:
            told.append(f"{given} tokens in, {taken} out")
        return ", ".join([*told, money(cost)] if cost else told)


SUMS = (keys.SUM_LM_CALLS, keys.SUM_CACHE_HITS, keys.SUM_INPUT_TOKENS, keys.SUM_OUTPUT_TOKENS, keys.SUM_COST)


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) else 0

"""When things happened: a bar for each span on the time axis of its tree, and a mark for each event."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.text import Text

from dspy_trace.store.traces import Event, Span
from dspy_trace.terminal.forest import Row
from dspy_trace.vocab import keys

LEAST = 12
"""Columns that bars are worth showing in."""

MOST = 60

WIDE = 100
"""Columns from which on there are bars whatever it takes: labels that are too long go on in the next line."""

GAP = 2

LIMIT = 1_000
"""No terminal has so many columns: whoever reads lines has no use for bars."""


def columns(width: int, longest: int) -> int:
    """Return how many of `width` columns are for bars, where the longest label takes `longest`."""
    room = width - longest - GAP
    if width >= LIMIT or (room < LEAST and width < WIDE):
        return 0
    return min(max(room, LEAST), MOST)


@dataclass(frozen=True, slots=True)
class Axis:
    """The time axis of one tree: nanoseconds, the columns that it is drawn in, and what with."""

    start: int
    end: int
    columns: int
    ascii_only: bool

    def bar(self, item: Span | Event) -> Text:
        """Return what stands on the axis for a span or an event; at least a half column is filled."""
        first, last = (item.time, item.time) if isinstance(item, Event) else (item.start, item.end or self.end)
        begin = self._halves(first)
        end = max(self._halves(last, up=True), begin + 1)
        whole, left, right = "===" if self.ascii_only else "━╸╺"
        if isinstance(item, Event):
            return Text(" " * (begin // 2) + ("." if self.ascii_only else "·"), style="yellow")
        pieces = []
        for column in range(begin // 2, (end + 1) // 2):
            full = (begin <= 2 * column) + 2 * (end >= 2 * column + 2)
            pieces.append({3: whole, 1: left, 2: right}.get(full, whole))
        return Text.assemble(" " * (begin // 2), ("".join(pieces), _style(item)))

    def _halves(self, moment: int, up: bool = False) -> int:
        """Return how many half columns are before a moment, of a clock that may have been set meanwhile."""
        total = max(self.end - self.start, 1)
        told, rest = divmod(2 * self.columns * min(max(moment - self.start, 0), total), total)
        return min(told + bool(up and rest), 2 * self.columns) if up else min(told, 2 * self.columns - 1)


def axes(rows: Iterable[Row], width: int, ascii_only: bool) -> Iterator[Axis]:
    """Yield the axis of each tree, in order of the trees."""
    begun: int | None = None
    ended = 0
    for row in rows:
        if isinstance(row.item, Event):
            continue
        if not row.depth:
            if begun is not None:
                yield Axis(begun, ended, width, ascii_only)
            begun, ended = row.item.start, 0
        begun = min(begun if begun is not None else row.item.start, row.item.start)
        ended = max(ended, row.item.end or row.item.start)
    if begun is not None:
        yield Axis(begun, ended, width, ascii_only)


def _style(span: Span) -> str:
    if span.failed:
        return "red"
    told = span.attributes
    if told.get(keys.LM_CACHE_HIT) is True:
        return "magenta"
    if keys.LM_CLASS in told:
        return "green"
    return "yellow" if keys.TOOL_NAME in told else "cyan"

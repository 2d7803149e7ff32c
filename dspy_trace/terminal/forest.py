"""Spans in the order in which a tree of them is drawn, whatever they say of their parents."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dspy_trace.store.traces import Event, Span
from dspy_trace.vocab import keys

DEEPEST = 64
"""Levels above a row that it knows of: no terminal shows more, and of a chain of thousands each would know all."""

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a tree.

    Attributes:
        item: what stands there.
        depth: levels above it; 0 is a root.
        lasts: for the innermost levels, itself included and innermost last, whether it is the last one there.
        failed_itself: whether it is a span that failed, and not for what failed beneath it.
    """

    item: Span | Event
    depth: int
    lasts: tuple[bool, ...]
    failed_itself: bool = False


def rows(spans: Iterable[Span]) -> Iterator[Row]:
    """Yield spans and their events depth first: roots first to last, and beneath each what it holds by time.

    A span whose parent is not there is a root. So is the earliest of spans that are each other's parents.
    """
    known = {_key(span): span for span in sorted(spans, key=lambda span: span.start)}
    children: defaultdict[Key | None, list[Span]] = defaultdict(list)
    for span in known.values():
        children[_parent(span, known)].append(span)
    drawn: set[Key] = set()
    for root in _roots(known, children, drawn):
        waiting = [Row(root, 0, ())]
        while waiting:
            row = waiting.pop()
            if isinstance(row.item, Event):
                yield row
                continue
            span = row.item
            drawn.add(_key(span))
            beneath = [child for child in children[_key(span)] if _key(child) not in drawn]
            alone = not any(child.failed and child.message == span.message for child in beneath)
            yield Row(span, row.depth, row.lasts, span.failed and alone)
            within: list[Span | Event] = [event for event in span.events if event.name != keys.EVENT_EXCEPTION]
            within = sorted([*within, *beneath], key=_time)
            above = row.lasts[1 - DEEPEST :]
            waiting += [Row(one, row.depth + 1, (*above, one is within[-1])) for one in reversed(within)]


def _roots(known: dict[Key, Span], children: dict[Key | None, list[Span]], drawn: set[Key]) -> Iterator[Span]:
    """Yield the true roots, then whatever has not been drawn by then, since it goes round in a circle."""
    yield from children[None]
    for key, span in known.items():
        if key not in drawn:
            yield span


def _key(span: Span) -> Key:
    return span.trace_id, span.span_id


def _parent(span: Span, known: dict[Key, Span]) -> Key | None:
    parent = None if span.parent_id is None else (span.trace_id, span.parent_id)
    return parent if parent in known else None


def _time(item: Event | Span) -> int:
    return item.time if isinstance(item, Event) else item.start

"""A trace as a tree in the terminal: time, tokens, cost, what the cache answered, and what went wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import StatusCode
from rich.text import Text
from rich.tree import Tree

from dspy_trace.vocab import keys


def draw(spans: Iterable[ReadableSpan]) -> list[Tree]:
    """Return a tree for each root among `spans`, first to last."""
    ordered = sorted(spans, key=lambda span: span.start_time or 0)
    known = {span.context.span_id for span in ordered if span.context}
    children: defaultdict[int | None, list[ReadableSpan]] = defaultdict(list)
    for span in ordered:
        children[span.parent.span_id if span.parent and span.parent.span_id in known else None].append(span)

    def grow(tree: Tree, span: ReadableSpan) -> Tree:
        within: list[Event | ReadableSpan] = [event for event in span.events if event.name != keys.EVENT_EXCEPTION]
        within += children[span.context.span_id if span.context else None]
        for item in sorted(within, key=_time):
            if isinstance(item, Event):
                tree.add(_event(item))
            else:
                grow(tree.add(_label(item)), item)
        return tree

    return [grow(Tree(_label(root)), root) for root in children[None]]


def _time(item: Event | ReadableSpan) -> int:
    return item.timestamp if isinstance(item, Event) else item.start_time or 0


def _label(span: ReadableSpan) -> Text:
    told = span.attributes or {}
    label = Text(span.name, style="bold" if span.parent is None else "")
    seconds = ((span.end_time or 0) - (span.start_time or 0)) / 1e9
    label.append(f"  {_duration(seconds)}", style="cyan")
    tokens_in = told.get(keys.USAGE_INPUT_TOKENS, told.get(keys.SUM_INPUT_TOKENS))
    tokens_out = told.get(keys.USAGE_OUTPUT_TOKENS, told.get(keys.SUM_OUTPUT_TOKENS))
    if tokens_in is not None or tokens_out is not None:
        label.append(f"  {tokens_in or 0} > {tokens_out or 0} tokens", style="green")
    cost = told.get(keys.LM_COST, told.get(keys.SUM_COST))
    if cost:
        label.append(f"  ${cost:.6f}", style="green")
    if told.get(keys.LM_CACHE_HIT):
        label.append("  cache hit", style="magenta")
    if retries := told.get(keys.LM_RETRIES):
        label.append(f"  {retries} retries", style="yellow")
    if span.status.status_code is StatusCode.ERROR:
        label.append(f"  {told.get(keys.ERROR_TYPE)}", style="bold red")
    return label


def _event(event: Event) -> Text:
    told = event.attributes or {}
    text = Text(event.name, style="yellow")
    if event.name == keys.EVENT_FALLBACK:
        details = f"{told.get(keys.FALLBACK_FROM, '?')} > {told.get(keys.FALLBACK_TO)}"
    else:
        details = "  ".join(str(value) for value in told.values())
    return text.append(f"  {details}", style="dim")


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"

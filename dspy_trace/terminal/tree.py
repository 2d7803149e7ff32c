"""A trace as a tree in the terminal: time, tokens, cost, what the cache answered, and what went wrong.

Everything that is shown comes from somewhere else, so that it is cleaned of what would steer the terminal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from dspy_trace.store.traces import Event, Span
from dspy_trace.terminal import contents, waterfall
from dspy_trace.terminal.forest import Row, rows
from dspy_trace.vocab import keys
from dspy_trace.vocab import mlflow_keys as mlflow

NARROW = 60
"""Columns below which guides are half as wide."""

LEAST = 24
"""Columns that a label gets at least, if there are so many; what is too deep for that is not indented further."""

LONGEST = 200
"""Characters of a text of somebody else's, such as a message, that are shown."""

MOST = 5
"""Attributes of an event that are shown."""

GAP = "  "


def draw(spans: Iterable[Span], content: bool = False, bars: bool = True) -> Forest:
    """Return a tree for each root among `spans`, first to last, to be printed by rich at any width.

    Args:
        spans: spans of one trace or of several.
        content: show what each span was given and has given, as far as that was recorded.
        bars: show when each span was, beside it, if there is room.
    """
    return Forest(list(rows(spans)), content, bars)


class Forest:
    """Trees, drawn at the width that they are printed at; if there is room, with bars on a time axis beside them."""

    def __init__(self, trees: Sequence[Row], content: bool, bars: bool) -> None:
        self._rows = trees
        self._content = content
        self._bars = bars

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, ascii_only = options.max_width, options.ascii_only
        drawn = [(*_guides(row, width, ascii_only), _parts(row)) for row in self._rows]
        longest = max((len(first) + _length(parts) for first, _, parts in drawn), default=0)
        bars = waterfall.columns(width, longest) if self._bars else 0
        room = width - bars - waterfall.GAP if bars else width
        axes = waterfall.axes(self._rows, bars, ascii_only)
        axis = None
        below = [row.depth for row in self._rows[1:]] + [0]
        for row, deeper, (first, rest, parts) in zip(self._rows, below, drawn, strict=True):
            if not row.depth and bars:
                axis = next(axes)
            for number, line in enumerate(_lines(parts, room - len(first), console)):
                text = Text.assemble((rest if number else first, "dim"), line, no_wrap=True)
                if axis is not None and not number:
                    text.pad_right(max(room - text.cell_len, 0) + waterfall.GAP)
                    text.append_text(axis.bar(row.item))
                yield text
            if self._content and isinstance(row.item, Span):
                stem = "| " if ascii_only else "│ "
                yield from contents.lines(row.item, rest + (stem if deeper > row.depth else "  "), width, console)


def _guides(row: Row, width: int, ascii_only: bool) -> tuple[str, str]:
    """Return what stands before the first line of a row, and before its other lines."""
    through, branch, last, dash, more = "|+`-~" if ascii_only else "│├└─…"
    step = 4 if width >= NARROW else 2
    room = max(width - LEAST, 0) // step
    levels = row.lasts[-room:] if room else ()
    above = f"{more} " if len(levels) < row.depth and width >= 8 else ""
    if not levels:
        return above, above
    above += "".join((" " if ended else through).ljust(step) for ended in levels[:-1])
    here = (last if levels[-1] else branch) + dash * (step - 2) + " "
    return above + here, above + (" " if levels[-1] else through).ljust(step)


def _lines(parts: Sequence[Text], width: int, console: Console) -> Iterator[Text]:
    """Yield the lines that hold `parts`, each part in one line where it fits into one."""
    width = max(width, 1)
    line = Text()
    for part in parts:
        if line and line.cell_len + len(GAP) + part.cell_len <= width:
            line = line + Text(GAP) + part
            continue
        if line:
            yield line
        *whole, line = part.wrap(console, width) or [Text()]
        yield from whole
    yield line


def _parts(row: Row) -> list[Text]:
    return _event(row.item) if isinstance(row.item, Event) else _span(row.item, row)


def _length(parts: Sequence[Text]) -> int:
    return sum(part.cell_len for part in parts) + len(GAP) * (len(parts) - 1)


def _span(span: Span, row: Row) -> list[Text]:
    told = span.attributes
    parts = [Text(short(span.name), style="" if row.depth else "bold")]
    if span.end is None:
        parts.append(Text("not ended", style="yellow"))
    else:
        parts.append(Text(duration((span.end - span.start) / 1e9), style="cyan"))
    parts += figures(*_usage(told), _cost(told))
    if told.get(keys.LM_CACHE_HIT) is True:
        parts.append(Text("cache hit", style="magenta"))
    if _is_positive(retries := told.get(keys.LM_RETRIES, 0)):
        parts.append(Text(f"{int(retries)} {'retry' if retries == 1 else 'retries'}", style="yellow"))
    if span.failed:
        parts.append(Text(short(_error(span)), style="bold red"))
        if row.failed_itself and (message := _message(span)):
            parts.append(Text(message, style="red"))
    if not row.depth:
        parts += [Text(f"linked to {link.trace_id}", style="dim") for link in span.links]
    return parts


def _usage(told: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return tokens in and out: of the call, else of all calls beneath, else as MLflow's own tracing tells them."""
    for one, other in (
        (keys.USAGE_INPUT_TOKENS, keys.USAGE_OUTPUT_TOKENS),
        (keys.SUM_INPUT_TOKENS, keys.SUM_OUTPUT_TOKENS),
    ):
        if one in told or other in told:
            return told.get(one), told.get(other)
    stored = told.get(mlflow.CHAT_USAGE)
    usage = stored if isinstance(stored, dict) else {}
    return usage.get(mlflow.INPUT_TOKENS), usage.get(mlflow.OUTPUT_TOKENS)


def _cost(told: Mapping[str, Any]) -> Any:
    cost = told.get(keys.LM_COST, told.get(keys.SUM_COST))
    stored = told.get(mlflow.LLM_COST)
    return stored.get(mlflow.TOTAL_COST) if cost is None and isinstance(stored, dict) else cost


def _error(span: Span) -> str:
    """Return what kind of error ended a span."""
    kind = span.attributes.get(keys.ERROR_TYPE)
    if kind is None:
        thrown = (event.attributes.get(keys.EXCEPTION_TYPE) for event in span.events)
        kind = next((str(one).rpartition(".")[2] for one in thrown if one), "ERROR")
    return str(kind)


def _message(span: Span) -> str:
    thrown = (event.attributes.get(keys.EXCEPTION_MESSAGE) for event in span.events)
    message = next((str(one) for one in thrown if one), span.message)
    # Without content, a status says the type alone.
    return "" if message == _error(span) else short(message.removeprefix(f"{_error(span)}:"))


def _event(event: Event) -> list[Text]:
    told = event.attributes
    if event.name == keys.EVENT_FALLBACK:
        details = [f"{told.get(keys.FALLBACK_FROM, '?')} > {told.get(keys.FALLBACK_TO)}"]
    else:
        details = [str(value) for value in islice(told.values(), MOST)]
    return [Text(short(event.name), style="yellow"), *(Text(short(one), style="dim") for one in details)]


def figures(tokens_in: Any, tokens_out: Any, cost: Any) -> list[Text]:
    """Return tokens and cost as they are shown, as far as there are any."""
    told = ((tokens(tokens_in, tokens_out), " tokens"), (money(cost), ""))
    return [Text(text + unit, style="green") for text, unit in told if text]


def tokens(tokens_in: Any, tokens_out: Any) -> str:
    """Return tokens of prompt and completion, nothing if there are none."""
    counts = [int(count) if _is_positive(count) else 0 for count in (tokens_in, tokens_out)]
    return f"{counts[0]} > {counts[1]}" if any(counts) else ""


def money(cost: Any) -> str:
    """Return a cost in USD, nothing if there is none."""
    if not _is_positive(cost):
        return ""
    return f"${cost:.6f}" if cost >= 1e-6 else "<$0.000001"


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def duration(seconds: float) -> str:
    """Return a length of time."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def short(text: str) -> str:
    """Return the beginning of a text as one line that leaves the terminal alone."""
    # Cut first: it may be a megabyte.
    told = plain(text[: 4 * LONGEST])
    return told if len(told) <= LONGEST else told[: LONGEST - 1] + "…"


def plain(text: str) -> str:
    """Return a text as one line of what can be seen."""
    return "".join(char for char in " ".join(text.split()) if char.isprintable())

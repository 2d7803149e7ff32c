"""Stored traces in the terminal: one a line, or one with what is known of it as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.text import Text

from dspy_trace.store.traces import Summary
from dspy_trace.terminal.tree import GAP, duration, figures, money, plain, short, tokens

STATES = {"OK": ("OK", ""), "ERROR": ("ERROR", "bold red"), "IN_PROGRESS": ("running", "yellow")}
"""Word and style for each state that MLflow knows."""

SHORT_ID = 8
"""Fewest digits of an id that stand for it; more where that takes telling it from others."""

SMALL = 100
"""Columns below which the time is told without the date where it is today, and without the year."""

PREVIEW = 12
"""Columns below which a preview is not worth its place."""

LONGEST_NAME = 24


def table(summaries: Sequence[Summary], width: int | None) -> Iterator[Text]:
    """Yield a line for each trace: id, when, name, state, duration, tokens, cost and what was asked.

    Args:
        summaries: the traces.
        width: columns of the terminal; ``None`` cuts nothing, for what reads the lines.
    """
    ids = [one.trace_id for one in summaries] if width is None else _short_ids(summaries)
    cells = [[Text(ident, style="yellow"), *_cells(one, width)] for ident, one in zip(ids, summaries, strict=True)]
    widths = [max((row[column].cell_len for row in cells), default=0) for column in range(_RIGHT[-1] + 1)]
    for row in cells:
        for column, most in enumerate(widths):
            cell = row[column]
            fill = most - cell.cell_len
            if column in _RIGHT:
                cell.pad_left(fill)
            else:
                cell.pad_right(fill)
        line = Text(GAP).join(cell for cell, most in zip(row, widths, strict=False) if most)
        line.no_wrap = True
        yield _with_preview(line, row[-1], width)


_RIGHT = (4, 5, 6)
"""Columns of numbers: duration, tokens, cost. The last of them is followed by the preview."""


def _cells(one: Summary, width: int | None) -> list[Text]:
    name = Text(plain(one.name) or "-", style="bold")
    if width is not None:
        name.truncate(LONGEST_NAME, overflow="ellipsis")
    return [
        Text(moment(one.start, width is not None and width < SMALL), style="dim"),
        name,
        Text(*state(one)),
        Text("" if one.seconds is None else duration(one.seconds), style="cyan"),
        Text(tokens(one.input_tokens, one.output_tokens), style="green"),
        Text(money(one.cost), style="green"),
        Text(plain(one.request), style="dim"),
    ]


def _with_preview(line: Text, preview: Text, width: int | None) -> Text:
    if width is not None:
        room = width - line.cell_len - len(GAP)
        if room < PREVIEW:
            line.truncate(width, overflow="ellipsis")
            preview = Text()
        preview.truncate(max(room, 0), overflow="ellipsis")
    return line + Text(GAP) + preview if preview else line


def _short_ids(summaries: Sequence[Summary]) -> list[str]:
    ids = [one.trace_id.removeprefix("tr-") for one in summaries]
    digits = SHORT_ID
    while digits < 32 and len({ident[:digits] for ident in ids}) < len(set(ids)):
        digits += 1
    return [ident[:digits] for ident in ids]


def heading(summary: Summary, uri: str) -> Iterator[Text]:
    """Yield the lines that stand above the tree of a stored trace."""
    parts = [Text(plain(summary.name) or "a trace without a name", style="bold")]
    if summary.state != "OK":
        parts.append(Text(*state(summary)))
    if summary.seconds is not None:
        parts.append(Text(duration(summary.seconds), style="cyan"))
    parts += figures(summary.input_tokens, summary.output_tokens, summary.cost)
    yield Text(GAP).join(parts)
    where = (moment(summary.start), summary.trace_id, f"experiment {summary.experiment_id}", uri)
    yield Text(GAP.join(map(plain, where)), style="dim")
    for what, text in (("asked", summary.request), ("answered", summary.response)):
        if text:
            yield Text.assemble((f"{what:<10}", "dim"), short(text), no_wrap=True)


def state(summary: Summary) -> tuple[str, str]:
    """Return the state of a trace in a word, and its style."""
    return STATES.get(summary.state, (plain(summary.state).lower() or "unknown", "yellow"))


def moment(nanoseconds: int, brief: bool = False) -> str:
    """Return a time, in the time zone of this machine."""
    when = datetime.fromtimestamp(nanoseconds / 1e9)
    if not brief:
        return f"{when:%Y-%m-%d %H:%M:%S}"
    return f"{when:%H:%M:%S}" if when.date() == datetime.now().date() else f"{when:%b %d %H:%M}"

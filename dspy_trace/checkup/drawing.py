"""A checkup in the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions
from rich.text import Text

from dspy_trace.checkup import Report
from dspy_trace.terminal.tree import plain

MARKS = {"ok": ("✓", "v", "green"), "note": ("!", "!", "yellow"), "wrong": ("✗", "x", "bold red")}
"""For each level: the mark, one for terminals that have only ASCII, and the style."""

AREA = 13


def lines(report: Report, console: Console, options: ConsoleOptions) -> Iterator[Text]:
    """Yield the findings, each area named once, and in the end what is wrong."""
    before = ""
    for one in report.findings:
        mark, plain_mark, style = MARKS[one.level]
        area = "" if one.area == before else one.area
        before = one.area
        head = Text.assemble((f"{plain_mark if options.ascii_only else mark} ", style), (f"{area:<{AREA}}", "bold"))
        parts = [(one.text, style if one.level == "wrong" else "")] + ([(one.remedy, "dim")] if one.remedy else [])
        for text, look in parts:
            for line in Text(plain(text), style=look).wrap(console, max(options.max_width - head.cell_len, 20)):
                line.rstrip()
                yield head + line
                head = Text(" " * head.cell_len)
    yield Text()
    wrong = len(report.wrong)
    said = "Nothing is wrong." if not wrong else f"{wrong} thing{'s are' if wrong > 1 else ' is'} wrong."
    yield Text(said, style="bold red" if wrong else "bold green")

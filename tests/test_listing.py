"""Stored traces in the terminal, exactly: the table of `ls` at given widths, and what stands above a tree."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from dspy_trace.store.traces import Summary
from dspy_trace.terminal.listing import heading, table

SECRET = "\x1b[2J\x1b]0;owned\x07"


def summary(ident: str, name: str = "HelpDesk", state: str = "OK", **more: Any) -> Summary:
    """Make what a store says of a trace that began at noon of the first of May 2026."""
    told = {"seconds": 8.85, "input_tokens": 963, "output_tokens": 186, "cost": 0.000039, "request": "Why?"}
    told |= {"response": "Because.", "start": 1_777_636_800_000_000_000, **more}
    return Summary(f"tr-{ident * 4}", "1", name, state, tags={}, metadata={}, **told)


@pytest.fixture
def at_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let local time be UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


ROWS = [
    summary("0a1b2c3d", request='{"question": "My card was charged twice for one lamp. What should I do?"}'),
    summary("0a1b2c3e", "RAG", "ERROR", seconds=0.0142, input_tokens=None, output_tokens=None, cost=None),
    summary("ffffffff", "", "IN_PROGRESS", seconds=None, cost=None, request=f"{SECRET}\nhello"),
]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (
            110,
            """
0a1b2c3d  2026-05-01 12:00:00  HelpDesk  OK        8.85 s  963 > 186  $0.000039  {"question": "My card was ch…
0a1b2c3e  2026-05-01 12:00:00  RAG       ERROR    14.2 ms                        Why?
ffffffff  2026-05-01 12:00:00  -         running           963 > 186             [2J]0;owned hello
""",
        ),
        (
            80,
            """
0a1b2c3d  May 01 12:00  HelpDesk  OK        8.85 s  963 > 186  $0.000039
0a1b2c3e  May 01 12:00  RAG       ERROR    14.2 ms
ffffffff  May 01 12:00  -         running           963 > 186
""",
        ),
        (
            40,
            """
0a1b2c3d  May 01 12:00  HelpDesk  OK   …
0a1b2c3e  May 01 12:00  RAG       ERROR…
ffffffff  May 01 12:00  -         runni…
""",
        ),
    ],
)
def test_a_table_in_a_terminal(width: int, lines: str, at_greenwich: None) -> None:
    """As many columns as there is room for, the ids as short as they can be told apart."""
    assert [line.plain.rstrip() for line in table(ROWS, width)] == lines.strip().splitlines()


def test_a_table_that_is_piped(at_greenwich: None) -> None:
    """Who reads lines gets whole ids, names and previews."""
    long = summary("0a1b2c3d", "N" * 40, request="w " * 300)
    (line,) = table([long], None)
    assert line.plain.split("  ")[:3] == [long.trace_id, "2026-05-01 12:00:00", "N" * 40]
    assert line.plain.endswith(long.request.strip())


def test_ids_that_begin_alike_are_told_apart() -> None:
    """As many digits as it takes."""
    first = summary("01234567")
    twins = [first, replace(first, trace_id="tr-" + "0123456701234568" * 2)]
    assert [line.plain.split(" ")[0] for line in table(twins, 100)] == ["0123456701234567", "0123456701234568"]


def test_the_heading_of_a_stored_trace(at_greenwich: None) -> None:
    """What the store says of the whole: name, state unless all is well, figures, when, id, where, and the previews."""
    lines = [line.plain for line in heading(ROWS[1], "http://127.0.0.1:5000")]
    assert lines == [
        "RAG  ERROR  14.2 ms",
        f"2026-05-01 12:00:00  tr-{'0a1b2c3e' * 4}  experiment 1  http://127.0.0.1:5000",
        "asked     Why?",
        "answered  Because.",
    ]
    assert next(heading(ROWS[0], "")).plain == "HelpDesk  8.85 s  963 > 186 tokens  $0.000039"
    assert next(heading(ROWS[2], "")).plain == "a trace without a name  running  963 > 186 tokens"

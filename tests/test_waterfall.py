"""The time axis beside a tree, and what was said beneath its spans: drawn exactly, whatever the spans say."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from dspy_trace.store.traces import Event, Span
from dspy_trace.terminal.tree import draw
from tests.test_terminal import DESK, MS, SECRET, span


def drawn(spans: list[Span], width: int, *, encoding: str = "utf-8", **how: Any) -> str:
    """Return what rich prints at a width, without what fills lines up."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    Console(file=stream, width=width, highlight=False, color_system=None).print(draw(spans, **how))
    stream.flush()
    stream.seek(0)
    return "\n" + "".join(f"{line.rstrip()}\n" for line in stream.read().splitlines())


FLAT = [
    span(1, "root", ms=80),
    span(2, "first", 1, at=0, ms=20),
    span(3, "second", 1, at=20, ms=30, events=[Event("noted", 35 * MS, {})]),
    span(4, "third", 1, at=78, ms=1),
]


def test_bars_stand_where_their_spans_were() -> None:
    """To a half column, each at least one half; an event is a point."""
    assert (
        drawn(FLAT, 39)
        == """
root  80.0 ms      ━━━━━━━━━━━━━━━━━━━━
├ first  20.0 ms   ━━━━━
├ second  30.0 ms       ━━━━━━━╸
│ └ noted                  ·
└ third  1.0 ms                       ╺
"""
    )


def test_bars_in_plain_letters() -> None:
    """A terminal that has no lines gets what every terminal has."""
    told = drawn(FLAT[:2], 40, encoding="ascii")
    assert told.splitlines()[1].endswith("====")
    assert told.isascii()


@pytest.mark.parametrize(("width", "bars"), [(60, False), (80, True), (100, True), (200, True), (1_000_000, False)])
def test_bars_are_shown_where_there_is_room(width: int, bars: bool) -> None:
    """From 100 columns on always, below only beside short labels; not to who reads lines."""
    assert ("━" in drawn(DESK[:4], width)) is bars


@pytest.mark.parametrize("width", [1, 2, 13, 24, 40, 60, 99, 100, 101, 120, 200])
@pytest.mark.parametrize("content", [False, True])
def test_no_line_is_wider_than_the_terminal(width: int, content: bool) -> None:
    """Whatever clocks, names and contents are: before the root, after its end, never ended, of no length."""
    odd = [
        span(10, "模型" * 30, 1, at=-50, ms=10, input__value="long " * 100),
        span(11, "late", 1, at=99_999, ms=5, output__value='{"a": "' + "word " * 50 + '"}'),
        span(12, "open", 11, at=3, ms=None),
        span(13, "backwards", 1, at=50, ms=-20),
    ]
    lines = drawn([*FLAT, *odd], width, content=content).splitlines()
    assert max(map(cell_len, lines)) <= max(width, 24 if content else 1)


def test_each_tree_has_an_axis_of_its_own() -> None:
    """Two traces an hour apart both fill theirs."""
    later = Span("8" * 32, f"{1:016x}", None, "later", 3_600_000 * MS, 3_600_100 * MS, False, "", {})
    bars = [line.rpartition("  ")[2] for line in drawn([span(1, "root"), later], 60).strip().splitlines()]
    assert bars[0] == bars[1] == "━" * len(bars[0])


CHAT = {
    "mlflow__spanInputs": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Two\nlines"}]},
        ]
    },
    "mlflow__spanOutputs": {"choices": [{"message": {"role": "assistant", "content": "Yes."}}]},
}


def test_what_was_said() -> None:
    """Messages by role, inputs and outputs by field, anything else as it is; lines stay lines."""
    spans = [
        span(1, "invoke_workflow Desk", input__value='{"question": "Why?"}', output__value='"Because."'),
        span(2, "chat small", 1, at=1, **CHAT),
        span(3, "chat other", 1, at=2, gen_ai__input__messages='[{"role":"user","parts":[{"content":"Hello"}]}]'),
    ]
    assert (
        drawn(spans, 60, content=True, bars=False)
        == """
invoke_workflow Desk  10.0 ms
│ > question  Why?
│ <   Because.
├── chat small  10.0 ms
│     > system  Be brief.
│     > user  Two
│             lines
│     < assistant  Yes.
└── chat other  10.0 ms
      > user  Hello
"""
    )


def test_what_was_said_does_not_steer_the_terminal() -> None:
    """Nor what it was called."""
    told = drawn([span(1, "x", input__value={SECRET: f"a{SECRET}\r\u202eb"})], 80, content=True)
    assert "\x1b" not in told
    assert "\x07" not in told
    assert "\u202e" not in told

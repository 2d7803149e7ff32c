"""Traces as trees in the terminal, drawn exactly: at given widths, and whatever the spans say."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable
from typing import Any

import dspy
import pytest
from dspy.utils import DummyLM
from rich.cells import cell_len
from rich.console import Console

from dspy_trace.store.traces import Event, Link, Span, recorded
from dspy_trace.terminal.tree import draw
from dspy_trace.testing import record

TRACE = "7" * 32
MS = 1_000_000
SECRET = "\x1b[2J\x1b]0;owned\x07"


def span(ident: int, name: str, parent: int | None = None, at: int = 0, ms: int | None = 10, **more: Any) -> Span:
    """Make a span that starts `at` ms and takes `ms`; `attributes` with `_` for `.`."""
    failed = more.pop("failed", False)
    given = {key: more.pop(key) for key in ("message", "events", "links") if key in more}
    told = {key.replace("__", "."): value for key, value in more.items()}
    end = None if ms is None else (at + ms) * MS
    parent_id = None if parent is None else f"{parent:016x}"
    return Span(TRACE, f"{ident:016x}", parent_id, name, at * MS, end, failed, given.pop("message", ""), told, **given)


def drawn(spans: Iterable[Span], width: int = 80, encoding: str = "utf-8", **console: Any) -> str:
    """Return what rich prints at a width."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    out = Console(file=stream, width=width, highlight=False, **{"color_system": None, **console})
    out.print(draw(spans, bars=False))
    stream.flush()
    stream.seek(0)
    return "\n" + stream.read()


USAGE = {"gen_ai__usage__input_tokens": 212, "gen_ai__usage__output_tokens": 35}
DESK = [
    span(1, "invoke_workflow HelpDesk", ms=8_850, dspy__usage__input_tokens=963, dspy__usage__output_tokens=186),
    span(
        2,
        "Predict triage",
        1,
        at=2,
        ms=5_090,
        events=[
            Event("dspy.adapter.fallback", 3_600 * MS, {"dspy.adapter.from": "Chat", "dspy.adapter.to": "JSON"}),
            Event("dspy.adapter.parse_error", 3_500 * MS, {"dspy.adapter": "Chat", "error.type": "AdapterParseError"}),
        ],
    ),
    span(3, "chat small", 2, at=5, ms=3_400, dspy__lm__cost=0.0000387, dspy__lm__retries=2, **USAGE),
    span(4, "chat small", 2, at=3_700, ms=0, dspy__lm__cache_hit=True),
    span(
        5,
        "execute_tool find_hotel",
        1,
        at=5_200,
        ms=3,
        failed=True,
        message="LookupError: no hotel in Paris",
        error__type="LookupError",
        events=[Event("exception", 5_203 * MS, {"exception.type": "LookupError"})],
    ),
]


def test_a_tree_at_full_width() -> None:
    """Time, tokens, cost, retries, cache hits and errors stand behind the name, events in place by time."""
    assert (
        drawn(DESK, 120)
        == """
invoke_workflow HelpDesk  8.85 s  963 > 186 tokens
├── Predict triage  5.09 s
│   ├── chat small  3.40 s  212 > 35 tokens  $0.000039  2 retries
│   ├── dspy.adapter.parse_error  Chat  AdapterParseError
│   ├── dspy.adapter.fallback  Chat > JSON
│   └── chat small  0.0 ms  cache hit
└── execute_tool find_hotel  3.0 ms  LookupError  no hotel in Paris
"""
    )


def test_a_tree_in_a_narrow_terminal() -> None:
    """What does not fit goes to the next line, beneath its own row; a figure is only broken where it fits into none."""
    assert (
        drawn(DESK, 40)
        == """
invoke_workflow HelpDesk  8.85 s
963 > 186 tokens
├ Predict triage  5.09 s
│ ├ chat small  3.40 s  212 > 35 tokens
│ │ $0.000039  2 retries
│ ├ dspy.adapter.parse_error  Chat
│ │ AdapterParseError
│ ├ dspy.adapter.fallback  Chat > JSON
│ └ chat small  0.0 ms  cache hit
└ execute_tool find_hotel  3.0 ms
  LookupError  no hotel in Paris
"""
    )


def test_a_tree_without_box_characters() -> None:
    """A terminal that has no lines gets what every terminal has."""
    assert (
        drawn([DESK[0], *DESK[3:]], 120, encoding="ascii")
        == """
invoke_workflow HelpDesk  8.85 s  963 > 186 tokens
+-- execute_tool find_hotel  3.0 ms  LookupError  no hotel in Paris
chat small  0.0 ms  cache hit
""".replace("+--", "`--")
    )


@pytest.mark.parametrize("width", [2, 3, 7, 8, 12, 23, 24, 25, 31, 59, 60, 61, 80])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """Nothing is cut off at the right, at any width and depth, and all of it is there."""
    wide = "模型" * 20
    spans = [*DESK, *(span(100 + n, wide, 99 + n if n else 3, at=10) for n in range(40))]
    lines = drawn(spans, width).splitlines()
    assert max(map(cell_len, lines)) <= width
    letters = "".join(char for line in lines for char in line if char in "模型")
    assert len(letters) == 40 * 40


def test_what_is_too_deep_is_not_indented_further() -> None:
    """A chain of thousands is drawn in time, each span once; the depth that there is no room for is an ellipsis."""
    chain = [span(n, f"step {n}", n - 1 if n else None, at=n) for n in range(3_000)]
    begun = time.monotonic()
    lines = drawn(chain, 40).splitlines()[1:]
    assert time.monotonic() - begun < 5
    assert [line.split("step ")[1].split("  ")[0] for line in lines] == [str(n) for n in range(3_000)]
    assert lines[8] == "              └ step 8  10.0 ms"
    assert lines[9] == lines[2_999].replace("2999", "9") == "…               └ step 9  10.0 ms"


def test_every_span_is_drawn_once_whatever_it_says_of_its_parent() -> None:
    """No such parent, one's own parent, parents in a circle, the same span twice, one id in two traces."""
    spans = [
        span(1, "root", at=0),
        span(2, "lost", 99, at=1),
        span(3, "own parent", 3, at=2),
        span(4, "circle a", 5, at=3),
        span(5, "circle b", 4, at=4),
        span(6, "beneath", 5, at=5),
        span(1, "root", at=0),
        Span("8" * 32, f"{1:016x}", None, "other trace", 6 * MS, 7 * MS, False, "", {}),
    ]
    assert (
        drawn(spans)
        == """
root  10.0 ms
lost  10.0 ms
other trace  1.0 ms
own parent  10.0 ms
circle a  10.0 ms
└── circle b  10.0 ms
    └── beneath  10.0 ms
"""
    )


def test_a_message_stands_where_the_error_came_from() -> None:
    """Spans that failed because one beneath them did show what kind of error it was; the text stands once."""
    same = {"failed": True, "message": "ValueError: out of paper", "error__type": "ValueError"}
    spans = [
        span(1, "program", **same),
        span(2, "step", 1, **same),
        span(3, "handled", 2, failed=True, message="KeyError: 'x'", error__type="KeyError"),
    ]
    assert (
        drawn(spans)
        == """
program  10.0 ms  ValueError
└── step  10.0 ms  ValueError  out of paper
    └── handled  10.0 ms  KeyError  'x'
"""
    )


def test_spans_of_others() -> None:
    """MLflow's own spans, which tell usage, cost and errors otherwise, and spans that are still open."""
    usage = {"mlflow__chat__tokenUsage": {"input_tokens": 9, "output_tokens": 3}}
    thrown = Event("exception", 5, {"exception.type": "http.client.BadStatusLine", "exception.message": "what?"})
    spans = [
        span(1, "GET /ask", ms=None, links=[Link("a" * 32, "b" * 16)]),
        span(2, "LM.__call__", 1, at=1, mlflow__llm__cost={"total_cost": 0.5}, **usage),
        span(3, "fetch", 1, at=2, failed=True, events=[thrown]),
        span(4, "silent", 1, at=3, failed=True),
    ]
    assert (
        drawn(spans, 100)
        == f"""
GET /ask  not ended  linked to {"a" * 32}
├── LM.__call__  10.0 ms  9 > 3 tokens  $0.500000
├── fetch  10.0 ms  BadStatusLine  what?
└── silent  10.0 ms  ERROR
"""
    )


def test_what_is_shown_does_not_steer_the_terminal() -> None:
    """Control characters and line breaks of names, messages and events do not get through, nor does markup mean any."""
    told = f"[red]a{SECRET}\r\n\u202eb[/red]"
    event = Event(told, 1, {"x": told})
    spans = [span(1, told, failed=True, message=told, error__type="KeyError", events=[event])]
    clean = "[red]a[2J]0;owned b[/red]"
    assert drawn(spans, 200) == f"\n{clean}  10.0 ms  KeyError  {clean}\n└── {clean}  {clean}\n"


@pytest.mark.parametrize("value", ["12", None, True, float("nan"), float("inf"), -1, [], {}, "x" * 100_000])
def test_figures_that_are_none(value: Any) -> None:
    """A store holds whatever somebody has written: what is no number is not shown as one."""
    names = ("gen_ai__usage__input_tokens", "dspy__lm__cost", "dspy__lm__retries", "mlflow__chat__tokenUsage")
    assert drawn([span(1, "chat", **dict.fromkeys(names, value))]) == "\nchat  10.0 ms\n"


def test_colours() -> None:
    """A failure is red where there are colours, and nothing is coloured where they are not wanted."""
    failed = [span(1, "chat", failed=True, error__type="ValueError")]
    coloured = drawn(failed, force_terminal=True, color_system="standard")
    assert "\x1b[1;31mValueError\x1b[0m" in coloured
    plain = drawn(failed, force_terminal=True, color_system="standard", no_color=True)
    assert "ValueError" in plain
    assert "31m" not in plain


def test_what_was_just_recorded_is_drawn_the_same_way() -> None:
    """Spans of the SDK take the same form as stored ones."""
    lm = DummyLM([{"reasoning": "It is known.", "answer": "Paris"}])
    with record() as trace, dspy.context(lm=lm):
        dspy.ChainOfThought("question -> answer")(question="What is the capital of France?")
        with pytest.raises(TypeError):
            dspy.ChainOfThought("question -> answer")(question=None, config=7)
    lines = [line.split("  ") for line in drawn(map(recorded, trace.spans), 120).strip().splitlines()]
    assert ["  ".join(line[:-1]) for line in lines[:3]] == [
        "invoke_workflow ChainOfThought",
        "└── Predict predict",
        "    └── chat dummy",
    ]
    assert lines[-1][-1] == "TypeError"

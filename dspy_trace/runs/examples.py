"""Examples as rows of a run's table: true columns, and values of their own types."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import orjson

from dspy_trace import facts
from dspy_trace.guard import ask
from dspy_trace.runs.data import inputs_of

Row = dict[str, Any]


def row(
    fact: facts.ExampleRun,
    error: str | None,
    trace_id: str | None,
    seconds: float,
    capture: Callable[[Any], str] | None,
) -> Callable[[], Row]:
    """Capture an example that has ended, and return what makes its row, on our thread.

    Args:
        fact: what is known of it.
        error: what ended it, if it failed.
        trace_id: MLflow's trace of it, if it is traced.
        seconds: how long it took.
        capture: gives values as bounded JSON text; ``None`` where content is not wanted.
    """
    given = capture(fact.inputs) if capture is not None else None
    answered = capture(fact.output) if capture is not None and fact.output is not None else None
    inputs, tally = inputs_of(fact.inputs), fact.tally
    usage = (tally.input_tokens, tally.output_tokens, tally.cost) if tally is not None else (None, None, None)
    score, said = fact.score, fact.explanation if capture is not None else None
    index = fact.index

    def make() -> Row:
        told: Row = {"index": index}
        for name, value in _fields(given, "inputs"):
            told[f"inputs.{name}" if inputs is None or name in inputs else f"expected.{name}"] = value
        told.update({f"outputs.{name}": value for name, value in _fields(answered, "value")})
        told |= {"score": _number(score), "error": error, "trace_id": trace_id}
        told |= {"input_tokens": usage[0], "output_tokens": usage[1], "cost": usage[2], "seconds": round(seconds, 3)}
        if said is not None:
            told["feedback"] = said
        return told

    return make


def _fields(text: str | None, alone: str) -> list[tuple[str, Any]]:
    """Return the fields of captured JSON; of what has none, the value under the name `alone`."""
    if text is None:
        return []
    value = ask(orjson.loads, text)
    if isinstance(value, dict):
        return [(name, _cell(item)) for name, item in value.items()]
    return [(alone, _cell(value))]


def _cell(value: Any) -> Any:
    """Return a value as one cell: what is nested as its JSON."""
    return orjson.dumps(value).decode() if isinstance(value, dict | list) else value


def _number(score: float | None) -> float | str | None:
    return score if score is None or math.isfinite(score) else str(score)

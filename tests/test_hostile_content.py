"""Content of every kind at every place where a program's content can stand, in both spellings: the span survives."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import dspy
import pytest

from tests.hostile import OddLM, alike, hostile, response


def recursive() -> Any:
    value: Any = {"list": []}
    value["list"] += [value, value["list"]]
    return value


VALUES: dict[str, Callable[[], Any]] = {
    "10 MB": lambda: "x" * 10_000_000,
    "10 MB of escapes": lambda: "\x01" * 10_000_000,
    "a million items": lambda: [None] * 1_000_000,
    "bytes": lambda: b"\x00\xff" * 1_000,
    "not a number": lambda: [float("nan"), float("inf"), -float("inf")],
    "huge numbers": lambda: [2**64, -(2**200), 1e308],
    "lone surrogates": lambda: {"\ud800": "\udfff"},
    "recursive": recursive,
    "deep": lambda: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[["end"]]]]]]]]]]]]]]]]]]]]]]]]]]]]]],
    "keys of all kinds": lambda: {1: 2, None: 3, (4,): 5, b"6": 7},
    "hostile": hostile("__repr__", "__str__", "__eq__", "__len__", "__iter__", "__bool__", "__getattr__"),
    "hostile list": lambda: hostile("__iter__", "__len__", "__getitem__", base=list)([1]),
    "hostile text": lambda: hostile("__str__", "__len__", "__getitem__", "encode", base=str)("hostile"),
}


class Direct(OddLM):
    """Answers by a call of its own, so that DSPy looks at nothing of what it is given."""

    def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        return self.response


class Inside(dspy.Module):
    """Gives what it is given."""

    def forward(self, given: Any) -> Any:
        return dspy.Prediction(given=given)


class Shelf(dspy.Retrieve):
    """Returns what stands on it."""

    def forward(self, query: Any, k: int | None = None, **kwargs: Any) -> Any:
        return [query, {"text": query, "pid": query, "score": query}]


PLACES: dict[str, Callable[[Any], Any]] = {
    "a message": lambda value: Direct()(messages=[{"role": "user", "content": value}]),
    "a part": lambda value: Direct()(messages=[{"role": "user", "content": [{"type": "text", "text": value}]}]),
    "a role": lambda value: Direct()(messages=[{"role": value, "content": "hi", "tool_call_id": value}]),
    "a tool call": lambda value: Direct()(
        messages=[{"role": "assistant", "tool_calls": [{"id": value, "function": {"name": value, "arguments": value}}]}]
    ),
    "an offered tool": lambda value: Direct()("hi", tools=[{"function": {"name": "tool", "parameters": value}}, value]),
    "a completion": lambda value: Direct([value])("hi"),
    "parts of a completion": lambda value: Direct(
        [{"text": value, "reasoning_content": value, "tool_calls": value}, {"tool_calls": [{"function": value}, value]}]
    )("hi"),
    "ids and reasons": lambda value: OddLM(response(id=value, model=value))("hi"),
    "a module": lambda value: Inside()(given=value),
    "a tool": lambda value: dspy.Tool(lambda given: given, name="tool", args={"given": {}})(given=value),
    "a retriever": Shelf(),
    "texts to embed": lambda value: dspy.Embedder(lambda texts: [[1.0]])([value]),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", VALUES)
def test_content_of_any_kind(name: str, place: str) -> None:
    """The call is what it is untraced; each value is told within bounds, as JSON where it is no text, and quickly."""
    make, use = VALUES[name], PLACES[place]
    began = perf_counter()

    def scenario(server: Any) -> str:
        return type(use(make())).__name__

    trace = alike(scenario)
    assert len(trace.spans) == 1
    assert perf_counter() - began < 20

"""What is as hostile as legal Python allows, and the check that a trace of it is sound."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import dspy
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from dspy_trace.testing import Recording, record
from tests.host import Scenario, run
from tests.parts import openinference

VOCABULARIES = ("genai", "openinference")
"""All there are: spans are sound in both spellings."""


JSON = (".value", ".messages", ".arguments", ".result", ".definitions", ".documents")


def refuse(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("hostile")


def hostile(*names: str, base: type = object, **more: Any) -> Any:
    """Return a class whose methods of these names raise."""
    return type("Hostile", (base,), {**dict.fromkeys(names, refuse), **more})


def alike(scenario: Scenario, **kwargs: Any) -> Recording:
    """Run `scenario` bare and traced; both must be the same to the host, failures included, and every span sound."""
    bare = run(scenario)
    with record(**{"detail": "full", "capture_content": True, "conventions": VOCABULARIES, **kwargs}) as trace:
        traced = run(scenario)
    for name, value in dataclasses.asdict(bare).items():
        if (seen := getattr(traced, name)) != value:
            raise AssertionError(f"{name} is {seen!r}, not {value!r}\n{trace.tree()}")
    check(trace)
    return trace


def check(trace: Recording) -> None:
    """Every span can be sent: OTLP holds its values, none is without bounds, and JSON is JSON."""
    encoded = encode_spans(trace.spans).resource_spans[0].scope_spans[0].spans
    for span, sent in zip(trace.spans, encoded, strict=True):
        assert len(sent.attributes) == len(span.attributes or {})
        assert len(span.name) < 1_100
        assert list(openinference.problems(span)) == []
        attributes = span.attributes or {}
        plain = {"input.value"} if attributes.get("input.mime_type") == "text/plain" else set()
        for key, value in attributes.items():
            assert len(str(value)) <= 70_000, key
            if (
                key.endswith((".value", ".messages", ".arguments", ".result", ".definitions", ".documents"))
                and key not in plain
            ):
                json.loads(str(value))


class OddLM(dspy.BaseLM):
    """A user's LM, whose answer is given."""

    def __init__(self, response: Any = None, model: Any = "odd", **kwargs: Any) -> None:
        super().__init__(model, **kwargs)
        self.response = response

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.response

    async def aforward(self, *args: Any, **kwargs: Any) -> Any:
        return self.response


def response(**more: Any) -> SimpleNamespace:
    """A response in OpenAI's shape, but for what is given."""
    message = SimpleNamespace(content="hello", tool_calls=None)
    choice = SimpleNamespace(message=message, finish_reason="stop")
    usage = {"prompt_tokens": 5, "completion_tokens": 3}
    return SimpleNamespace(**{"choices": [choice], "usage": usage, "model": "odd-1", "id": "r-1", **more})

"""What OpenInference's own variables and ``redact=`` keep off a span that is written in its words."""

from __future__ import annotations

from typing import Any

import pytest

from dspy_trace.testing import record
from tests.parts import openinference
from tests.parts.scripted_lm import ScriptedLM

BOTH = ("genai", "openinference")
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


HIDING = {
    "INPUTS": ("a secret question", {"a secret answer"}),
    "INPUT_MESSAGES": ("message", {"a secret answer"}),
    "OUTPUTS": ("a secret answer", {"a secret question"}),
    "OUTPUT_MESSAGES": ("message", {"a secret question"}),
    "LLM_INVOCATION_PARAMETERS": ("llm.invocation_parameters", {"a secret question", "a secret answer"}),
    "LLM_TOOLS": ("look_up", {"a secret question", "a secret answer"}),
}


@pytest.mark.parametrize("name", HIDING)
def test_openinferences_variables_hide(name: str, scripted_lm: ScriptedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """``OPENINFERENCE_HIDE_*`` hides in both spellings, and nothing else."""
    monkeypatch.setenv(f"OPENINFERENCE_HIDE_{name}", "true")
    hidden, shown = HIDING[name]
    scripted_lm.answer = lambda body: "a secret answer"
    with record(capture_content=True, conventions=BOTH) as trace:
        scripted_lm.lm()("a secret question", tools=[TOOL])
    (span,) = trace.spans
    assert list(openinference.problems(span)) == []
    text = span.to_json()
    for words in shown:
        assert words in text
    if hidden == "message":
        side = name.partition("_")[0].lower()
        assert not [key for key in span.attributes if f"{side}_messages" in key or f"{side}.messages" in key]
        assert f"a secret {'question' if side == 'input' else 'answer'}" not in text
    else:
        assert hidden not in text


@pytest.mark.parametrize("conventions", [{"openinference"}, "openinference", " OpenInference , other"])
def test_it_adds_to_the_genai_vocabulary(
    conventions: Any, scripted_lm: ScriptedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for by argument or variable, alone or not: span names and ``gen_ai.*`` are there in any case."""
    if isinstance(conventions, str):
        monkeypatch.setenv("DSPY_TRACE_CONVENTIONS", conventions)
        conventions = None
    with record(conventions=conventions) as trace:
        scripted_lm.lm()("hi")
    attributes = trace.one("chat gpt-4o-mini").attributes
    assert (attributes["gen_ai.operation.name"], attributes["openinference.span.kind"]) == ("chat", "LLM")


@pytest.mark.parametrize("made", ["gone", None, 3, [], ["gone"], {"messages": "gone"}, {"messages": [1, None, [2]]}])
def test_redaction_may_make_anything_of_messages(made: Any, scripted_lm: ScriptedLM) -> None:
    """What was redacted is not told, and what redaction returns is told as far as it has the shape of messages."""
    with record(capture_content=True, conventions=BOTH, redact=lambda value: made) as trace:
        scripted_lm.lm()("a secret question", tools=[TOOL])
    assert "secret" not in trace.one("chat gpt-4o-mini").to_json()
    assert list(openinference.problems(trace.spans[0])) == []

"""Sessions and the conversations of ``opentelemetry-util-genai``: each is told of the other."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import dspy
import pytest
from opentelemetry import context
from opentelemetry.sdk.trace import ReadableSpan

import dspy_trace
from tests.balanced import balanced
from tests.parts.scripted_lm import ScriptedLM

genai: Any = pytest.importorskip("opentelemetry.util.genai._conversation_context")


def ids(span: ReadableSpan) -> tuple[Any, Any]:
    attributes = span.attributes or {}
    return attributes.get("session.id"), attributes.get("gen_ai.conversation.id")


def ask(scripted_lm: ScriptedLM) -> tuple[Any, Any]:
    """Ask in several threads, and return the ids of all spans, which must be the same."""
    items = [dspy.Example(question=str(index)).with_inputs("question") for index in range(2)]
    with balanced() as trace, dspy.context(lm=scripted_lm.lm()):
        dspy.Predict("question -> answer").batch(items, num_threads=2, disable_progress_bar=True)
    (found,) = {ids(span) for span in trace.spans}
    return found


def test_a_conversation_is_told(scripted_lm: ScriptedLM) -> None:
    """What util-genai was told is the conversation of every span, with a session around it or without."""
    with in_conversation("theirs"):
        assert ask(scripted_lm) == (None, "theirs")
        with dspy_trace.session(user_id="me"):
            assert ask(scripted_lm) == (None, "theirs")
    with dspy_trace.session(session_id="ours"):
        assert ask(scripted_lm) == ("ours", "ours")
        with in_conversation("theirs"):
            assert ask(scripted_lm) == ("ours", "theirs")
            with dspy_trace.session(session_id="inner"):
                assert ask(scripted_lm) == ("inner", "inner")
    assert ask(scripted_lm) == (None, None)


def test_a_session_is_a_conversation() -> None:
    """Other instrumentations, which ask util-genai, find the session as the conversation, and none behind it."""
    with dspy_trace.session(session_id="ours"):
        assert genai.get_ambient_conversation_id() == "ours"
        with dspy_trace.session(user_id="me"):
            assert genai.get_ambient_conversation_id() == "ours"
    assert genai.get_ambient_conversation_id() is None


@pytest.mark.parametrize("key", [None, 3, "gone"])
def test_its_key_is_a_private_name(key: Any, scripted_lm: ScriptedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is gone, or is something else, the session is the conversation."""
    monkeypatch.setattr(genai, "CONVERSATION_ID_KEY", key)
    with dspy_trace.session(session_id="ours"):
        assert ask(scripted_lm) == ("ours", "ours")


def test_it_is_imported_for_nobody() -> None:
    """A program that does not use it does not load it for a session."""
    code = """
import sys
import dspy_trace
with dspy_trace.session(session_id="ours"):
    pass
assert not [name for name in sys.modules if name.startswith("opentelemetry.util.genai")]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class in_conversation:  # reads as a statement
    """Be in a conversation that util-genai was told of."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._token = context.attach(genai.with_conversation_id(self._name))

    def __exit__(self, *exc: object) -> None:
        context.detach(self._token)

"""LM calls in MLflow's chat tab: whatever a conversation holds, the tab appears and shows all of it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import dspy
import pytest
from dspy import lm15
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dspy_trace import facts
from dspy_trace.settings import LIMIT
from dspy_trace.values.jsonable import dumps
from dspy_trace.vocab.mlflow import MLflow
from tests.mlflow_beside import Copy, Row, rows
from tests.mlflow_page import Shown, chat, tools
from tests.parts.scripted_answers import Reply, in_turn
from tests.parts.scripted_lm import ScriptedLM

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PIXELS = b"\x89PNG" * 20
DATA = base64.b64encode(PIXELS).decode()
SHA256 = hashlib.sha256(PIXELS).hexdigest()


def look_up(place: str, kind: str | None = None) -> str:
    """Look a place up."""
    return f"{place} is an island."


@pytest.fixture
def copy() -> Iterator[Copy]:
    with rows() as made:
        yield made


def row_of(messages: Any, *outputs: Any, limit: int = LIMIT, **more: Any) -> Row:
    """Return the row of an LM call, as far as the chat tab reads it."""
    call = facts.LMCall("LM", "m", "openai", messages=messages, **more)
    spelling, capture = MLflow(limit).spellings[facts.LMCall], partial(dumps, limit=limit)
    told = {**spelling.at_call(call, capture)}
    call.outputs = list(outputs) or ["said"]
    told.update(spelling.at_end(call, capture))
    content = {"mlflow.spanInputs", "mlflow.spanOutputs", "mlflow.chat.tools"}
    assert all(len(told[key]) <= limit for key in content & told.keys())
    return {"attributes": {key: json.loads(value) if key in content else value for key, value in told.items()}}


def test_a_plain_conversation_has_dspys_form(scripted_lm: ScriptedLM, copy: Copy) -> None:
    """The page draws DSPy's field markers as headings where the format says so."""
    with dspy.context(lm=scripted_lm.lm()):
        dspy.Predict("question -> answer")(question="Where?")
    row = copy.one("chat gpt-4o-mini")
    assert row["attributes"]["mlflow.message.format"] == "dspy"
    system, user, assistant = chat(row) or ()
    assert (system.role, user.role, assistant.role) == ("system", "user", "assistant")
    assert user.content is not None and user.content.startswith("[[ ## question ## ]]\nWhere?")
    assert row["attributes"]["mlflow.spanOutputs"] == [assistant.content]


def test_tool_calls_and_their_results_are_shown(scripted_lm: ScriptedLM, copy: Copy) -> None:
    """An agent that calls tools natively: its tools, its calls, and in the next prompt the calls with their results."""
    scripted_lm.answer = in_turn(
        Reply(None, [{"name": "look_up", "arguments": {"place": "Oslo"}}]),
        Reply(None, [{"name": "submit", "arguments": {"answer": "there"}}]),
    )
    native = dspy.ChatAdapter(use_native_function_calling=True)
    with dspy.context(lm=scripted_lm.lm(), adapter=native):
        dspy.ReActV2("question -> answer", tools=[look_up], max_iters=3)(question="Where?")
    first, second = copy.named("chat gpt-4o-mini")
    assert sorted(tools(first) or ()) == ["look_up", "submit"]
    *_, call = chat(first) or ()
    assert [(name, json.loads(arguments)) for name, arguments in call.calls] == [("look_up", {"place": "Oslo"})]
    assert second["attributes"]["mlflow.message.format"] == "openai"
    told = chat(second) or []
    assert [json.loads(arguments) for shown in told for _, arguments in shown.calls] == [
        {"place": "Oslo"},
        {"answer": "there"},
    ]
    assert [shown.content for shown in told if shown.role == "tool"] == ["Oslo is an island."]
    (choice,) = second["attributes"]["mlflow.spanOutputs"]["choices"]
    assert choice["finish_reason"] in ("tool_calls", "tool_call")


def test_what_was_thought_is_shown_apart(scripted_lm: ScriptedLM, copy: Copy) -> None:
    """Reasoning stands above the answer."""
    scripted_lm.answer = lambda body: Reply("four", reasoning_content="two and two")
    scripted_lm.lm()("2 + 2?")
    assert chat(copy.one("chat gpt-4o-mini")) == [
        Shown("user", "2 + 2?"),
        Shown("assistant", "four", (), "two and two"),
    ]


def test_images_sound_and_files_are_told_without_their_bytes() -> None:
    """By type, size and SHA-256; an image with an address by its address, which the page loads."""
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}},
        {"type": "image_url", "image_url": {"url": "https://images.example/lamp.png"}},
        {"type": "image_url", "image_url": {"data": f"data:image/png;base64,{DATA}"}},
        {"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{DATA}"}},
        {"type": "file", "file": {"file_id": "file-7"}},
        {"type": "thought", "content": SimpleNamespace()},
        "bare",
    ]
    row = row_of([{"role": "user", "content": parts}])
    assert DATA[:24] not in json.dumps(row)
    user, _ = chat(row) or ()
    told = f"{len(PIXELS)} bytes, sha256 {SHA256}]"
    assert user.content == "\n\n".join(
        [
            "What is it?",
            f"[image/png: {told}",
            "![](https://images.example/lamp.png)",
            f"[image/png: {told}",
            f"[audio/wav: {told}",
            f"[application/pdf: {told}",
            "[file file-7]",
            '{"type":"thought","content":"<types.SimpleNamespace>"}',
            "bare",
        ]
    )


def test_an_explicit_requests_parts_are_shown(scripted_lm: ScriptedLM, copy: Copy) -> None:
    """A typed request's calls, results and thoughts."""
    request = lm15.Request(
        "openai/gpt-4o-mini",
        (
            lm15.Message("user", (lm15.TextPart("What is it?"), lm15.ImagePart(data=DATA))),
            lm15.Message("assistant", (lm15.ThinkingPart("hm"), lm15.ToolCallPart("c1", "look_up", {"place": "Oslo"}))),
            lm15.Message("tool", (lm15.ToolResultPart("c1", (lm15.TextPart("on the map"),)),)),
        ),
        "Be short.",
    )
    scripted_lm.lm()(request)
    row = copy.one("chat gpt-4o-mini")
    assert DATA[:24] not in json.dumps(row)
    assert (chat(row) or [])[:-1] == [
        Shown("system", "Be short."),
        Shown("user", f"What is it?\n\n[image/png: {len(PIXELS)} bytes, sha256 {SHA256}]"),
        Shown("assistant", "", (("look_up", '{"place":"Oslo"}'),), "hm"),
        Shown("tool", "on the map"),
    ]


@pytest.mark.parametrize(
    ("given_role", "shown"),
    [("developer", "system"), ("function", "tool"), ("model", "assistant"), ("narrator", "user"), (7, "user")],
)
def test_every_role_is_one_that_the_page_knows(given_role: Any, shown: str) -> None:
    """A role of a provider's own would take the tab away."""
    (first, _) = chat(row_of([{"role": given_role, "content": "hi"}])) or ()
    assert first == Shown(shown, "hi")


def test_a_plain_prompt_and_a_text_completion() -> None:
    """``lm("hi")``: what the user said."""
    row = row_of("hi", "one", "two", text_completion=True)
    assert row["attributes"]["mlflow.spanType"] == "LLM"
    assert chat(row) == [Shown("user", "hi"), Shown("assistant", "one\ntwo")]


def test_tools_in_any_form_are_listed() -> None:
    """Objects, flat definitions and properties of several types; what has no name is left out."""
    offered = [
        {
            "type": "function",
            "function": {"name": "a", "parameters": {"properties": {"x": {"type": ["string", "null"]}}}},
        },
        {"type": "function", "name": "b", "description": "B.", "parameters": {"properties": {"y": True}}},
        SimpleNamespace(name="c", description=None, parameters=None),
        {"type": "web_search"},
        "nonsense",
    ]
    row = row_of("hi", tools=offered)
    assert tools(row) == ["a", "b", "c"]
    first, *_ = row["attributes"]["mlflow.chat.tools"]
    assert first["function"]["parameters"]["properties"] == {"x": {"type": "string | null"}}


def test_a_long_conversation_is_shortened_message_by_message() -> None:
    """All messages are shown, the short ones whole: the question at the end is as wanted as what is above it."""
    long = [{"role": "user", "content": f"{index} " + 'line "x"\n' * 9_000} for index in range(6)]
    told = chat(row_of([{"role": "system", "content": "Be kind."}, *long, {"role": "user", "content": "Well?"}])) or []
    assert [told[0], told[-2], told[-1]] == [
        Shown("system", "Be kind."),
        Shown("user", "Well?"),
        Shown("assistant", "said"),
    ]
    middle = [shown.content or "" for shown in told[1:-2]]
    assert len(middle) == 6
    assert all(text.endswith("… [cut: 81002 characters in all]") and len(text) > 5_000 for text in middle)


def test_of_very_many_messages_the_first_and_the_last_are_shown() -> None:
    """More than fit even if each were nearly empty; how many are missing is said in place."""
    told = chat(row_of([{"role": "user", "content": str(index)} for index in range(5_000)])) or []
    assert (told[0].content, told[-2].content) == ("0", "4999")
    (note,) = [shown for shown in told if shown.role == "system"]
    assert note.content == f"[cut: {5_000 - (len(told) - 2)} more messages]"


SHORT = st.text(max_size=40)
TEXT = SHORT | st.sampled_from(["\x1b" * 9_000, "é" * 20_000, '"' * 12_000, "\ud800", "a\0b"])
CALL = st.fixed_dictionaries(
    {
        "id": SHORT | st.none(),
        "function": st.fixed_dictionaries(
            {"name": SHORT, "arguments": TEXT | st.dictionaries(SHORT, TEXT, max_size=2)}
        ),
    }
)
CALLS = st.lists(CALL, max_size=2)
CONTENT = TEXT | st.none() | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}), max_size=3)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": CONTENT},
    optional={"tool_calls": CALLS, "reasoning_content": TEXT, "tool_call_id": SHORT},
)
OUTPUT = TEXT | st.fixed_dictionaries({"text": TEXT | st.none()}, optional={"tool_calls": CALLS})


@settings(max_examples=100, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.lists(MESSAGE, min_size=1, max_size=8), st.lists(OUTPUT, min_size=1, max_size=3))
def test_any_conversation_has_a_chat_tab(messages: list[Any], outputs: list[Any]) -> None:
    """Whatever the texts, the tab shows every message, in order, and the attributes stay within the limit."""
    told = chat(row_of(messages, *outputs, limit=24_000))
    assert told is not None
    assert [shown.role for shown in told[: len(messages)]] == [message["role"] for message in messages]

"""What an LM span says of messages: tools and their calls, reasoning, and images without their bytes."""

from __future__ import annotations

import base64
import hashlib
import json
from types import SimpleNamespace
from typing import Any

import dspy
import pytest
from dspy import lm15
from opentelemetry.sdk.trace import ReadableSpan

from tests.balanced import balanced
from tests.parts.scripted_answers import Reply, fill, in_turn, last_role
from tests.parts.scripted_lm import ScriptedLM

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PIXELS = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
DATA = base64.b64encode(PIXELS).decode()
IMAGE = f"data:image/png;base64,{DATA}"
SHA256 = hashlib.sha256(PIXELS).hexdigest()


def look_up(place: str) -> str:
    """Look a place up."""
    return f"{place} is on the map"


def messages(span: ReadableSpan, side: str = "input") -> Any:
    return json.loads(span.attributes[f"gen_ai.{side}.messages"])


def test_a_plain_prompt_is_a_message_of_the_user(scripted_lm: ScriptedLM) -> None:
    """``lm("hi")`` and messages with plain text."""
    told = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}]
    with balanced(capture_content=True) as trace:
        scripted_lm.lm()("hi")
        scripted_lm.lm()(messages=told)
    plain, several = (messages(span) for span in trace.named("chat gpt-4o-mini"))
    user = {"role": "user", "parts": [{"type": "text", "content": "hi"}]}
    assert plain == [user]
    assert several == [{"role": "system", "parts": [{"type": "text", "content": "Be kind."}]}, user]


def test_tools_and_their_calls_are_told(scripted_lm: ScriptedLM) -> None:
    """The tools offered, the call that the model makes, and in the next prompt the call and its result."""
    scripted_lm.answer = lambda body: (
        fill(body) if last_role(body) == "tool" else Reply(None, [{"name": "look_up", "arguments": {"place": "Oslo"}}])
    )
    tool = {"type": "function", "function": {"name": "look_up", "description": "Look.", "parameters": {}}}
    call = {"id": "call_0", "type": "function", "function": {"name": "look_up", "arguments": '{"place": "Oslo"}'}}
    conversation = [
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_0", "content": "on the map"},
    ]
    lm = scripted_lm.lm()
    with balanced(capture_content=True) as trace:
        lm(messages=conversation[:1], tools=[tool])
        lm(messages=conversation, tools=[tool])
    first, second = trace.named("chat gpt-4o-mini")
    definitions = [{"type": "function", "name": "look_up", "description": "Look.", "parameters": {}}]
    assert json.loads(first.attributes["gen_ai.tool.definitions"]) == definitions
    assert first.attributes["gen_ai.response.finish_reasons"] in (("tool_calls",), ("tool_call",))
    (answer,) = messages(first, "output")
    (part,) = answer["parts"]
    assert (part["type"], part["name"], part["id"]) == ("tool_call", "look_up", "call_0")
    assert part["arguments"] in ({"place": "Oslo"}, '{"place": "Oslo"}', '{"place":"Oslo"}')
    _, assistant, result = messages(second)
    assert assistant["parts"][0]["arguments"] in ({"place": "Oslo"}, '{"place": "Oslo"}')
    assert result == {
        "role": "tool",
        "parts": [{"type": "tool_call_response", "id": "call_0", "response": "on the map"}],
    }


class Calls(dspy.BaseLM):
    """Answers as SDKs do: with objects for tool calls, and nothing to say beside them."""

    def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        call = SimpleNamespace(id="c1", function=SimpleNamespace(name="look_up", arguments='{"place": "Oslo"}'))
        message = SimpleNamespace(content=None, tool_calls=[call], reasoning_content=None)
        choice = SimpleNamespace(message=message, finish_reason="tool_calls")
        return SimpleNamespace(id="r1", model="calls", choices=[choice], usage={})


def test_tool_calls_that_are_objects_are_told() -> None:
    """LiteLLM and SDKs answer with objects instead of dictionaries."""
    with balanced(capture_content=True) as trace:
        Calls("own/calls")("Where?")
    arguments = '{"place": "Oslo"}'
    assert messages(trace.spans[0], "output") == [
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "c1", "name": "look_up", "arguments": arguments}],
            "finish_reason": "tool_calls",
        }
    ]


def test_an_agents_native_tool_calls_are_told(scripted_lm: ScriptedLM) -> None:
    """ReActV2 lets the model call tools itself; the tool is a span, ``submit`` is none."""
    agent = dspy.ReActV2("question -> answer", tools=[look_up], max_iters=3)
    scripted_lm.answer = in_turn(
        Reply(None, [{"name": "look_up", "arguments": {"place": "Oslo"}}]),
        Reply(None, [{"name": "submit", "arguments": {"answer": "there"}}]),
    )
    native = dspy.ChatAdapter(use_native_function_calling=True)
    with balanced(capture_content=True) as trace, dspy.context(lm=scripted_lm.lm(), adapter=native):
        assert agent(question="Where?").answer == "there"
    tree = trace.tree(events=False)
    assert tree.startswith("\ninvoke_agent ReActV2\n")
    assert tree.count("execute_tool") == 1
    chats = trace.named("chat gpt-4o-mini")
    names = {tool["name"] for tool in json.loads(chats[0].attributes["gen_ai.tool.definitions"])}
    assert names == {"look_up", "submit"}
    tool = trace.one("execute_tool look_up").attributes
    assert json.loads(tool["gen_ai.tool.call.arguments"]) == {"place": "Oslo"}
    assert tool["gen_ai.tool.call.result"] == '"Oslo is on the map"'
    assert (tool["gen_ai.tool.description"], tool["gen_ai.tool.type"]) == ("Look a place up.", "function")


def test_reasoning_is_told_apart_from_the_answer(scripted_lm: ScriptedLM) -> None:
    """What a reasoning model thought is a part of its own."""
    scripted_lm.answer = lambda body: Reply("four", reasoning_content="two and two")
    with balanced(capture_content=True) as trace:
        scripted_lm.lm()("2 + 2?")
    (answer,) = messages(trace.spans[0], "output")
    assert answer["parts"] == [{"type": "reasoning", "content": "two and two"}, {"type": "text", "content": "four"}]


def media(span: ReadableSpan) -> list[Any]:
    """Return the parts of the prompt that are no text."""
    return [part for message in messages(span) for part in message["parts"] if part["type"] != "text"]


def test_an_image_is_told_without_its_bytes(scripted_lm: ScriptedLM) -> None:
    """Of an image given as data, type, size and SHA-256; of one given by its address, the address."""
    see = dspy.Predict("image: dspy.Image, question -> answer")
    with balanced(capture_content=True, detail="full") as trace, dspy.context(lm=scripted_lm.lm()):
        see(image=dspy.Image(IMAGE), question="What is it?")
        see(image=dspy.Image("https://images.example/lamp.png"), question="What is it?")
    given, linked = trace.named("chat gpt-4o-mini")
    assert DATA in json.dumps(scripted_lm.requests[0].body)
    assert DATA[:24] not in "\n".join(span.to_json() for span in trace.spans)
    (part,) = media(given)
    told = {"mime_type": "image/png", "size": len(PIXELS), "sha256": SHA256}
    assert part == {"type": "blob", "modality": "image", **told}
    assert media(linked) == [{"type": "uri", "modality": "image", "uri": "https://images.example/lamp.png"}]


def test_sound_and_files_are_told_without_their_bytes(scripted_lm: ScriptedLM) -> None:
    """Audio and files in a prompt are told as an image is."""
    body = [
        {"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{DATA}"}},
        {"type": "text", "text": "What is this?"},
    ]
    with balanced(capture_content=True) as trace:
        scripted_lm.lm("litellm", model="openai/gpt-4o-audio-preview")(messages=[{"role": "user", "content": body}])
    (span,) = trace.spans
    assert DATA[:24] not in span.to_json()
    assert [part["modality"] for part in media(span)] == ["audio", "document"]
    assert span.attributes["gen_ai.input.messages"].count(SHA256) == 2


def test_an_explicit_requests_parts_are_told(scripted_lm: ScriptedLM) -> None:
    """A typed request has parts of its own kinds: images, calls and results, thoughts."""
    request = lm15.Request(
        "openai/gpt-4o-mini",
        (
            lm15.Message("user", (lm15.TextPart("What is it?"), lm15.ImagePart(data=DATA))),
            lm15.Message("assistant", (lm15.ThinkingPart("hm"), lm15.ToolCallPart("c1", "look_up", {"place": "Oslo"}))),
            lm15.Message("tool", (lm15.ToolResultPart("c1", (lm15.TextPart("on the map"),)),)),
        ),
        "Be short.",
    )
    with balanced(capture_content=True) as trace:
        scripted_lm.lm()(request)
    (span,) = trace.spans
    assert DATA[:24] not in span.to_json()
    assert SHA256 in span.attributes["gen_ai.input.messages"]
    system, user, assistant, tool = messages(span)
    assert system == {"role": "system", "parts": [{"type": "text", "content": "Be short."}]}
    assert [part["type"] for part in user["parts"]] == ["text", "blob"]
    assert assistant["parts"] == [
        {"type": "reasoning", "content": "hm"},
        {"type": "tool_call", "id": "c1", "name": "look_up", "arguments": {"place": "Oslo"}},
    ]
    assert tool["parts"] == [{"type": "tool_call_response", "id": "c1", "response": "on the map"}]

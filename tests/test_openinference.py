"""The second spelling, OpenInference's: what Phoenix and Arize read, beside that of the GenAI conventions."""

from __future__ import annotations

import json
from textwrap import dedent
from typing import Any

import dspy
import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits

from dspy_trace.testing import Recording, record
from dspy_trace.vocab.numbered import Numbered, spell
from tests.balanced import balanced, fresh_cache
from tests.parts import openinference
from tests.parts.scripted_answers import Reply, fill, in_turn, last_role
from tests.parts.scripted_lm import ScriptedLM
from tests.parts.scripted_wire import embedding

pytestmark = pytest.mark.filterwarnings("ignore:Passing OpenAI-style:DeprecationWarning")

BOTH = ("genai", "openinference")
FUNCTION = {"name": "look_up", "description": "Look.", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": FUNCTION}
DETAILED = {
    "prompt_tokens": 100,
    "completion_tokens": 40,
    "prompt_tokens_details": {"cached_tokens": 60},
    "completion_tokens_details": {"reasoning_tokens": 25},
}


def told(span: ReadableSpan) -> dict[str, Any]:
    """Return what a span says in OpenInference's words, checked."""
    assert list(openinference.problems(span)) == []
    return openinference.ours(span)


def one(trace: Recording, name: str = "chat gpt-4o-mini") -> dict[str, Any]:
    return told(trace.one(name))


def under(attributes: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {key[len(prefix) + 1 :]: value for key, value in attributes.items() if key.startswith(f"{prefix}.")}


def test_what_does_not_fit_is_left_out() -> None:
    """No key is half a message; the newest messages stay, and the first one tells how many others there were."""
    note = lambda count: {"role": "system", "content": f"{count} more"}  # noqa: E731
    messages = [{"role": "user", "content": str(number)} for number in range(10)]
    attributes: Any = {"other": 1, "m": Numbered(messages, note)}
    spell(attributes, 9, ["m"])
    assert {key: value for key, value in attributes.items() if key.endswith("content")} == {
        "m.0.content": "7 more",
        "m.1.content": "7",
        "m.2.content": "8",
        "m.3.content": "9",
    }
    assert len(attributes) == 9
    for most, left in ((1, 1), (2, 1), (3, 3), (21, 21), (99, 21), (0, 1), (-5, 1)):
        attributes = {"other": 1, "m": Numbered(messages, note)}
        spell(attributes, most, ["m"])
        assert len(attributes) == left


def test_an_lm_call(scripted_lm: ScriptedLM) -> None:
    """Model, provider, parameters, tokens, cost, messages with tool calls and results, tools."""
    scripted_lm.answer = lambda body: (
        Reply("four", reasoning_content="two and two", usage=DETAILED)
        if last_role(body) == "tool"
        else Reply(None, [{"name": "look_up", "arguments": {"place": "Oslo"}, "id": "call_7"}], usage=DETAILED)
    )
    lm = scripted_lm.lm(temperature=0.5, max_tokens=50)
    call = {"id": "call_7", "type": "function", "function": {"name": "look_up", "arguments": '{"place": "Oslo"}'}}
    conversation = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Where?"}, IMAGE]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_7", "content": "north"},
    ]
    with balanced(capture_content=True, conventions=BOTH) as trace:
        lm("Where?", tools=[TOOL])
        lm(messages=conversation, tools=[TOOL])
    asked, answered = (told(span) for span in trace.named("chat gpt-4o-mini"))
    assert under(asked, "llm.output_messages.0.message") == {
        "role": "assistant",
        "tool_calls.0.tool_call.id": "call_7",
        "tool_calls.0.tool_call.function.name": "look_up",
        "tool_calls.0.tool_call.function.arguments": '{"place": "Oslo"}',
    }
    assert json.loads(asked["llm.tools.0.tool.json_schema"]) == TOOL
    assert under(answered, "llm.input_messages") == CONVERSATION
    assert under(answered, "llm.output_messages.0.message") == {
        "role": "assistant",
        "contents.0.message_content.type": "reasoning",
        "contents.0.message_content.text": "two and two",
        "contents.1.message_content.type": "text",
        "contents.1.message_content.text": "four",
    }
    assert ANSWERED.items() <= answered.items()
    assert answered["llm.cost.total"] == lm.history[-1]["cost"]
    assert json.loads(answered["llm.invocation_parameters"]) == {"temperature": 0.5, "max_tokens": 50}


ANSWERED = {
    "openinference.span.kind": "LLM",
    "llm.model_name": "gpt-4o-mini",
    "llm.response.model_name": "gpt-4o-mini",
    "llm.provider": "openai",
    "llm.system": "openai",
    "llm.finish_reason": "stop",
    "llm.token_count.prompt": 100,
    "llm.token_count.completion": 40,
    "llm.token_count.total": 140,
    "llm.token_count.prompt_details.cache_read": 60,
    "llm.token_count.completion_details.reasoning": 25,
}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/lamp.png"}}
CONVERSATION = {
    "0.message.role": "system",
    "0.message.content": "Be kind.",
    "1.message.role": "user",
    "1.message.contents.0.message_content.type": "text",
    "1.message.contents.0.message_content.text": "Where?",
    "1.message.contents.1.message_content.type": "image",
    "1.message.contents.1.message_content.image.image.url": "https://example.org/lamp.png",
    "2.message.role": "assistant",
    "2.message.tool_calls.0.tool_call.id": "call_7",
    "2.message.tool_calls.0.tool_call.function.name": "look_up",
    "2.message.tool_calls.0.tool_call.function.arguments": '{"place": "Oslo"}',
    "3.message.role": "tool",
    "3.message.content": "north",
    "3.message.tool_call_id": "call_7",
}


def look_up(place: str) -> str:
    """Look it up."""
    return "north"


class Program(dspy.Module):
    """Searches, and acts."""

    def __init__(self) -> None:
        super().__init__()
        embedder = dspy.Embedder(lambda texts: [embedding(text) for text in texts])
        self.search = dspy.retrievers.EmbeddingsWithScores(["a lamp", "a desk"], embedder, k=1)
        self.agent = dspy.ReAct("question -> answer", tools=[look_up])

    def forward(self, question: str) -> dspy.Prediction:
        self.search(question)
        return self.agent(question=question)


def act(name: str, **arguments: Any) -> Any:
    return lambda body: fill(body, next_tool_name=name, next_tool_args=arguments)


def test_a_program(scripted_lm: ScriptedLM) -> None:
    """Every span has its kind; the agent, the tool, the passages and the texts are told."""
    scripted_lm.answer = in_turn(act("look_up", place="Oslo"), act("finish"), then=fill)
    with balanced(capture_content=True, conventions=BOTH, detail="full") as trace, dspy.context(lm=scripted_lm.lm()):
        program = Program()
        trace.clear()
        program(question="a lamp")
    kinds = trace.tree("openinference.span.kind").replace("openinference.span.kind=", "")
    assert kinds.startswith(TREE)
    assert one(trace, "invoke_agent agent")["agent.name"] == "agent"
    tool = one(trace, "execute_tool look_up")
    assert under(tool, "tool") == {
        "name": "look_up",
        "description": "Look it up.",
        "parameters": '{"place":{"type":"string"}}',
    }
    assert (tool["input.value"], tool["output.value"]) == ('{"place":"Oslo"}', '"north"')
    search = one(trace, "retrieval EmbeddingsWithScores")
    assert (search["input.value"], search["input.mime_type"]) == ("a lamp", "text/plain")
    assert under(search, "retrieval.documents.0.document") == {
        "id": "0",
        "content": "a lamp",
        "score": pytest.approx(1.0),
    }
    assert one(trace, "embeddings <lambda>")["embedding.embeddings.0.embedding.text"] == "a lamp"


TREE = dedent("""
    invoke_workflow Program 'CHAIN'
      retrieval EmbeddingsWithScores 'RETRIEVER'
        embeddings <lambda> 'EMBEDDING'
      invoke_agent agent 'AGENT'
        Predict agent.react 'CHAIN'
          ChatAdapter.format 'PROMPT'
          chat gpt-4o-mini 'LLM'
          ChatAdapter.parse 'CHAIN'
        execute_tool look_up 'TOOL'
    """)


def test_a_cache_hit_costs_nothing(scripted_lm: ScriptedLM) -> None:
    """Neither tokens nor cost, or a sum over spans would count them twice."""
    lm = scripted_lm.lm(cache=True)
    with fresh_cache(), record(conventions=BOTH) as trace:
        lm("once")
        lm("once")
    first, second = (told(span) for span in trace.named("chat gpt-4o-mini"))
    assert first["llm.token_count.total"] > 0 < first["llm.cost.total"]
    assert not [key for key in second if ".token_count." in key or ".cost." in key]


@pytest.mark.parametrize("most", [128, 60, 50])
def test_the_newest_messages_have_room(scripted_lm: ScriptedLM, most: int) -> None:
    """Nothing is dropped by the SDK, which would drop what came first: a conversation takes what is left."""
    conversation = [{"role": "user", "content": f"message {number}"} for number in range(500)]
    tools = [{"type": "function", "function": {**FUNCTION, "name": f"look_{number}"}} for number in range(50)]
    limits = SpanLimits(max_span_attributes=most)
    with record(capture_content=True, conventions=BOTH, limits=limits) as trace:
        scripted_lm.lm()(messages=conversation, tools=tools)
    span = trace.one("chat gpt-4o-mini")
    attributes = told(span)
    assert (span.dropped_attributes, len(span.attributes) <= most) == (0, True)
    contents = [value for key, value in attributes.items() if key.startswith("llm.input") and key.endswith("content")]
    assert contents[-1] == "message 499"
    assert contents[1] == f"message {501 - len(contents)}"
    assert contents[0] == f"[cut: {501 - len(contents)} more messages]"
    assert attributes["llm.output_messages.0.message.role"] == "assistant"
    assert span.attributes["gen_ai.operation.name"] == "chat"


def test_no_limit_is_a_limit_all_the_same(scripted_lm: ScriptedLM) -> None:
    """Where the SDK has none, a span has a thousand attributes at most."""
    conversation = [{"role": "user", "content": f"message {number}"} for number in range(2_000)]
    limits = SpanLimits(max_span_attributes=SpanLimits.UNSET)
    with record(capture_content=True, conventions=BOTH, limits=limits) as trace:
        scripted_lm.lm()(messages=conversation)
    assert 500 < len(trace.spans[0].attributes) <= 1_024


CONTENT = ("message", ".value", "mime_type", "document.", "embedding.text", "json_schema", "tool.parameters")


def test_without_content_there_is_none(scripted_lm: ScriptedLM) -> None:
    """With content off, kinds, names, counts and parameters are told and nothing that was said."""
    scripted_lm.answer = in_turn(act("look_up", place="Oslo"), act("finish"), then=fill)
    with balanced(conventions=BOTH, detail="full") as trace, dspy.context(lm=scripted_lm.lm()):
        Program()(question="a lamp")
    keys = {key for span in trace.spans for key in told(span)}
    assert not [key for key in keys if any(word in key for word in CONTENT)]
    assert {"openinference.span.kind", "llm.token_count.total", "tool.name", "embedding.model_name"} <= keys

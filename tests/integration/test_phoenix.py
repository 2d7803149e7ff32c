"""What Phoenix understands of our traces in OpenInference's words, read back from a real one."""

from __future__ import annotations

import json
from typing import Any

import dspy
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

import dspy_trace
from dspy_trace.instrumentor import DSPyInstrumentor
from tests.parts.browser import see
from tests.parts.phoenix import Phoenix, phoenix, tree  # noqa: F401  # a fixture
from tests.parts.project import until
from tests.parts.scripted_answers import Body, Reply, fill
from tests.parts.scripted_lm import ScriptedLM
from tests.parts.scripted_wire import embedding

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

USAGE = {"prompt_tokens": 100, "completion_tokens": 40, "prompt_tokens_details": {"cached_tokens": 60}}
PASSAGES = ["The desk opens at nine.", "Lamps are in the cellar."]

TREE = """
chain invoke_workflow Desk !
  retriever retrieval EmbeddingsWithScores
    embedding embeddings <lambda>
  agent invoke_agent agent
    chain Predict agent.react
      llm chat gpt-4o-mini
    tool execute_tool look_up
    chain Predict agent.react
      llm chat gpt-4o-mini
  chain ChainOfThought answer
    chain Predict answer.predict
      llm chat gpt-4o-mini
"""


def look_up(city: str) -> str:
    """Look up the weather."""
    return "rain"


class Desk(dspy.Module):
    """Retrieves, acts, answers, and fails in the end."""

    def __init__(self) -> None:
        super().__init__()
        embedder = dspy.Embedder(lambda texts: [embedding(text) for text in texts])
        self.search = dspy.retrievers.EmbeddingsWithScores(PASSAGES, embedder, k=2)
        self.agent = dspy.ReActV2("question -> answer", tools=[look_up], max_iters=3)
        self.answer = dspy.ChainOfThought("context, question -> answer")

    def forward(self, question: str) -> None:
        passages = self.search(question).passages
        self.agent(question=question)
        self.answer(context=passages, question=question)
        raise LookupError("the desk is closed")


def answer(body: Body) -> Reply:
    """Call the tool, submit what it says, and answer anything else."""
    if not body.get("tools"):
        return Reply(fill(body, answer="At nine."), usage=USAGE, reasoning_content="It is a desk.")
    if any(message["role"] == "tool" for message in body["messages"]):
        return Reply(None, [{"name": "submit", "arguments": {"answer": "rain"}, "id": "call_2"}], usage=USAGE)
    return Reply(None, [{"name": "look_up", "arguments": {"city": "Oslo"}, "id": "call_1"}], usage=USAGE)


def run(phoenix: Phoenix, server: ScriptedLM, project: str) -> list[dict[str, Any]]:
    """Run the program in a session, traced into a project of Phoenix's; return the history of its LM.

    A session belongs to one project only.
    """
    provider = TracerProvider(resource=Resource({"openinference.project.name": project}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(phoenix.traces)))
    server.answer = answer
    desk, lm = Desk(), server.lm(temperature=0.5)
    DSPyInstrumentor().instrument(
        tracer_provider=provider, capture_content=True, conventions={"genai", "openinference"}
    )
    try:
        with (
            dspy.context(lm=lm, adapter=dspy.ChatAdapter(use_native_function_calling=True)),
            dspy_trace.session(session_id=f"of {project}", user_id="me", metadata={"team": "blue"}),
            pytest.raises(LookupError),
        ):
            desk(question="When does it open?")
    finally:
        DSPyInstrumentor().uninstrument()
    history: list[dict[str, Any]] = lm.history
    return history


def test_phoenix_shows_everything(phoenix: Phoenix, scripted_lm: ScriptedLM) -> None:
    """Kinds, chats, tools and their calls, documents, tokens, cost, session, user and errors are where it looks."""
    history = run(phoenix, scripted_lm, "everything")
    until(lambda: _spans(phoenix.sessions("everything")) == TREE.count("\n") - 1, 60)
    (session,) = phoenix.sessions("everything")
    (trace,) = session["traces"]
    assert tree(trace) == TREE
    spans = {span["name"].partition(" ")[0]: span for span in reversed(trace["spans"])}
    by_start = sorted(trace["spans"], key=lambda span: str(span["startTime"]))
    chats = [span for span in by_start if span["spanKind"] == "llm"]
    assert (session["sessionId"], session["userId"]) == ("of everything", "me")
    assert session["tokenUsage"] == {"prompt": 300, "completion": 120}
    assert trace["costSummary"]["total"]["cost"] == pytest.approx(sum(entry["cost"] for entry in history))
    assert {span["metadata"] for span in by_start} == {'{"team": "blue"}'}
    assert spans["invoke_workflow"]["cumulativeTokenCountTotal"] == 420
    assert spans["invoke_workflow"]["events"] == [{"name": "exception", "message": "the desk is closed"}]
    assert (spans["invoke_workflow"]["input"], spans["execute_tool"]["output"]) == (
        {"value": '{"question":"When does it open?"}', "mimeType": "json"},
        {"value": '"rain"', "mimeType": "json"},
    )
    check_retrieval(spans["retrieval"])
    check_tool(json.loads(spans["execute_tool"]["attributes"]))
    check_chats(chats, history)


def test_what_a_person_sees(phoenix: Phoenix, scripted_lm: ScriptedLM) -> None:
    """Phoenix's page shows the tree, tokens and cost; passages, what a tool was given and said, and the chat."""
    run(phoenix, scripted_lm, "page")
    until(lambda: _spans(phoenix.sessions("page")) == TREE.count("\n") - 1, 60)
    (session,) = phoenix.sessions("page")
    (trace,) = session["traces"]
    names = [line.split(maxsplit=1)[1].removesuffix(" !") for line in TREE.split("\n")[1:-1]]
    shown, asked = "View Session", "When does it open?"
    failed = [shown, *names, "LookupError: the desk is closed", asked, '"team": "blue"']
    found = ["Input", asked, "Output", "document 0", "score", "document 1", "score"]
    used = ["Input", '"city": "Oslo"', "Output", '"rain"', "Description", "Look up the weather."]
    said = ["gpt-4o-mini", "temperature: 0.5", "system", "user", asked]
    called = ["assistant", "Tool Call: call_1", "look_up", '"city": "Oslo"']
    steps = [
        (None, [failed, [shown, *["chat gpt-4o-mini", "140", "$0.01"] * 3]]),
        ("retrieval EmbeddingsWithScores", [[shown, *found], *([one] for one in PASSAGES)]),
        ("execute_tool look_up", [[shown, *used]]),
        ("chat gpt-4o-mini", [[shown, *said, *called], [shown, "2 tools"]]),
    ]
    see(phoenix.page(trace["traceId"]), steps)


def _spans(sessions: list[dict[str, Any]]) -> int:
    return sum(len(trace["spans"]) for session in sessions for trace in session["traces"])


def check_retrieval(span: dict[str, Any]) -> None:
    """The query is a text, and the passages are documents with scores."""
    documents = [one["document"] for one in json.loads(span["attributes"])["retrieval"]["documents"]]
    assert span["input"] == {"value": "When does it open?", "mimeType": "text"}
    assert span["numDocuments"] == 2
    assert {one["content"] for one in documents} == set(PASSAGES)
    assert all(type(one["score"]) is float for one in documents)


def check_tool(told: dict[str, Any]) -> None:
    """The tool is described beside its call."""
    assert told["tool"] == {
        "name": "look_up",
        "description": "Look up the weather.",
        "parameters": {"city": {"type": "string"}},
    }


def check_chats(chats: list[dict[str, Any]], history: list[dict[str, Any]]) -> None:
    """Each call has its messages, model, parameters, tokens and DSPy's cost, tool calls by their ids."""
    first, second, third = (json.loads(span["attributes"])["llm"] for span in chats)
    for span, told, entry in zip(chats, (first, second, third), history, strict=True):
        assert (span["tokenCountPrompt"], span["tokenCountCompletion"]) == (100, 40)
        assert span["tokenPromptDetails"] == {"cacheRead": 60}
        assert span["costSummary"]["total"]["cost"] == pytest.approx(entry["cost"])
        assert (told["model_name"], told["provider"]) == ("gpt-4o-mini", "openai")
        assert json.loads(told["invocation_parameters"]) == {"temperature": 0.5}
        assert [one["message"]["role"] for one in told["input_messages"]][:2] == ["system", "user"]
    call = {"id": "call_1", "function": {"name": "look_up", "arguments": '{"city": "Oslo"}'}}
    assert first["output_messages"] == [{"message": {"role": "assistant", "tool_calls": [{"tool_call": call}]}}]
    names = [json.loads(one["tool"]["json_schema"])["function"]["name"] for one in first["tools"]]
    assert names == ["look_up", "submit"]
    messages = [one["message"] for one in second["input_messages"]]
    asked = next(one for one in messages if "tool_calls" in one)
    answered = messages[messages.index(asked) + 1]
    assert (asked["tool_calls"][0]["tool_call"]["id"], answered["tool_call_id"]) == ("call_1", "call_1")
    assert (answered["role"], answered["content"]) == ("tool", "rain")
    reasoning, text = (one["message_content"] for one in third["output_messages"][0]["message"]["contents"])
    assert reasoning == {"type": "reasoning", "text": "It is a desk."}
    assert "At nine." in text["text"]

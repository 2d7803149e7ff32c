"""What travels to MLflow beside the spans of DSPy programs, asserted as the rows that become of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import dspy
import pytest
from dspy import lm15
from dspy.utils import DummyLM

from dspy_trace import facts
from dspy_trace.sessions import session
from dspy_trace.vocab.genai import GenAI
from dspy_trace.vocab.mlflow import MLflow
from tests.balanced import fresh_cache
from tests.mlflow_beside import Copy, Row, rows
from tests.mlflow_page import documents, preview
from tests.parts.scripted_answers import Body, Reply, fill, input_words, output_fields, prompt_text
from tests.parts.scripted_lm import ScriptedLM


def look_up(place: str) -> str:
    """Look a place up."""
    if place == "Atlantis":
        raise LookupError("not on the map")
    return f"{place} is an island."


def answer(body: Body) -> Reply | str:
    """Look Crete up, then answer; garble what is asked to be garbled."""
    if "next_tool_name" in output_fields(body):
        name = "finish" if "observation_0" in prompt_text(body) else "look_up"
        place = "Atlantis" if "Atlantis" in prompt_text(body) else "Crete"
        return fill(body, next_tool_name=name, next_tool_args={} if name == "finish" else {"place": place})
    if "refused" in input_words(body, 20):
        return Reply("no", status=400)
    return fill(body, answer="In the sea.") if "answer" in output_fields(body) else fill(body)


@pytest.fixture(autouse=True)
def _answers(scripted_lm: ScriptedLM) -> None:
    scripted_lm.answer = answer


def embed(texts: list[str]) -> list[list[float]]:
    return [[1.0]] * len(texts)


class Guide(dspy.Module):
    """Looks for a passage, and asks an agent."""

    def __init__(self) -> None:
        super().__init__()
        self.passages = dspy.Embeddings(["Crete is long.", "Malta is small."], dspy.Embedder(embed), k=1)
        self.agent = dspy.ReAct("question -> answer", tools=[look_up])

    def forward(self, question: str) -> dspy.Prediction:
        self.passages(question)
        return self.agent(question=question)


def types(copy: Copy) -> list[tuple[str, str, int]]:
    """Return name, type and level of every span, in order of start."""
    told = sorted(copy.rows, key=lambda row: int(row["start"]))
    return [
        (row["name"], row["attributes"]["mlflow.spanType"], row["attributes"]["mlflow.spanLogLevel"]) for row in told
    ]


def io(row: Row) -> tuple[Any, Any]:
    return row["attributes"].get("mlflow.spanInputs"), row["attributes"].get("mlflow.spanOutputs")


def test_every_kind_of_call_is_spelled() -> None:
    """Whatever becomes a span has a type in MLflow."""
    assert MLflow().spellings.keys() == GenAI().spellings.keys()


def test_an_agent_with_a_retriever(scripted_lm: ScriptedLM) -> None:
    """Each span has the type, level, inputs and outputs that MLflow's page draws it by."""
    with dspy.context(lm=scripted_lm.lm()):
        guide = Guide()
        with rows() as copy:
            guide(question="Where is Crete?")
    assert types(copy) == [
        ("invoke_workflow Guide", "CHAIN", 20),
        ("retrieval Embeddings", "RETRIEVER", 20),
        ("embeddings embed", "EMBEDDING", 20),
        ("invoke_agent agent", "AGENT", 20),
        ("Predict agent.react", "LLM", 20),
        ("chat gpt-4o-mini", "CHAT_MODEL", 20),
        ("execute_tool look_up", "TOOL", 20),
        ("Predict agent.react", "LLM", 20),
        ("chat gpt-4o-mini", "CHAT_MODEL", 20),
        ("ChainOfThought agent.extract", "CHAIN", 10),
        ("Predict agent.extract.predict", "LLM", 20),
        ("chat gpt-4o-mini", "CHAT_MODEL", 20),
    ]
    assert io(copy.one("execute_tool look_up")) == ({"place": "Crete"}, "Crete is an island.")
    retrieval = copy.one("retrieval Embeddings")
    assert documents(retrieval) == ["Crete is long."]
    assert io(retrieval) == (
        {"query": "Where is Crete?", "k": 1},
        [{"page_content": "Crete is long.", "metadata": {"chunk_id": "0"}, "id": "0"}],
    )
    assert io(copy.one("embeddings embed"))[0] == {"inputs": ["Where is Crete?"]}


def test_the_list_of_traces(scripted_lm: ScriptedLM) -> None:
    """A trace is named by its program's class; request and response are its inputs and outputs, the answer first."""
    with dspy.context(lm=scripted_lm.lm()):
        guide = Guide()
        with rows() as copy:
            guide(question="Where is Crete?")
    root = copy.root()
    assert root["attributes"]["mlflow.traceTag.mlflow.traceName"] == "Guide"
    assert [row["name"] for row in copy.rows if "mlflow.traceTag.mlflow.traceName" in row["attributes"]] == [
        root["name"]
    ]
    asked, said = io(root)
    assert preview(asked, "user") == '{"question": "Where is Crete?"}'
    assert list(said) == ["reasoning", "answer", "trajectory"]


def test_tokens_and_cost_are_on_lm_spans_alone(scripted_lm: ScriptedLM) -> None:
    """Usage on any other span would hide that of all spans beneath it from MLflow's sums."""
    with rows() as copy, dspy.context(lm=scripted_lm.lm()):
        dspy.ChainOfThought("question -> answer")(question="Where?")
    chat = copy.one("chat gpt-4o-mini")["attributes"]
    reported = scripted_lm.reported
    usage = {"input_tokens": reported.input_tokens, "output_tokens": reported.output_tokens}
    assert chat["mlflow.chat.tokenUsage"] == {**usage, "total_tokens": sum(usage.values())}
    assert chat["mlflow.llm.cost"]["total_cost"] == chat["dspy.lm.cost"] > 0
    assert (chat["mlflow.llm.model"], chat["mlflow.llm.provider"]) == ("gpt-4o-mini", "openai")
    for row in copy.rows:
        assert ("mlflow.chat.tokenUsage" in row["attributes"]) == (row["name"] == "chat gpt-4o-mini")


def test_an_answer_from_the_cache_costs_nothing(scripted_lm: ScriptedLM) -> None:
    """Neither tokens nor cost, and nothing that MLflow could make them from."""
    with fresh_cache(), rows() as copy:
        lm = scripted_lm.lm(cache=True)
        lm("hi")
        lm("hi")
    _, hit = copy.named("chat gpt-4o-mini")
    assert hit["attributes"]["dspy.lm.cache_hit"] is True
    assert not [key for key in hit["attributes"] if "usage" in key.lower() or "cost" in key]


def test_a_call_that_only_passes_another_on_has_no_usage(scripted_lm: ScriptedLM) -> None:
    """A router reports the usage of the LM that it chose again: MLflow must see it once, where it was."""

    class Router:
        def complete(self, request: lm15.Request) -> lm15.Response:
            chosen = scripted_lm.lm()
            return chosen(replace(request, model=chosen.model))

        def close(self) -> None:
            pass

    with rows() as copy, dspy.context(lm=dspy.LM("acme/router", engine=Router(), cache=False)):
        dspy.Predict("question -> answer")(question="Where?")
    router, chosen = copy.one("chat router")["attributes"], copy.one("chat gpt-4o-mini")["attributes"]
    assert chosen["mlflow.chat.tokenUsage"]["input_tokens"] == scripted_lm.reported.input_tokens
    assert not [key for key in router if "tokenUsage" in key or "tokens" in key or key == "mlflow.llm.cost"]


def test_a_failure_is_told_with_its_text(scripted_lm: ScriptedLM) -> None:
    """Exception text is content: it stands on MLflow's copy, though not on the span; the level says that it failed."""
    with rows() as copy, dspy.context(lm=scripted_lm.lm()), pytest.raises(Exception, match="no"):
        dspy.Predict("question -> answer")(question="refused")
    chat, root = copy.one("chat gpt-4o-mini"), copy.root()
    for row in (chat, root):
        assert row["status"] == "ERROR"
        assert row["attributes"]["mlflow.spanLogLevel"] == 40
        (event,) = row["events"]
        assert event["name"] == "exception"
        assert (
            row["message"]
            == f"{event['attributes']['exception.type'].rpartition('.')[2]}: "
            + (event["attributes"]["exception.message"])
        )
        assert "mlflow.spanOutputs" not in row["attributes"]
    assert "Traceback" in chat["events"][0]["attributes"]["exception.stacktrace"]
    assert not [key for key in chat["attributes"] if key.startswith("exception.")]


def test_a_tool_that_fails(scripted_lm: ScriptedLM) -> None:
    """The agent goes on; the tool's span has failed, with its arguments and what went wrong."""
    with rows() as copy, dspy.context(lm=scripted_lm.lm()):
        dspy.ReAct("question -> answer", tools=[look_up])(question="Where is Atlantis?")
    tool = copy.one("execute_tool look_up")
    assert (tool["status"], tool["message"]) == ("ERROR", "LookupError: not on the map")
    assert io(tool) == ({"place": "Atlantis"}, None)
    assert copy.root()["status"] == "OK"


def test_no_content_means_none_anywhere(scripted_lm: ScriptedLM) -> None:
    """With content refused nothing of what was said is told; names, types, models and tokens are."""
    with rows(capture_content=False) as copy, dspy.context(lm=scripted_lm.lm()):
        dspy.ReAct("question -> answer", tools=[look_up])(question="Where is Crete or Atlantis?")
        with pytest.raises(Exception, match="no"):
            dspy.Predict("question -> answer")(question="refused")
    told = json.dumps(copy.rows)
    assert not [word for word in ("Crete", "Atlantis", "island", "sea", "refused", "not on the map") if word in told]
    chats = [row["attributes"] for row in copy.named("chat gpt-4o-mini")]
    assert {chat["mlflow.spanType"] for chat in chats} == {"CHAT_MODEL"}
    assert all(chat["mlflow.chat.tokenUsage"]["total_tokens"] for chat in chats[:-1])
    failed = copy.named("chat gpt-4o-mini")[-1]
    assert failed["events"][0]["attributes"].keys() == {"exception.type"}
    assert failed["message"] and "no" not in failed["message"].split(": ")[-1].lower().split()


def test_content_on_spans_is_stored_once(scripted_lm: ScriptedLM) -> None:
    """Where the program has content on its spans too, MLflow's copy has it in MLflow's form alone."""
    with rows(capture_content=True) as copy, dspy.context(lm=scripted_lm.lm()):
        dspy.ReAct("question -> answer", tools=[look_up])(question="Where is Crete?")
    for row in copy.rows:
        doubled = ("input.", "output.", "gen_ai.input", "gen_ai.output.messages", "gen_ai.tool.call")
        assert not [key for key in row["attributes"] if key.startswith(doubled)]
        assert "mlflow.spanInputs" in row["attributes"]


def test_what_redact_hides_stays_hidden(scripted_lm: ScriptedLM) -> None:
    """Every captured value goes through ``redact``, messages and exception texts included."""

    def hide(value: Any) -> Any:
        return json.loads(json.dumps(value).replace("Crete", "***"))

    with rows(redact=hide) as copy, dspy.context(lm=scripted_lm.lm()):
        dspy.ReAct("question -> answer", tools=[look_up])(question="Where is Crete?")
    told = json.dumps(copy.rows)
    assert "***" in told
    assert "Crete" not in told


def test_sessions(scripted_lm: ScriptedLM) -> None:
    """Session and user are on each span; tags go to the root, metadata to what is said of the trace."""
    told = {"tags": {"env": "prod"}, "metadata": {"release": 7, "who": {"a": 1}}}
    with rows() as copy, dspy.context(lm=scripted_lm.lm()), session(session_id="chat-1", user_id="ada", **told):
        dspy.Predict("question -> answer")(question="Where?")
    assert {(row["attributes"]["session.id"], row["attributes"]["user.id"]) for row in copy.rows} == {("chat-1", "ada")}
    (trace,) = copy.facts.values()
    assert trace.info({})["metadata"] == {"release": "7", "who": '{"a":1}'}
    tags = [{key: value for key, value in row["attributes"].items() if "traceTag.env" in key} for row in copy.rows]
    assert tags == [{}, {"mlflow.traceTag.env": "prod"}]
    assert "traceMetadata" not in json.dumps(copy.rows)


def test_an_example_of_an_evaluation_looks_like_a_call_of_the_program() -> None:
    """Its trace has the program's name, the example and the prediction, and the score as an assessment."""
    lm = DummyLM([{"answer": "four"}, {"answer": "five"}])
    devset = [dspy.Example(question="2+2?", answer="four").with_inputs("question") for _ in range(2)]

    def exact(example: Any, prediction: Any, trace: Any = None) -> bool:
        return bool(example.answer == prediction.answer)

    with rows() as copy, dspy.context(lm=lm):
        dspy.Evaluate(devset=devset, metric=exact, num_threads=1)(dspy.Predict("question -> answer"))
    evaluation = copy.one("evaluate Predict")
    assert io(evaluation) == ({"program": "Predict", "metric": "exact", "examples": 2}, {"score": 50.0})
    assert evaluation["attributes"]["mlflow.spanType"] == "EVALUATOR"
    first, second = copy.named("evaluate_example Predict")
    assert io(first) == ({"question": "2+2?", "answer": "four"}, {"answer": "four"})
    assert first["attributes"]["mlflow.traceTag.mlflow.traceName"] == "Predict"
    scores = [copy.facts[int(row["trace_id"], 16)].info({})["assessments"] for row in (first, second)]
    assert [[(one["name"], one["value"], one["source_type"]) for one in told] for told in scores] == [
        [("exact", 1.0, "CODE")],
        [("exact", 0.0, "CODE")],
    ]


def test_decisions_are_drawn_as_questions_with_answers() -> None:
    """The page knows the decision LM's form by its provider."""
    call = facts.DecisionCall(
        "TypeSafe", "jev", "typesafe", state={"ticket": 1}, questions={"urgent": {"type": "noul"}}
    )
    call.answers, call.input_tokens, call.output_tokens = {"urgent": {"type": "noul", "noul": 0.9}}, 20, 2
    spelling, capture = MLflow().spellings[facts.DecisionCall], json.dumps
    told = {**spelling.at_call(call, capture), **spelling.at_end(call, capture)}
    assert told["mlflow.message.format"] == told["mlflow.llm.provider"] == "typesafe"
    assert json.loads(told["mlflow.spanInputs"]) == {"state": {"ticket": 1}, "questions": {"urgent": {"type": "noul"}}}
    assert json.loads(told["mlflow.spanOutputs"]) == {"answers": {"urgent": {"type": "noul", "noul": 0.9}}}
    assert told["mlflow.chat.tokenUsage"] == {"input_tokens": 20, "output_tokens": 2, "total_tokens": 22}

"""The same rows in a database of MLflow's and on its server: both are read back the same, and as they were made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dspy
import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event
from opentelemetry.trace import Link, SpanContext, Status, StatusCode

from dspy_trace.commands.page import address_of
from dspy_trace.export.mlflow import TraceFacts
from dspy_trace.sessions import session
from tests import busy
from tests.balanced import fresh_cache
from tests.mlflow_beside import Copy, rows
from tests.mlflow_page import chat, documents, preview, tools
from tests.mlflow_spans import made, span
from tests.parts.browser import see
from tests.parts.mlflow_server import ROOT, MlflowServer, Reader, environment
from tests.parts.scripted_answers import Body, Reply, fill, output_fields, prompt_text
from tests.parts.scripted_lm import ScriptedLM

pytestmark = pytest.mark.integration

Row = dict[str, Any]
NAME = "mlflow.traceName"


def look_up(place: str) -> str:
    """Look a place up."""
    return f'["{place}", "is an island"]'


def answer(body: Body) -> Reply | str:
    """Call tools as the prompt or the request offers them; fail where asked to."""
    prompt = prompt_text(body)
    if "refused" in prompt:
        return Reply("no", status=400)
    if body.get("tools"):
        called = any(message["role"] == "tool" for message in body["messages"])
        name, arguments = ("submit", {"answer": "there"}) if called else ("look_up", {"place": "Malta"})
        return Reply(None, [{"name": name, "arguments": arguments}])
    if "next_tool_name" in output_fields(body):
        name = "finish" if "observation_0" in prompt else "look_up"
        return fill(body, next_tool_name=name, next_tool_args={} if name == "finish" else {"place": "Crete"})
    return fill(body)


def embed(texts: list[str]) -> list[list[float]]:
    return [[1.0]] * len(texts)


class Guide(dspy.Module):
    """Looks for a passage, and asks an agent."""

    def __init__(self) -> None:
        super().__init__()
        self.passages = dspy.Embeddings(["Crete is long.", "Malta is small."], dspy.Embedder(embed), k=2)
        self.agent = dspy.ReAct("question -> answer", tools=[look_up])

    def forward(self, question: str) -> dspy.Prediction:
        self.passages(question)
        return self.agent(question=question)


def run(server: ScriptedLM) -> Copy:
    """Run the programs whose traces are stored."""
    server.answer = answer
    native = dspy.ChatAdapter(use_native_function_calling=True)
    with dspy.context(lm=server.lm(cache=False)), session(session_id="chat-1", user_id="ada"):
        guide = Guide()
        with rows() as copy:
            with session(tags={"env": "prod"}, metadata={"release": "7"}):
                guide(question="Where is Crete? — «где»")
            with dspy.context(adapter=native):
                dspy.ReActV2("question -> answer", tools=[look_up])(question="Where is Malta?")
            with pytest.raises(Exception, match="no"):
                dspy.Predict("question -> answer")(question="refused")
            devset = [dspy.Example(question="2+2?", answer="four").with_inputs("question")]
            dspy.Evaluate(devset=devset, metric=exact)(dspy.Predict("question -> answer"))
            with fresh_cache():
                busy.run(server, times=2)
    return copy


def exact(example: Any, prediction: Any, trace: Any = None) -> bool:
    return bool(example.answer == prediction.answer)


def odd_rows() -> list[Row]:
    """Return a request of the application's with a program in it, and attributes of every odd kind."""
    texts = {"list": "[1, 2]", "object": '{"a": 1}', "quoted": '"q"', "number": "1", "empty": "", "null": "null"}
    odd = {"nul": "a\0b", "half": "\ud800", "emoji": "🏝" * 3, "big": 2**62, "nan": float("nan"), "many": [1, 2]}
    beside = {"mlflow.spanType": "TOOL", **{f"app.{key}": value for key, value in texts.items()}}
    beside["mlflow.spanOutputs"] = "[1, 2]"
    trace = TraceFacts()
    inner = span(
        "odd \0\ud800",
        attributes=odd,
        status=Status(StatusCode.ERROR, "went wrong"),
        events=[Event("e", {"a": ("x", "y"), "json": '{"a": 1}', "n": 1.5, "yes": True}, 1_500_000_000)],
        links=[Link(SpanContext(0xDEF, 0x56, False), {"why": "later"}), Link(SpanContext(0xDEF, 0x57, False))],
    )
    outer = span("POST /ask", parent=0x99, resource=Resource({"service.name": "shop", "tags": ("a", "b")}))
    root = made(outer, trace=trace)
    root["span_id"] = f"{0x77:016x}"
    return [made(inner, beside, trace, parent_id=0x77), root]


class Stores:
    """What both stores hold, and what they were given."""

    def __init__(self, copy: Copy, told: dict[str, tuple[str, dict[str, Row]]], uris: dict[str, str]) -> None:
        self.rows = [*copy.rows, *odd_rows()]
        _, self.database = told["database"]
        self.experiment, self.server = told["server"]
        self.uris = uris

    def named(self, name: str) -> Row:
        """Return the only trace of that name."""
        (found,) = (trace for trace in self.server.values() if trace["tags"][NAME] == name)
        return found


@pytest.fixture(scope="module")
def stores(mlflow_server: MlflowServer, made_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Stores:
    """Run the programs, store their rows in both and read them back."""
    path = tmp_path_factory.mktemp("forms") / "mlflow.db"
    path.write_bytes(made_database.read_bytes())
    with ScriptedLM(answer) as server:
        copy = run(server)
        reported = server.reported
    infos = {f"{trace:032x}": facts.info({"user": "root"}) for trace, facts in copy.facts.items()}
    uris = {"database": f"sqlite:///{path}", "server": mlflow_server.uri}
    asked = {"rows": [*copy.rows, *odd_rows()], "infos": infos, **uris, "experiment": "forms"}
    command = [sys.executable, "-m", "tests.parts.mlflow_forms"]
    ran = subprocess.run(
        command,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        timeout=110,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3_000:]
    made_of = Stores(copy, json.loads(ran.stdout), uris)
    totals = [trace["token_usage"] or {} for trace in made_of.server.values()]
    assert sum(total.get("input_tokens", 0) for total in totals) == reported.input_tokens
    assert sum(total.get("output_tokens", 0) for total in totals) == reported.output_tokens
    assert len(server.requests) > reported.requests > 15
    return made_of


def differences(left: Any, right: Any, path: str = "") -> list[str]:
    """Return where two values differ, one line each."""
    if isinstance(left, dict) and isinstance(right, dict):
        pairs = [(key, left.get(key), right.get(key)) for key in {**left, **right}]
        return [line for key, one, other in pairs for line in differences(one, other, f"{path}/{key}")]
    return [] if left == right else [f"{path}: {left!r} != {right!r}"]


def test_both_forms_are_read_back_the_same(stores: Stores) -> None:
    """Spans, parents, types, inputs, outputs, events, links, tokens, cost, session, tags, previews, names, state."""
    found = differences(stores.database, stores.server)
    assert found == []
    assert len(stores.server) == 7


def test_every_span_is_read_back_as_it_was_made(stores: Stores) -> None:
    """Nothing is lost or turned into something else on either way, and nothing is added."""
    for row in stores.rows:
        told = stores.database[f"tr-{row['trace_id']}"]["spans"][row["span_id"]]
        assert told["attributes"] == row["attributes"], row["name"]
        assert (told["parent"], told["name"]) == (row["parent_id"], row["name"])
        assert told["type"] == row["attributes"].get("mlflow.spanType")
        assert told["times"] == [row["start"], row["end"]]
        assert told["status"] == [row["status"], row["message"]]
        assert told["events"] == [[event["name"], event["time"], event["attributes"]] for event in row["events"]]
        linked = [{**link, "trace_id": f"tr-{link['trace_id']}"} for link in row["links"]]
        assert told["links"] == [{**link, "attributes": link["attributes"] or None} for link in linked]


def test_the_list_of_traces(stores: Stores) -> None:
    """Name, state, previews, tokens, cost, session, user, tags and metadata of a trace."""
    trace = stores.named("Guide")
    (root,) = (one for one in trace["spans"].values() if one["parent"] is None)
    assert trace["state"] == "OK"
    assert trace["request_preview"] == '{"question": "Where is Crete? — «где»"}'
    assert trace["response_preview"] == preview(root["attributes"]["mlflow.spanOutputs"], "assistant")
    chats = [one["attributes"] for one in trace["spans"].values() if one["type"] == "CHAT_MODEL"]
    for kind in ("input_tokens", "output_tokens", "total_tokens"):
        assert trace["token_usage"][kind] == sum(told["mlflow.chat.tokenUsage"][kind] for told in chats)
    assert trace["cost"]["total_cost"] == pytest.approx(root["attributes"]["dspy.usage.cost"])
    assert trace["tags"] == {NAME: "Guide", "env": "prod", "mlflow.trace.spansLocation": "TRACKING_STORE"}
    wanted = {"mlflow.trace.session": "chat-1", "mlflow.trace.user": "ada", "mlflow.user": "root", "release": "7"}
    assert wanted.items() <= trace["metadata"].items()


def test_failures_scores_and_requests(stores: Stores) -> None:
    """A failed trace is one; an example's score is an assessment; a request is named, with its service as a tag."""
    states = {trace["tags"][NAME]: trace["state"] for trace in stores.server.values() if not trace["assessments"]}
    failed = {name for name, state in states.items() if state == "ERROR"}
    assert states.keys() == {"Guide", "ReActV2", "Predict", "Busy", "evaluate Predict", "POST /ask"}
    assert failed == {"Predict"}
    (scored,) = (trace for trace in stores.server.values() if trace["assessments"])
    (score,) = scored["assessments"]
    assert (score["assessment_name"], score["feedback"], score["source"]["source_type"]) == (
        "exact",
        {"value": 0.0},
        "CODE",
    )
    assert (scored["tags"][NAME], scored["request_preview"]) == ("Predict", '{"question": "2+2?", "answer": "four"}')
    request = stores.named("POST /ask")
    assert request["tags"]["service.name"] == "shop"
    assert request["tags"]["tags"] == '["a","b"]'


def test_the_page_has_what_it_needs(stores: Stores) -> None:
    """Chat tabs, tool calls, tools and documents."""
    spans = [one for trace in stores.server.values() for one in trace["spans"].values()]
    chats = [one for one in spans if one["type"] == "CHAT_MODEL" and one["status"][0] == "OK"]
    assert len(chats) > 15
    assert all(chat(one) for one in chats)
    offered = [tools(one) for one in chats if "mlflow.chat.tools" in one["attributes"]]
    assert [sorted(names or ()) for names in offered] == [["look_up", "submit"]] * 2
    called = {call[0] for one in chats for shown in chat(one) or () for call in shown.calls}
    assert called == {"look_up", "submit"}
    assert [documents(one) for one in spans if one["type"] == "RETRIEVER"] == [["Crete is long.", "Malta is small."]]


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ("span.type = 'AGENT'", {"Guide", "ReActV2"}),
        ("span.type = 'RETRIEVER'", {"Guide"}),
        ("trace.status = 'ERROR'", {"Predict"}),
        ("trace.name = 'ReActV2'", {"ReActV2"}),
        ("tags.env = 'prod'", {"Guide"}),
        ("metadata.`mlflow.trace.session` = 'chat-1' AND span.type = 'TOOL'", {"Guide", "ReActV2"}),
        ("trace.text LIKE '%«где»%'", {"Guide"}),
    ],
)
def test_mlflows_search_finds_our_traces(
    stores: Stores, mlflow_reader: Reader, condition: str, names: set[str]
) -> None:
    """By type, state, name, tag, session and text, in both stores."""
    for uri in stores.uris.values():
        found = mlflow_reader.found(uri, condition, "forms")
        assert {stores.server[trace_id]["tags"][NAME] for trace_id in found} == names


@pytest.mark.timeout(300)
def test_what_a_person_sees(stores: Stores) -> None:
    """MLflow's page shows the tree, tokens and cost; passages, what a tool was given and said, and the chat."""
    trace = stores.named("Guide")
    (trace_id,) = (key for key, one in stores.server.items() if one is trace)
    spans = [one["name"] for one in trace["spans"].values()]
    sums = [f"{trace['token_usage']['total_tokens']:,} tokens", "$0.00", "Spans", *spans]
    asked = "Where is Crete? — «где»"
    shown = "Inputs / Outputs"
    steps = [
        (None, [sums, [asked, "trajectory"]]),
        ("retrieval Embeddings", [[shown, "query", asked, "Outputs", "Crete is long.", "Malta is small."]]),
        ("execute_tool look_up", [[shown, "place", "Crete", "Outputs", '["Crete", "is an island"]']]),
        ("chat gpt-4o-mini", [[shown, "System", "User", asked, "Outputs", "Assistant", "Next Tool Name", "look_up"]]),
    ]
    see(address_of(stores.uris["server"], stores.experiment, trace_id), steps)

"""``autolog()`` in a folder without anything: the trace is in a new ``mlflow.db``, and the program has not waited."""

from __future__ import annotations

import json
import sys
from statistics import median
from typing import Any

import pytest

from tests.parts import desk
from tests.parts.mlflow_server import MISSING, Reader, is_installed
from tests.parts.project import Done, Project, tree

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not is_installed(), reason=MISSING),
]

UNTRACED = "import desk; print(desk.ask())"
TRACED = f"import dspy_trace; dspy_trace.autolog(); {UNTRACED}"

TREE = """
invoke_workflow Desk CHAIN
  retrieval Handbook RETRIEVER
  execute_tool opening_hours TOOL
  ChainOfThought reply CHAIN
    Predict reply.predict LLM
      chat gpt-4o-mini CHAT_MODEL
"""


def test_the_program_neither_waits_nor_grows(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """One call with `autolog()` takes half a second more than without, more on a slow or busy machine, and 30 MB."""
    traced, untraced = [], []
    project.run(UNTRACED)  # reads everything from the disk once
    for number in range(5):
        untraced.append(project.run(UNTRACED, folder=project.new_folder(f"untraced {number}")))
        traced.append(project.run(TRACED, folder=project.new_folder(f"traced {number}")))
        # It would take the processor from the next run.
        project.end_workers()
    seconds, cpu, kilobytes = (added(name, traced, untraced) for name in ("seconds", "cpu", "kilobytes"))
    # On a machine that is busy everything takes longer, what we add as well; and no run takes as long as another.
    busy = max(1.0, median(one.seconds / one.cpu for one in untraced))
    alone = median(one.cpu for one in untraced)
    noise = median(abs(one.seconds - median(other.seconds for other in untraced)) for one in untraced)
    with capsys.disabled():
        figures = f"{seconds:.2f} s, {cpu:.2f} s of processor time, {kilobytes / 1024:.0f} MB"
        sys.stdout.write(f"\nautolog() adds {figures} to {alone:.1f} s (machine: x {busy:.1f}, +- {noise:.2f} s)\n")
    assert not any(one.mlflow for one in traced)
    assert [(one.out, one.err) for one in traced] == [(one.out, one.err) for one in untraced]
    assert kilobytes < 30 * 1024
    # Where the program itself takes long, so does what we add.
    allowed = max(0.5, 0.4 * alone)
    assert cpu < allowed
    assert seconds < allowed * busy + noise


def added(name: str, traced: list[Done], untraced: list[Done]) -> float:
    """Return by how much the median of some figure is larger with tracing."""
    return float(median(getattr(one, name) for one in traced) - median(getattr(one, name) for one in untraced))


def test_the_trace_is_complete(project: Project, mlflow_reader: Reader) -> None:
    """Plain `mlflow.search_traces` gives the whole trace from the new database, as MLflow's page shows it."""
    done = project.run(TRACED)
    project.arrived()
    assert not done.mlflow
    assert not done.err
    (trace,) = mlflow_reader.traces(project.database)
    answer = done.out.strip()
    assert tree(trace, "type") == TREE
    assert (trace["name"], trace["state"]) == ("Desk", "OK")
    assert trace["request"] == f'{{"question": "{desk.QUESTION}"}}'
    assert f'"answer": "{answer}"' in trace["response"]
    assert {span["status"] for span in trace["spans"]} == {"OK"}
    spans = {span["name"].partition(" ")[0]: span for span in trace["spans"]}
    check_chat(spans["chat"], answer)
    check_sums(trace, spans["chat"])
    assert spans["retrieval"]["inputs"] == {"query": desk.QUESTION, "k": 2}
    assert [document["page_content"] for document in spans["retrieval"]["outputs"]] == desk.PASSAGES
    assert (spans["execute_tool"]["inputs"], spans["execute_tool"]["outputs"]) == ({"day": "Monday"}, desk.HOURS)
    assert spans["Predict"]["outputs"]["answer"] == answer
    assert spans["Predict"]["inputs"] == {"context": desk.PASSAGES, "hours": desk.HOURS, "question": desk.QUESTION}
    assert {"mlflow.source.name": "app.py", "mlflow.source.type": "LOCAL"}.items() <= trace["metadata"].items()
    for condition in ("span.type = 'CHAT_MODEL'", "trace.name = 'Desk'", "trace.status = 'OK'"):
        assert mlflow_reader.found(project.database, condition) == [trace["id"]], condition


def check_chat(chat: dict[str, Any], answer: str) -> None:
    """The LM's span has what MLflow's chat tab shows."""
    assert [message["role"] for message in chat["inputs"]["messages"]] == ["system", "user"]
    assert desk.QUESTION in chat["inputs"]["messages"][1]["content"]
    (completion,) = chat["outputs"]
    assert f"[[ ## answer ## ]]\n{answer}" in completion
    told = chat["attributes"]
    assert (told["mlflow.message.format"], told["mlflow.llm.model"], told["mlflow.llm.provider"]) == (
        "dspy",
        "gpt-4o-mini",
        "openai",
    )


def check_sums(trace: dict[str, Any], chat: dict[str, Any]) -> None:
    """Tokens and cost are the LM's, once, and the trace's sums are theirs."""
    counted = [span["name"] for span in trace["spans"] if "mlflow.chat.tokenUsage" in span["attributes"]]
    assert counted == [chat["name"]]
    usage = chat["attributes"]["mlflow.chat.tokenUsage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 100
    assert trace["tokens"] == usage
    assert trace["cost"]["total_cost"] == chat["attributes"]["mlflow.llm.cost"]["total_cost"] > 0


def test_later_traces_go_to_the_same_database(project: Project, mlflow_reader: Reader) -> None:
    """Programs in one folder share its database, and one worker; what `mlflow.set_experiment` would name is made."""
    for name in ("", "help desk", "help desk"):
        project.run(TRACED, MLFLOW_EXPERIMENT_NAME=name)
    project.arrived()
    assert len(mlflow_reader.traces(project.database)) == 1
    assert [tree(one, "type") for one in mlflow_reader.traces(project.database, "help desk")] == [TREE, TREE]
    assert project.log().count(" started, ") == 1


BESIDE = """
import json
import desk, dspy, dspy_trace, mlflow
import dspy_trace_flavor as flavor
dspy_trace.autolog()
with dspy.context(lm=desk.lm()):
    model = flavor.log_model(desk.Desk(), name="desk")
loaded = flavor.load_model(model.model_uri, lm_kwargs={"api_key": "scripted-key"})
with mlflow.start_run() as run:
    desk.ask()
with mlflow.set_active_model(name="app") as app:
    desk.ask()
loaded(question=desk.QUESTION)
mlflow.trace(desk.ask)()
mlflow.flush_trace_async_logging()
print("\\n" + json.dumps([run.info.run_id, app.model_id, model.model_id]))
"""


def test_what_the_program_says_to_mlflow(project: Project, mlflow_reader: Reader) -> None:
    """Its run, its active model, the model that its program was loaded from, and its own trace around a call."""
    run, app, model = json.loads(project.run(BESIDE).out.splitlines()[-1])
    project.arrived()
    *linked, around = mlflow_reader.traces(project.database)
    told = [[trace["metadata"].get(f"mlflow.{key}") for key in ("sourceRun", "modelId")] for trace in linked]
    assert told == [[run, None], [None, app], [None, model]]
    assert (around["name"], tree(around)) == ("ask", "\nask" + desk.TREE.replace("\n", "\n  ").rstrip(" "))

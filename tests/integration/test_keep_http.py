"""A program without mlflow, and an MLflow server: its traces are there the same as in a database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.parts.mlflow_server import MISSING, MlflowServer, Reader, is_installed
from tests.parts.project import Project, tree

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not is_installed(), reason=MISSING),
]

PROGRAM = """
import desk, dspy, dspy_trace
dspy_trace.autolog()

class Breaks(dspy.Module):
    def forward(self, question):
        desk.ask(question)
        raise ValueError("out of paper \\ud83d\\ude00 \\x00 \\ud800")

with dspy_trace.session(session_id="s-1", user_id="ada", tags={"team": "support"}, metadata={"plan": "pro"}):
    print(desk.ask())
    try:
        Breaks()(question="Is it broken?")
    except ValueError:
        pass
print(desk.ask("Who am I?"))
"""

ASKED = """
invoke_workflow Desk OK CHAIN
  retrieval Handbook OK RETRIEVER
  execute_tool opening_hours OK TOOL
  ChainOfThought reply OK CHAIN
    Predict reply.predict OK LLM
      chat gpt-4o-mini OK CHAT_MODEL
"""

OF_DATABASES = frozenset(
    {
        "mlflow.user",
        "mlflow.source.name",
        "mlflow.source.type",
        "mlflow.source.git.commit",
        "mlflow.source.git.branch",
        "mlflow.source.git.repoURL",
        # MLflow's own marks of a trace that was told anything beside its spans.
        "mlflow.trace.infoFinalized",
        "mlflow.trace_schema.version",
    }
)
"""Metadata that only databases are told: to say it to a server costs it as much as three traces."""

OF_THE_PLACE = frozenset({"mlflow.artifactLocation", "mlflow.experimentId"})


def test_a_server_gets_what_a_database_gets(
    project: Project, mlflow_server: MlflowServer, mlflow_reader: Reader, new_database: Path
) -> None:
    """Spans, parents, inputs, outputs, tokens, cost, session, user, tags and metadata are equal in both forms."""
    over_http = project.run(
        PROGRAM,
        MLFLOW_TRACKING_URI=mlflow_server.uri,
        MLFLOW_EXPERIMENT_NAME="equal forms",
        DSPY_TRACE_EXIT_WAIT="60",
        **project.without("mlflow", "sqlalchemy"),
    )
    assert not over_http.mlflow
    assert not over_http.warnings
    assert not project.waits()
    uri = f"sqlite:///{new_database}"
    into_database = project.run(PROGRAM, MLFLOW_TRACKING_URI=uri)
    project.arrived()
    there, here = mlflow_reader.traces(mlflow_server.uri, "equal forms"), mlflow_reader.traces(uri)
    assert tree(there[0], "status", "type") == ASKED
    assert [tree(one, "status", "type", "inputs", "outputs", "events") for one in there] == [
        tree(one, "status", "type", "inputs", "outputs", "events") for one in here
    ]
    assert [comparable(one) for one in there] == [comparable(one) for one in here]
    assert over_http.out == into_database.out
    check_session(there)


def check_session(traces: list[dict[str, Any]]) -> None:
    """The first two traces are the session's, the last is nobody's."""
    asked, broken, other = traces
    for trace in (asked, broken):
        assert {"mlflow.trace.session": "s-1", "mlflow.trace.user": "ada", "plan": "pro"}.items() <= trace[
            "metadata"
        ].items()
        assert trace["tags"]["team"] == "support"
        assert {span["attributes"].get("session.id") for span in trace["spans"]} == {"s-1"}
    assert not {"mlflow.trace.session", "mlflow.trace.user", "plan"} & set(other["metadata"])
    assert "team" not in other["tags"]
    assert (broken["name"], broken["state"]) == ("Breaks", "ERROR")
    assert [trace["tokens"]["total_tokens"] > 100 for trace in traces] == [True] * 3


def comparable(trace: dict[str, Any]) -> dict[str, Any]:
    """Return a trace without what differs from run to run."""
    made = {key: value for key, value in trace.items() if key not in ("id", "spans")}
    made["tags"] = {key: value for key, value in trace["tags"].items() if key not in OF_THE_PLACE}
    made["metadata"] = {key: value for key, value in trace["metadata"].items() if key not in OF_DATABASES}
    spans = sorted(trace["spans"], key=lambda span: span["start"])
    varies = ("server.port", "mlflow.traceRequestId", "gen_ai.response.id")
    made["attributes"] = [
        {key: value for key, value in span["attributes"].items() if key not in varies} for span in spans
    ]
    return made

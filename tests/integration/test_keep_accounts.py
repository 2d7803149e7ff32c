"""Waiting for delivery, the accounts of it, feedback, and ending it: on a server and on a database, the same."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.parts import desk
from tests.parts.mlflow_server import MISSING, MlflowServer, Reader, is_installed
from tests.parts.project import Project, share, tree, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not is_installed(), reason=MISSING),
]

BEGIN = """
import dataclasses, json, threading, time
import desk, dspy, dspy_trace
from opentelemetry import trace

before = dspy.Module.__call__
dspy_trace.autolog()
patience = {patience}
stats = []

def tell(**more):
    found = dataclasses.asdict(dspy_trace.stats())
    stats.append(found)
    print(json.dumps({{"stats": found, **more}}))
"""

ALL = (
    BEGIN
    + """
tell()
desk.ask()
tell(trace=dspy_trace.last_trace_id())
first = dspy_trace.last_trace_id()
dspy_trace.log_feedback(first, "helpful", True, "It says so.", source_id="ada", metadata={{"page": "2"}})
dspy_trace.log_feedback("tr-" + first, "score", 0.5, source_type="CODE", source_id="checker")
with trace.get_tracer("the application's").start_as_current_span("nothing of DSPy's"):
    pass
desk.ask("Again?")
tell(trace=dspy_trace.last_trace_id())
begun = time.monotonic()
flushed = dspy_trace.flush(patience)
tell(flushed=flushed, seconds=time.monotonic() - begun)
dspy_trace.log_feedback(dspy_trace.last_trace_id(), "late", "yes")
dspy_trace.shutdown(patience, worker=True)
desk.ask("Is anybody there?")
threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("dspy-trace")]
tell(restored=dspy.Module.__call__ is before, threads=threads, trace=dspy_trace.last_trace_id())
dspy_trace.autolog()
desk.ask("Once more?")
tell(flushed=dspy_trace.flush(patience), trace=dspy_trace.last_trace_id())
dspy_trace.shutdown(patience, worker=True)
"""
)


@dataclass(frozen=True)
class Store:
    """Where a test's traces go."""

    uri: str
    experiment: str
    reader: Reader

    @property
    def environ(self) -> dict[str, str]:
        return {"MLFLOW_TRACKING_URI": self.uri, "MLFLOW_EXPERIMENT_NAME": self.experiment}

    def traces(self) -> list[dict[str, Any]]:
        """Return the traces, oldest first."""
        return self.reader.traces(self.uri, self.experiment)


@pytest.fixture(params=["server", "database"])
def store(request: pytest.FixtureRequest, mlflow_reader: Reader) -> Store:
    """Give a server and a database in turn."""
    if request.param == "server":
        server: MlflowServer = request.getfixturevalue("mlflow_server")
        return Store(server.uri, f"accounts of {request.node.name}", mlflow_reader)
    database: Path = request.getfixturevalue("new_database")
    return Store(f"sqlite:///{database}", "Default", mlflow_reader)


def patience() -> str:
    """Return how long to wait for a store, in seconds."""
    return f"{40 * share():.0f}"


def test_flush_stats_feedback_and_shutdown(project: Project, store: Store) -> None:
    """`flush()` is true when all is there; accounts always add up; feedback follows its trace; `shutdown()` ends."""
    # The worker would stay for long, if it were not asked to go.
    done = project.run(ALL.format(patience=patience()), DSPY_TRACE_WORKER_IDLE="600", **store.environ)
    nothing, one, two, flushed, off, on = map(json.loads, done.out.splitlines())
    for told in (nothing, one, two, flushed, off, on):
        check_sum(told["stats"])
    spans = desk.SPANS
    assert [told["stats"]["observed"] for told in (nothing, one, two, off, on)] == [
        0,
        spans,
        2 * spans + 1,
        2 * spans + 1,
        3 * spans + 1,
    ]
    assert flushed["flushed"] is on["flushed"] is True
    assert flushed["stats"] == {**EMPTY, "observed": 2 * spans + 1, "delivered": 2 * spans, "filtered": 1}
    assert (off["restored"], off["threads"], off["trace"]) == (True, [], two["trace"])
    assert not project.waits()
    traces = store.traces()
    assert [trace["id"] for trace in traces] == [f"tr-{told['trace']}" for told in (one, two, on)]
    assert {tree(trace) for trace in traces} == {desk.TREE}
    check_feedback(traces)
    until(lambda: not project.workers(), 30.0 * share(), project.log)


EMPTY = {
    "observed": 0,
    "queued": 0,
    "spooled": 0,
    "delivered": 0,
    "dead": 0,
    "filtered": 0,
    "dropped": {},
    "retried": 0,
    "bytes": 0,
    "age": 0.0,
}


def check_sum(stats: dict[str, Any]) -> None:
    """Every span that was observed has become something."""
    became = [stats[name] for name in ("queued", "spooled", "delivered", "dead", "filtered")]
    assert stats["observed"] == sum(became) + sum(stats["dropped"].values()), stats


def check_feedback(traces: list[dict[str, Any]]) -> None:
    """What was said of the traces is with them, as MLflow shows its own."""
    first, second, third = (trace["assessments"] for trace in traces)
    helpful, score = sorted(first, key=lambda one: str(one["name"]))
    assert helpful == {
        "name": "helpful",
        "value": True,
        "rationale": "It says so.",
        "source": ["HUMAN", "ada"],
        "metadata": {"page": "2"},
        "span": None,
    }
    assert (score["name"], score["value"], score["source"]) == ("score", 0.5, ["CODE", "checker"])
    assert [(one["name"], one["value"]) for one in second] == [("late", "yes")]
    assert not third


KILLED = """
import os, signal
import desk, dspy_trace
dspy_trace.autolog()
desk.ask()
print(dspy_trace.stats().queued, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_sync_is_in_the_spool_when_the_call_returns(
    project: Project, new_database: Path, mlflow_reader: Reader
) -> None:
    """With `DSPY_TRACE_DURABILITY=sync` a program that is killed after its call has lost nothing of it."""
    uri = f"sqlite:///{new_database}"
    # A minute from now everything would be in the spool anyway.
    environ = {"MLFLOW_TRACKING_URI": uri, "OTEL_BSP_SCHEDULE_DELAY": "60000", "DSPY_TRACE_WORKER": "off"}
    killed = project.run(KILLED, check=False, DSPY_TRACE_DURABILITY="sync", **environ)
    assert (killed.status, killed.out) == (-9, "0\n")
    project.run("import desk, dspy_trace; dspy_trace.autolog(); desk.ask('Again?')", MLFLOW_TRACKING_URI=uri)
    project.arrived()
    assert [tree(trace) for trace in mlflow_reader.traces(uri)] == [desk.TREE] * 2

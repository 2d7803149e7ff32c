"""Delivery to a real MLflow server: what it refuses, and what it must never get twice."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import orjson
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import set_span_in_context

import dspy_trace
from dspy_trace.export import drain, records
from dspy_trace.export.mlflow_info import assessment
from dspy_trace.export.sinks import HttpSink
from dspy_trace.export.target import Target
from dspy_trace.export.traces import REMEMBERED
from tests.delivery import adds_up, batch, delivering, environment, eventually, row, trace
from tests.outlets import Kept, kept  # noqa: F401  # a fixture
from tests.parts.mlflow_server import MISSING, MlflowServer, Reader, is_installed

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not is_installed(), reason=MISSING),
]

SLOW = 90.0
"""Seconds that a server may take for its first spans on a busy machine."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between tries."""
    monkeypatch.setattr(drain, "FIRST", 0.05)
    monkeypatch.setattr(drain, "LONGEST", 0.5)


def ask(server: MlflowServer, path: str, told: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask the server's REST interface."""
    request = urllib.request.Request(
        f"{server.uri}/api/{path}",
        data=None if told is None else json.dumps(told).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def experiment_id(server: MlflowServer, name: str) -> str:
    """Return the id of an experiment."""
    found = ask(server, f"2.0/mlflow/experiments/get-by-name?experiment_name={urllib.parse.quote(name)}")
    return str(found["experiment"]["experiment_id"])


@pytest.mark.parametrize("poison", ["refused", "breaks it"])
def test_one_bad_span_costs_itself_alone(mlflow_server: MlflowServer, tmp_path: Path, poison: str) -> None:
    """Of many traces with one bad span all that is good is stored; the bad one is kept with the server's words."""
    target = Target(mlflow_server.uri, experiment_name=f"poison {poison}")
    put = [trace(target) for _ in range(40)]
    rows = orjson.loads(put[7].payload)
    if poison == "refused":
        rows[1]["attributes"]["session.id"] = "x" * 300
    else:
        rows[1]["start"] = rows[1]["end"] = 2**63 + 5
    put[7] = batch(target, put[7].trace_id, rows)
    with delivering(environment(tmp_path)) as delivery:
        delivery.put(put)
        eventually(lambda: not delivery.waits(), SLOW)
        assert adds_up(delivery, 120)
        (letter,) = records.dead_letters(delivery.file())
        assert orjson.loads(letter.payload)[0]["span_id"] == rows[1]["span_id"]
        assert letter.reason.startswith("400" if poison == "refused" else "500")
        assert delivery.counters.delivered == 119
    found = search(mlflow_server, target)
    assert {one["trace_id"].removeprefix("tr-") for one in found} == {one.trace_id for one in put}


def search(server: MlflowServer, target: Target) -> list[dict[str, Any]]:
    """Return the traces of an experiment."""
    assert target.experiment_name is not None
    ident = experiment_id(server, target.experiment_name)
    where = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": ident}}
    found = ask(server, "3.0/mlflow/traces/search", {"locations": [where], "max_results": 200})
    traces: list[dict[str, Any]] = found.get("traces", [])
    return traces


def test_an_experiment_that_is_deleted_gets_nothing_until_it_is_restored(
    mlflow_server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server would store them where nobody looks; here they wait, and the warning says how to restore it."""
    ident = ask(mlflow_server, "2.0/mlflow/experiments/create", {"name": "deleted"})["experiment_id"]
    ask(mlflow_server, "2.0/mlflow/experiments/delete", {"experiment_id": ident})
    with delivering(environment(tmp_path)) as delivery:
        put = [trace(Target(mlflow_server.uri, experiment_name="deleted")), trace(Target(mlflow_server.uri, ident))]
        delivery.put(put)
        eventually(lambda: "experiments restore" in caplog.text, SLOW)
        assert delivery.waiting().batches == 2
        ask(mlflow_server, "2.0/mlflow/experiments/restore", {"experiment_id": ident})
        eventually(lambda: not delivery.waits(), SLOW)
    found = search(mlflow_server, Target(mlflow_server.uri, experiment_name="deleted"))
    assert {one["trace_id"] for one in found} == {f"tr-{one.trace_id}" for one in put}


def test_an_experiment_that_is_not_there_is_said(
    mlflow_server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows for an unknown id wait, and the warning has the server's words and the remedy."""
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([trace(Target(mlflow_server.uri, experiment_id="987654"))])
        eventually(lambda: caplog.records, SLOW)
        assert delivery.waiting().spans == 3
    assert "987654" in caplog.text
    assert "MLFLOW_EXPERIMENT_ID" in caplog.text


def test_what_is_sent_twice_is_there_once(mlflow_server: MlflowServer) -> None:
    """Spans, information and feedback may be sent again after an answer that got lost."""
    target, trace_id = Target(mlflow_server.uri, experiment_name="twice"), "ab" * 16
    usage = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
    root = row(trace_id, root=True)
    rows = [root, row(trace_id, root["span_id"], **{"mlflow.chat.tokenUsage": usage})]
    told = assessment(f"tr-{trace_id}", {"name": "good", "value": 0.5, "time": time.time_ns()})
    sink = HttpSink(mlflow_server.uri, lambda target: None)
    for _ in range(3):
        sink.spans(target, rows)
        sink.feedback(target, told)
    sink.close()
    (found,) = search(mlflow_server, target)
    assert [one["assessment_id"] for one in found["assessments"]] == [told["assessment_id"]]
    assert json.loads(found["trace_metadata"]["mlflow.trace.tokenUsage"]) == usage


def test_a_trace_that_lives_for_an_hour(mlflow_server: MlflowServer, mlflow_reader: Reader, kept: Kept) -> None:
    """It can be read while it goes on, and is whole at last, though thousands of others have ended meanwhile."""
    provider = TracerProvider(shutdown_on_exit=False)
    tracer = provider.get_tracer("of the application")
    dspy_trace.autolog(tracking_uri=mlflow_server.uri, experiment="an hour")
    kept.out.join(provider)
    minute = 60 * 10**9
    begun = time.time_ns() - 60 * minute

    def end(span: Any, minutes: int) -> None:
        kept.out.processor.keep(span.get_span_context(), {})
        span.end(begun + minutes * minute)

    def read() -> tuple[str, list[str]]:
        assert dspy_trace.flush(SLOW)
        (found,) = mlflow_reader.traces(mlflow_server.uri, "an hour")
        return found["state"], sorted(span["name"] for span in found["spans"])

    root = tracer.start_span("program", start_time=begun)
    for number in (1, 2, 3):
        for _ in range(REMEMBERED):
            tracer.start_span("request of somebody else").end()
        step = tracer.start_span(f"step {number}", set_span_in_context(root), start_time=begun + 15 * number * minute)
        end(step, 15 * number + 10)
        assert read() == ("IN_PROGRESS", [f"step {one}" for one in range(1, number + 1)])
    end(root, 60)
    assert read() == ("OK", ["program", "step 1", "step 2", "step 3"])
    (found,) = search(mlflow_server, Target(mlflow_server.uri, experiment_name="an hour"))
    assert found["execution_duration"] == "3600s"
    assert dspy_trace.stats().filtered == 3 * REMEMBERED


def test_two_programs_write_at_once(mlflow_server: MlflowServer, tmp_path: Path) -> None:
    """Traces of programs that share a spool and a server are all stored, whoever sends them."""
    target = Target(mlflow_server.uri, experiment_name="busy")
    with delivering(environment(tmp_path)) as one, delivering(environment(tmp_path)) as other:
        put = [trace(target) for _ in range(60)]
        for number, batched in enumerate(put):
            (one, other)[number % 2].put([batched])
        eventually(lambda: not one.waits() and not other.waits(), SLOW)
        assert one.counters.delivered + other.counters.delivered == 180
    assert len(search(mlflow_server, target)) == 60

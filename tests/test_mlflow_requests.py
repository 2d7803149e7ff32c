"""What a server of MLflow's is sent: spans over OTLP, and what is said of a trace as a whole."""

from __future__ import annotations

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import Event

from dspy_trace.export.mlflow import TraceFacts, otlp_request, trace_info
from dspy_trace.export.mlflow_values import reads_as_json
from tests.mlflow_spans import HEX, SPAN, made, span
from tests.parts.recorder import decode

ATTRIBUTES = {
    "mlflow.spanInputs": {"q": "é"},
    "other": {"a": 1},
    "n": 3,
    "x": 1.5,
    "yes": True,
    "no": None,
    "text": "AGENT",
    "number": "1",
    "json": '{"a": 1}',
    "quoted": '"q"',
}


def test_the_request() -> None:
    """Objects and lists as JSON text, numbers typed, text as it is; of two rows of one span the last."""
    first = made(span("old"))
    root = made(span("POST /ask"))
    root["attributes"] = ATTRIBUTES
    root["events"] = [{"name": "e", "time": 5, "attributes": {"a": ["b", 1], "o": {"k": False}, "none": None}}]
    root["links"] = [{"trace_id": f"{1:032x}", "span_id": f"{2:016x}", "attributes": {"why": "x"}}]
    root["status"], root["message"] = "ERROR", "ValueError: no"
    (sent,) = decode(ExportTraceServiceRequest.FromString(otlp_request([first, root])))
    assert sent == {
        "trace_id": HEX,
        "span_id": f"{SPAN:016x}",
        "parent_id": None,
        "name": "POST /ask",
        "kind": "INTERNAL",
        "start_ns": 1_000_000_000,
        "end_ns": 3_500_000_000,
        "attributes": {
            "mlflow.spanInputs": '{"q": "é"}',
            "other": '{"a":1}',
            "n": 3,
            "x": 1.5,
            "yes": True,
            "text": "AGENT",
            "number": "1",
            "json": '"{\\"a\\": 1}"',
            "quoted": '"\\"q\\""',
        },
        "events": [{"name": "e", "time_ns": 5, "attributes": {"a": ["b", 1], "o": {"k": False}, "none": None}}],
        "links": [{"trace_id": f"{1:032x}", "span_id": f"{2:016x}", "attributes": {"why": "x"}}],
        "status": {"code": "ERROR", "message": "ValueError: no"},
        "resource": {},
        "scope": "dspy_trace",
    }


@pytest.mark.parametrize("value", ["", "a", "1", "null", "[1", "{a}", "1.5", "true"])
def test_most_text_is_sent_as_it_is(value: str) -> None:
    """Only what MLflow would unwrap is wrapped once more."""
    assert not reads_as_json(value)


def test_what_is_said_of_a_trace_as_a_whole() -> None:
    """Run, model, source and assessments, in the form that a server takes; the same assessment has the same id."""
    trace = TraceFacts(metadata={"release": "7"})
    score = Event(
        "gen_ai.evaluation.result", {"gen_ai.evaluation.name": "exact", "gen_ai.evaluation.score.value": 1.0}, 10**9
    )
    root = made(span(events=[score]), {"mlflow.spanType": "EVALUATOR"}, trace)
    info = trace.info({"run_id": "r1", "model_id": None, "user": "ada", "source": {"mlflow.source.name": "app.py"}})
    assert info is not None
    told, again = trace_info(root, info, "3"), trace_info(root, info, "3")
    assert told == again
    assert told is not None
    (given,) = told.pop("assessments")
    assert told == {
        "trace_id": f"tr-{HEX}",
        "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "3"}},
        "request_time": "1970-01-01T00:00:01.000Z",
        "execution_duration": "2.500s",
        "state": "OK",
        "trace_metadata": {
            "mlflow.trace_schema.version": "3",
            "release": "7",
            "mlflow.source.name": "app.py",
            "mlflow.sourceRun": "r1",
            "mlflow.user": "ada",
        },
        "tags": {},
    }
    assert given.pop("assessment_id").startswith("a-")
    assert given == {
        "assessment_name": "exact",
        "trace_id": f"tr-{HEX}",
        "source": {"source_type": "CODE", "source_id": "exact"},
        "create_time": "1970-01-01T00:00:01.000Z",
        "last_update_time": "1970-01-01T00:00:01.000Z",
        "feedback": {"value": 1.0},
        "valid": True,
    }
    assert TraceFacts().info({"run_id": None}) is None

"""``opentelemetry-instrument`` with no line of tracing in the program: whole traces at a real collector."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dspy_trace.demo.lm_server import MODEL, LMServer
from tests.parts.collector import Collector
from tests.parts.recorder import ReceivedSpan

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).parents[1] / "parts" / "real_program.py"

QUIET = {
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    # Another instrumentation of DSPy is installed for the tests of neighbours; that one imports dspy.
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "dspy,httpx,openai",
}

ALL_SIGNALS = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "otlp", "OTEL_LOGS_EXPORTER": "otlp"}

TREE = f"""
invoke_workflow HelpDesk
  OrderDesk orders
    Predict orders.extract
      * dspy.adapter.parse_error
      * dspy.adapter.fallback
      chat {MODEL}
      chat {MODEL}
    execute_tool find_order
    execute_tool track_parcel
      * exception
  retrieval Handbook
  Predict judge
    chat {MODEL}
  Predict judge
    chat {MODEL}
  Predict triage
    chat {MODEL}
  ChainOfThought reply
    Predict reply.predict
      chat {MODEL}
  Archive archive
    Predict archive.triage
      chat {MODEL}
"""


def instrumented(*arguments: str, **environ: str) -> str:
    """Run Python under ``opentelemetry-instrument`` and return what it printed."""
    scripts = str(Path(sys.executable).parent)
    done = subprocess.run(
        [f"{scripts}/opentelemetry-instrument", sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **QUIET, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tree(spans: list[ReceivedSpan]) -> str:
    """Return received spans as :func:`dspy_trace.testing.tree` does."""
    ordered = sorted(spans, key=lambda span: span["start_ns"])
    lines = [""]

    def add(parent: str | None, depth: int) -> None:
        for span in ordered:
            if span["parent_id"] == parent:
                lines.append("  " * depth + span["name"])
                lines.extend("  " * (depth + 1) + f"* {event['name']}" for event in span["events"])
                add(span["span_id"], depth + 1)

    add(None, 0)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_real_program_arrives_whole(protocol: str, collector: Collector, real_lm: LMServer) -> None:
    """The trace of a real program and a real LM is complete behind a collector, over either protocol."""
    endpoint = collector.grpc_endpoint if protocol == "grpc" else collector.http_endpoint
    printed = instrumented(
        str(PROGRAM),
        real_lm.base_url,
        real_lm.model,
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_SERVICE_NAME="help-desk",
    )
    assert printed.strip() == "billing"
    spans = collector.recorder.wait_for(20)
    assert tree(spans) == TREE
    assert {span["resource"]["service.name"] for span in spans} == {"help-desk"}
    chats = [span for span in spans if span["name"] == f"chat {MODEL}"]
    asked = [span for span in chats if not span["attributes"]["dspy.lm.cache_hit"]]
    assert len(chats) - len(asked) == 1
    assert all(span["attributes"]["gen_ai.usage.input_tokens"] > 100 for span in asked)
    root = next(span for span in spans if not span["parent_id"])
    for kind in ("input", "output"):
        told = sum(span["attributes"][f"gen_ai.usage.{kind}_tokens"] for span in asked)
        assert root["attributes"][f"dspy.usage.{kind}_tokens"] == told
    assert not any("gen_ai.input.messages" in span["attributes"] for span in spans)


def test_metrics_and_events_arrive_too(collector: Collector, real_lm: LMServer) -> None:
    """With their exporters, a collector gets the metrics and events of the same calls; messages only on events."""
    instrumented(
        str(PROGRAM),
        real_lm.base_url,
        real_lm.model,
        **ALL_SIGNALS,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.http_endpoint,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT="EVENT_ONLY",
    )
    spans = collector.recorder.wait_for(20)
    chats = {span["span_id"]: span for span in spans if span["name"] == f"chat {MODEL}"}
    asked = [span for span in chats.values() if not span["attributes"]["dspy.lm.cache_hit"]]
    metrics = collector.recorder.wait_for_metrics("gen_ai.client.operation.duration", "gen_ai.client.token.usage")
    durations = metrics["gen_ai.client.operation.duration"].histogram.data_points
    assert sum(point.count for point in durations) == len(asked) == len(chats) - 1
    assert {len(point.explicit_bounds) for point in durations} == {14}
    told = sum(point.sum for point in metrics["gen_ai.client.token.usage"].histogram.data_points)
    kinds = ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")
    assert told == sum(span["attributes"][kind] for span in asked for kind in kinds)
    failures = [event for span in spans for event in span["events"] if event["name"] == "dspy.adapter.parse_error"]
    assert metrics["dspy.adapter.parse_failures"].sum.data_points[0].as_int == len(failures) > 0
    events = [event for event in collector.recorder.events() if event["scope"] == "dspy_trace"]
    assert {event["span_id"] for event in events} == chats.keys()
    assert {event["name"] for event in events} == {"gen_ai.client.inference.operation.details"}
    assert all(event["attributes"]["gen_ai.input.messages"][0]["parts"] for event in events)
    assert not any("gen_ai.input.messages" in span["attributes"] for span in spans)


SHORT = """
import dspy, dspy_trace
from dspy.utils import DummyLM
dspy_trace.autolog()
with dspy.context(lm=DummyLM([{"answer": "yes"}])):
    print(dspy.Predict("question -> answer")(question="?").answer)
"""


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_program_that_ends_at_once_arrives(protocol: str, collector: Collector, tmp_path: Path) -> None:
    """With one line instead, too: what is exported at the end of the program, spans and metrics, is."""
    done = subprocess.run(
        [sys.executable, "-c", SHORT],
        env={
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.grpc_endpoint if protocol == "grpc" else collector.http_endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            **{"DSPY_TRACE_SPOOL_DIR": str(tmp_path), "DSPY_TRACE_WORKER": "off"},
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "yes\n")
    assert "Traceback" not in done.stderr, done.stderr
    assert tree(collector.recorder.wait_for(2)) == "\ninvoke_workflow Predict\n  chat dummy\n"
    collector.recorder.wait_for_metrics("gen_ai.invoke_workflow.duration")


def test_a_program_without_dspy_pays_nothing() -> None:
    """Where dspy is not imported, neither are the readers and vocabularies that only it needs."""
    printed = instrumented(
        "-c",
        "import sys; print(sorted(m for m in sys.modules if m.split('.')[0] in ('dspy', 'dspy_trace')))",
        OTEL_TRACES_EXPORTER="none",
    )
    assert printed.strip() == str(
        [
            "dspy_trace",
            "dspy_trace._version",
            "dspy_trace.guard",
            "dspy_trace.instrumentor",
            "dspy_trace.settings",
            "dspy_trace.settings.words",
        ]
    )

"""``OTEL_TRACES_EXPORTER=mlflow opentelemetry-instrument python app.py``: into MLflow without a line in the program."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dspy_trace.vocab import keys
from tests.parts import desk
from tests.parts.collector import Collector
from tests.parts.mlflow_server import MISSING, MlflowServer, Reader, is_installed
from tests.parts.project import Done, Project, tree

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not is_installed(), reason=MISSING),
]

PROGRAM = "import desk; print(desk.ask())"

INSTRUMENT = [str(Path(sys.executable).with_name("opentelemetry-instrument"))]

QUIET = {
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    # Another instrumentation of DSPy may be installed for the tests of neighbours.
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "dspy,httpx,openai",
}

TELLS = """
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter("{endpoint}/v1/traces")))
provider.get_tracer("somebody's").start_span("a process that traces").end()
"""
"""A ``sitecustomize`` that makes a span in every process of Python's in which spans are made."""


def instrumented(project: Project, **environ: str) -> Done:
    """Run the program under `opentelemetry-instrument`."""
    return project.run(PROGRAM, through=INSTRUMENT, **{**QUIET, **environ})


def test_into_a_server(project: Project, mlflow_server: MlflowServer, mlflow_reader: Reader) -> None:
    """The exporter `mlflow` by itself: the whole trace, with content, from an environment without mlflow."""
    done = instrumented(
        project,
        OTEL_TRACES_EXPORTER="mlflow",
        OTEL_SERVICE_NAME="help-desk",
        MLFLOW_TRACKING_URI=mlflow_server.uri,
        MLFLOW_EXPERIMENT_NAME="zero code",
        DSPY_TRACE_EXIT_WAIT="60",
        **project.without("mlflow", "sqlalchemy"),
    )
    assert not project.waits()
    assert not done.mlflow
    (trace,) = mlflow_reader.traces(mlflow_server.uri, "zero code")
    assert tree(trace) == desk.TREE
    assert (trace["name"], trace["state"]) == ("Desk", "OK")
    assert trace["request"] == f'{{"question": "{desk.QUESTION}"}}'
    assert done.out.strip() in trace["response"]
    assert trace["tokens"]["total_tokens"] > 100
    assert trace["tags"]["service.name"] == "help-desk"


def test_into_a_database_and_a_collector(
    project: Project, collector: Collector, mlflow_reader: Reader, new_database: Path
) -> None:
    """With `mlflow,otlp` both get the same trace; the collector without content, and nothing of the worker."""
    uri = f"sqlite:///{new_database}"
    # `opentelemetry-instrument` puts the working folder on the path; the worker shall not find the program's own there.
    (project.folder / "alembic.py").write_text("raise ImportError('of the project')")
    tells = project.home / "tells"
    tells.mkdir()
    (tells / "sitecustomize.py").write_text(TELLS.format(endpoint=collector.recorder.endpoint))
    done = instrumented(
        project,
        OTEL_TRACES_EXPORTER="mlflow,otlp",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.http_endpoint,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        MLFLOW_TRACKING_URI=uri,
        PYTHONPATH=str(tells),
    )
    project.arrived()
    (trace,) = mlflow_reader.traces(uri)
    assert tree(trace) == desk.TREE
    assert trace["request"] == f'{{"question": "{desk.QUESTION}"}}'
    # One process has told of itself: the command, before it became the program. The worker would have been another.
    everything = collector.recorder.wait_for(desk.SPANS + 1)
    spans = [span for span in everything if span["name"] != "a process that traces"]
    assert len(everything) == len(spans) + 1
    assert {(f"tr-{span['trace_id']}", span["span_id"], span["name"]) for span in spans} == {
        (trace["id"], span["id"], span["name"]) for span in trace["spans"]
    }
    told = str(spans)
    assert desk.QUESTION not in told
    assert done.out.strip() not in told
    assert not any(
        key.startswith("mlflow.") or key == keys.INPUT_MESSAGES for span in spans for key in span["attributes"]
    )

"""OpenTelemetry's variables mean under ``autolog()`` what they mean everywhere."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import dspy
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, StaticSampler

import dspy_trace
from tests.outlets import Kept, dummy, kept, names, provider_of_app  # noqa: F401  # a fixture
from tests.parts.recorder import Recorder
from tests.samplers import LeavesOut
from tests.test_provider import under_remote_parent

SECRET = "canary-of-the-prompt"

ONE = """
> invoke_workflow Predict
  chat dummy
"""


def call(question: str = SECRET) -> None:
    """Make one call of two spans."""
    with dspy.context(lm=dummy([question])):
        assert dspy.Predict("question -> answer")(question=question).answer == question


def test_the_sdk_is_disabled(kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """``OTEL_SDK_DISABLED`` switches all of it off, quietly."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    dspy_trace.autolog()
    call()
    assert not trace.get_tracer("client").start_span("span").is_recording()
    assert kept.rows() == []
    assert caplog.records == []
    assert dspy_trace.stats().observed == 0


SAMPLERS = [
    ({"OTEL_TRACES_SAMPLER": "always_off"}, None, False),
    ({"OTEL_TRACES_SAMPLER": "always_on"}, None, True),
    ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.0"}, None, False),
    ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1.0"}, None, True),
    ({}, False, False),
    ({}, True, True),
    ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, None, False),
    ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, True, True),
    ({"OTEL_TRACES_SAMPLER": "always_on"}, False, True),
]


@pytest.mark.parametrize(("environ", "parent", "sampled"), SAMPLERS)
def test_sampling(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], parent: bool | None, sampled: bool
) -> None:
    """``OTEL_TRACES_SAMPLER`` and the remote parent's flag decide whether a trace reaches MLflow at all."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    dspy_trace.autolog()
    if parent is None:
        call()
    else:
        with under_remote_parent(parent):
            call()
    assert kept.tree() == (ONE if sampled else "\n")
    assert dspy_trace.stats().observed == 2 * sampled


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, StaticSampler(Decision.RECORD_ONLY)], ids=["drop", "record only"])
def test_the_applications_sampler(kept: Kept, sampler: Sampler) -> None:
    """What the application's provider does not sample goes nowhere, MLflow included."""
    provider, exporter = provider_of_app(sampler=sampler)
    trace.set_tracer_provider(provider)
    dspy_trace.autolog()
    call()
    assert (names(exporter), kept.rows()) == ([], [])


def test_a_sampler_that_thins_out(kept: Kept) -> None:
    """A trace without some of its spans is still one trace with its root."""
    provider, exporter = provider_of_app(sampler=LeavesOut("chat"))
    trace.set_tracer_provider(provider)
    dspy_trace.autolog()
    call()
    assert names(exporter) == ["invoke_workflow Predict"]
    assert kept.tree() == "\n> invoke_workflow Predict\n"


def test_span_limits(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits hold for what stands on spans; what travels beside them to MLflow does not count among it."""
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "3")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "60")
    provider, exporter = provider_of_app()
    trace.set_tracer_provider(provider)
    dspy_trace.autolog(capture_content=True)
    call(SECRET + " long" * 100)
    for span in exporter.get_finished_spans():
        assert len(span.attributes or {}) == 3
        assert all(len(value) <= 60 for value in (span.attributes or {}).values() if isinstance(value, str))
    assert kept.tree() == ONE
    for row in kept.rows():
        assert SECRET in json.dumps(row["attributes"]["mlflow.spanInputs"])


def test_the_resource(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` are tags of the trace."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "help-desk")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.version=7")
    dspy_trace.autolog()
    call()
    (root,) = [row["attributes"] for row in kept.rows() if row["root"]]
    tags = {
        key.removeprefix("mlflow.traceTag."): value for key, value in root.items() if key.startswith("mlflow.traceTag.")
    }
    assert tags == {
        "mlflow.traceName": "Predict",
        "service.name": "help-desk",
        "service.version": "7",
        "deployment.environment.name": "test",
    }


WRONG = [
    ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "lots"}, False),
    ({"OTEL_BSP_MAX_QUEUE_SIZE": "9", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, True),
    ({"OTEL_BSP_MAX_QUEUE_SIZE": "many", "OTEL_BSP_SCHEDULE_DELAY": "-5"}, True),
    ({"OTEL_TRACES_SAMPLER": "sometimes"}, True),
    ({"DSPY_TRACE_DURABILITY": "maybe", "DSPY_TRACE_EXIT_WAIT": "soon"}, True),
]


@pytest.mark.parametrize(("environ", "traced"), WRONG, ids=lambda value: "".join(value) if type(value) is dict else "")
def test_a_wrong_value_harms_nothing(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, environ: dict[str, str], traced: bool
) -> None:
    """A variable that makes no sense raises nothing into the program; where it costs spans, one WARNING says so."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    dspy_trace.autolog()
    call()
    assert kept.tree() == (ONE if traced else "\n")
    said = [record for record in caplog.records if record.levelno >= logging.WARNING and record.name == "dspy_trace"]
    assert len(said) == (not traced) + ("OTEL_EXPORTER_OTLP_ENDPOINT" in environ)


def test_a_wrong_value_that_the_sdk_cannot_be_imported_with(tmp_path: Path) -> None:
    """Some variables are read as early as that: the program runs, and one line says what is wrong."""
    program = """
import dspy, dspy_trace
from dspy.utils import DummyLM
dspy_trace.autolog()
dspy_trace.autolog(experiment="another")
with dspy_trace.session(session_id="chat"), dspy.context(lm=DummyLM([{"answer": "yes"}])):
    print(dspy.Predict("question -> answer")(question="?").answer)
print(dspy_trace.last_trace_id(), dspy_trace.flush(), dspy_trace.shutdown())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "lots", "DSPY_TRACE_SPOOL_DIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "yes\nNone True None\n"), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "dspy-trace: OpenTelemetry's SDK cannot be imported, so nothing is traced: OTEL_SPAN_ATTRIBUTE"
    )


def exporting() -> set[threading.Thread]:
    """Return the threads of the SDK's batch processors."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("Otel")}


@pytest.mark.parametrize("endpoint", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_over_otlp_as_well(kept: Kept, monkeypatch: pytest.MonkeyPatch, recorder: Recorder, endpoint: str) -> None:
    """Where a collector is named and the provider is ours, it gets the same spans under the same ids, less content."""
    monkeypatch.setenv(endpoint, recorder.endpoint + "/v1/traces" * ("TRACES" in endpoint))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    before = exporting()
    dspy_trace.autolog()
    call()
    assert len(exporting() - before) == 1
    spans = recorder.wait_for(2)
    rows = kept.rows()
    assert {(span["trace_id"], span["span_id"], span["parent_id"] or None) for span in spans} == {
        (row["trace_id"], row["span_id"], row["parent_id"]) for row in rows
    }
    assert SECRET not in str(spans)
    assert SECRET in str(rows)
    assert not any(key.startswith("mlflow.") for span in spans for key in span["attributes"])


@pytest.mark.parametrize("why", ["no endpoint", "exporter none", "theirs"])
def test_not_over_otlp(kept: Kept, monkeypatch: pytest.MonkeyPatch, recorder: Recorder, why: str) -> None:
    """Where no collector is named, or OTLP is switched off, or the provider is not ours, nothing of ours exports."""
    if why != "no endpoint":
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", recorder.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    if why == "exporter none":
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    if why == "theirs":
        trace.set_tracer_provider(provider_of_app()[0])
    before = exporting()
    dspy_trace.autolog()
    call()
    assert kept.tree() == ONE
    assert exporting() == before
    assert recorder.spans() == []


def test_a_provider_that_the_environment_names(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """``OTEL_PYTHON_TRACER_PROVIDER`` is the application's choice like any other, and is joined."""
    monkeypatch.setenv("OTEL_PYTHON_TRACER_PROVIDER", "sdk_tracer_provider")
    dspy_trace.autolog()
    call()
    assert type(trace.get_tracer_provider()) is TracerProvider
    assert kept.tree() == ONE

"""``autolog()`` sends metrics over OTLP where that is configured, and claims nobody's meter provider."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from time import monotonic

import dspy
import opentelemetry.metrics._internal as metrics_api
import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider

import dspy_trace
from dspy_trace import autologging
from tests.outlets import Kept, dummy, kept  # noqa: F401  # a fixture
from tests.parts.measured import Measured
from tests.parts.recorder import Recorder


@pytest.fixture(autouse=True)
def providers(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin without a meter provider, the application's or ours, and end what was made."""
    spare: list[MeterProvider] = []
    monkeypatch.delenv("OTEL_METRICS_EXPORTER")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setattr(metrics_api, "_METER_PROVIDER", None)
    monkeypatch.setattr(autologging, "_spare", spare)
    yield
    for provider in spare:
        provider.shutdown(timeout_millis=100)


def call() -> None:
    with dspy.context(lm=dummy(["yes"])):
        dspy.Predict("question -> answer")(question="?")


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"])
@pytest.mark.parametrize("preference", ["cumulative", "delta"])
def test_over_otlp(
    variable: str, preference: str, kept: Kept, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the collector that OpenTelemetry's variables name, in the way that they name."""
    monkeypatch.setenv(variable, recorder.endpoint + ("/v1/metrics" if "METRICS" in variable else ""))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", preference)
    before = metrics.get_meter_provider()
    dspy_trace.autolog()
    call()
    assert metrics.get_meter_provider() is before
    autologging._spare[0].force_flush()
    duration = recorder.wait_for_metrics("gen_ai.invoke_workflow.duration")["gen_ai.invoke_workflow.duration"]
    assert [point.count for point in duration.histogram.data_points] == [1]
    assert duration.histogram.aggregation_temporality == (2 if preference == "cumulative" else 1)


def test_exponential_histograms(kept: Kept, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other kind of histograms that OpenTelemetry has, where it is asked for."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", recorder.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    name = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
    monkeypatch.setenv(name, "base2_exponential_bucket_histogram")
    dspy_trace.autolog()
    call()
    autologging._spare[0].force_flush()
    duration = recorder.wait_for_metrics("gen_ai.invoke_workflow.duration")["gen_ai.invoke_workflow.duration"]
    assert duration.WhichOneof("data") == "exponential_histogram"


@pytest.mark.parametrize("exporter", [None, "none", "console"])
def test_not_asked_for(exporter: str | None, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an endpoint there are no metrics; nor where the variable of exporters lacks OTLP."""
    if exporter is not None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://127.0.0.1:9/v1/metrics")
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", exporter)
    dspy_trace.autolog()
    call()
    assert autologging._spare == []


def test_the_application_has_a_provider(kept: Kept, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own takes the metrics from the moment that it is set; ours then gets none, and sends its last ones once."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{recorder.endpoint}/v1/metrics")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    dspy_trace.autolog()
    call()
    theirs = Measured()
    monkeypatch.setattr(metrics_api, "_METER_PROVIDER", theirs.provider)
    call()
    call()
    assert [count for count, _ in theirs.counts()["gen_ai.invoke_workflow.duration"]] == [2]
    autologging._spare[0].force_flush()
    ours = recorder.wait_for_metrics("gen_ai.invoke_workflow.duration")["gen_ai.invoke_workflow.duration"]
    assert [point.count for point in ours.histogram.data_points] == [1]
    autologging._spare[0].force_flush()
    assert recorder.wait_for_metrics("gen_ai.invoke_workflow.duration")["gen_ai.invoke_workflow.duration"] == ours


NAME = "gen_ai.invoke_workflow.duration"


def sent(recorder: Recorder) -> list[int]:
    """Let our provider export now; return how many calls the last of its exports that arrived has counted."""
    autologging._spare[0].force_flush()
    return [point.count for point in recorder.wait_for_metrics(NAME)[NAME].histogram.data_points]


def is_silent(recorder: Recorder) -> bool:
    """Let our provider export now; return whether nothing arrives."""
    recorder.forget_metrics()
    autologging._spare[0].force_flush()
    with pytest.raises(TimeoutError, match=r"\[\]"):
        recorder.wait_for_metrics(NAME, timeout=0)
    return True


@pytest.mark.parametrize(
    ("preference", "first", "on_the_way", "after"), [("cumulative", [1], [1, 1], [1, 2]), ("delta", [1], [1], [1])]
)
def test_one_is_given_later(
    preference: str,
    first: list[int],
    on_the_way: list[int],
    after: list[int],
    kept: Kept,
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The provider that was given last takes the metrics; ours sends its last ones once and then nothing.

    A call that goes on meanwhile is still counted by ours, and sent. When nothing is given any more, ours goes on from
    there: no call is counted twice, and none is missing.
    """
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{recorder.endpoint}/v1/metrics")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", preference)
    given = Measured()

    class Asks(dspy.Module):
        def forward(self) -> None:
            dspy_trace.autolog(meter_provider=given.provider)
            assert sent(recorder) == first

    dspy_trace.autolog()
    call()
    Asks()()
    call()
    assert sorted(sent(recorder)) == on_the_way
    assert is_silent(recorder)
    dspy_trace.autolog()
    call()
    assert sorted(sent(recorder)) == after
    assert [count for count, _ in given.counts()[NAME]] == [1]
    dspy_trace.autolog(disable=True)
    assert is_silent(recorder)


def test_shutdown(kept: Kept, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was recorded is sent and our provider has ended; tracing that begins again has a new one."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{recorder.endpoint}/v1/metrics")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    for calls in (1, 2):
        dspy_trace.autolog()
        for _ in range(calls):
            call()
        dspy_trace.shutdown()
        assert autologging._spare == []
        told = recorder.wait_for_metrics(NAME, timeout=0)[NAME]
        assert [point.count for point in told.histogram.data_points] == [calls]
    assert not [thread for thread in threading.enumerate() if "PeriodicExportingMetricReader" in thread.name]


def test_shutdown_does_not_wait_for_a_dead_collector(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """No longer than it is told to."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://127.0.0.1:9/v1/metrics")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    dspy_trace.autolog()
    call()
    begun = monotonic()
    dspy_trace.shutdown(timeout=0.2)
    assert monotonic() - begun < 5


def test_the_one_that_is_given(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """``meter_provider=`` wins, and none is made."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://127.0.0.1:9/v1/metrics")
    given = Measured()
    dspy_trace.autolog(meter_provider=given.provider)
    call()
    assert [count for count, _ in given.counts()["gen_ai.invoke_workflow.duration"]] == [1]
    assert autologging._spare == []

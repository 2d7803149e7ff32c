"""Every metric and event of a program that uses everything keeps to OpenTelemetry's conventions and our tables."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from dspy_trace.settings import STABILITY_OPT_IN
from dspy_trace.testing import record
from dspy_trace.vocab import instruments
from tests import everything
from tests.balanced import fresh_cache
from tests.parts import semconv, semconv_signals
from tests.parts.measured import Logged, Measured
from tests.parts.scripted_lm import ScriptedLM

pytestmark = pytest.mark.filterwarnings("ignore:Passing OpenAI-style:DeprecationWarning")

LATEST = "gen_ai_latest_experimental"


class Run(NamedTuple):
    """A run of everything, in one mode of content and one spelling."""

    mode: str
    latest: bool
    metrics: Any
    events: list[Any]


@pytest.fixture(scope="module", params=[("NO_CONTENT", ""), ("EVENT_ONLY", ""), ("SPAN_AND_EVENT", LATEST)])
def run(request: pytest.FixtureRequest) -> Run:
    mode, opt_in = request.param
    measured, logged = Measured(), Logged()
    with pytest.MonkeyPatch.context() as patch, ScriptedLM() as server:
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv(STABILITY_OPT_IN, opt_in)
        patch.delenv("OPENAI_BASE_URL", raising=False)
        patch.delenv("OPENAI_API_BASE", raising=False)
        providers = {"meter_provider": measured.provider, "logger_provider": logged.provider}
        with fresh_cache(), record(capture_content=mode, **providers):
            everything.run(server)
    return Run(mode, bool(opt_in), measured.metrics(), logged.events())


def test_metrics_keep_to_the_conventions(run: Run) -> None:
    """Names, units, buckets, required and allowed attributes; no ``gen_ai.*`` that they do not know."""
    known = semconv_signals.NEWEST if run.latest else semconv_signals.TODAY
    assert list(semconv_signals.wrong_metrics(run.metrics, known)) == []
    wanted = {name for name in known if "_chunk" not in name and "cache_write" not in name}
    assert wanted <= run.metrics.keys()


def test_metrics_are_documented(run: Run) -> None:
    """Each stands in the table, under its name in this spelling, with every attribute that it has."""
    table = {one.called(run.latest): one for one in instruments.ALL}
    for name, metric in run.metrics.items():
        assert metric.description
        assert {key for point in metric.data.data_points for key in point.attributes} <= set(table[name].attributes)


def test_events_keep_to_the_conventions(run: Run) -> None:
    """Required and allowed attributes, structures instead of JSON, and details only where they are asked for."""
    assert [problem for event in run.events for problem in semconv_signals.wrong_event(event)] == []
    names = {event.event_name for event in run.events}
    asked_for = {name for name in semconv_signals.EVENTS if name.startswith("gen_ai.client")}
    assert names == set(semconv_signals.EVENTS) - (asked_for if run.mode == "NO_CONTENT" else set())
    assert all(event.trace_id and event.span_id for event in run.events)


def test_content_of_events(run: Run) -> None:
    """Content is on events in the modes that say so, and in no other, and never in metrics."""
    told = str([dict(event.attributes) for event in run.events])
    found = {place for place in everything.PLACES if place in told}
    assert bool(found) == (run.mode != "NO_CONTENT")
    keys = {key for event in run.events for key in event.attributes}
    assert bool(keys & semconv.CONTENT) == (run.mode != "NO_CONTENT")
    assert "canary" not in str(run.metrics)


def test_every_event_can_be_encoded(run: Run) -> None:
    """Each event goes over the wire as it is, structures included."""
    from opentelemetry._logs import LogRecord
    from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    assert all(isinstance(event, LogRecord) for event in run.events)
    readable = [ReadableLogRecord(event, Resource({}), InstrumentationScope("dspy_trace")) for event in run.events]
    encoded = encode_logs(readable)
    (scope,) = encoded.resource_logs[0].scope_logs
    assert [record.event_name for record in scope.log_records] == [event.event_name for event in run.events]

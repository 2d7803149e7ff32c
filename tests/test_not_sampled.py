"""What is not sampled costs little: beneath a span that is left out, calls are observed only if somebody is told."""

from __future__ import annotations

import dspy
import pytest
from dspy.utils import DummyLM
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    SamplingResult,
)

from dspy_trace.testing import record
from tests.parts.scripted_lm import ScriptedLM
from tests.samplers import LeavesOut


def call() -> None:
    with dspy.context(lm=DummyLM([{"reasoning": "so", "answer": "yes"}])):
        dspy.ChainOfThought("question -> answer")(question="?")


ALL = ["invoke_workflow ChainOfThought", "Predict predict", "chat dummy"]


def test_a_sampler_of_the_applications_is_asked_about_every_span() -> None:
    """It may sample what is beneath a span that it left out."""
    sampler = LeavesOut("invoke_workflow")
    with record(sampler=sampler) as trace:
        call()
    assert sampler.names == ALL
    assert [span.name for span in trace.spans] == ["chat dummy", "Predict predict"]


def test_a_parents_decision_is_asked_for_once() -> None:
    """Where it holds for what is beneath, nobody is asked again; an LM is told, and so has a span for that."""
    sampler = LeavesOut("")
    with record(sampler=ParentBased(sampler)) as trace:
        call()
        call()
    assert sampler.names == ["invoke_workflow ChainOfThought"] * 2
    assert trace.spans == ()


def test_another_decision_beneath_is_asked_for() -> None:
    """``ParentBased`` may sample what is beneath a span that it left out."""
    with record(sampler=ParentBased(ALWAYS_OFF, local_parent_not_sampled=ALWAYS_ON)) as trace:
        call()
    assert [span.name for span in trace.spans] == ["chat dummy", "Predict predict"]


def test_metrics_are_of_all_calls() -> None:
    """They count what is not sampled, too."""
    reader = InMemoryMetricReader()
    with record(sampler=ALWAYS_OFF, meter_provider=MeterProvider([reader], shutdown_on_exit=False)):
        call()
    data = reader.get_metrics_data()
    assert data is not None
    metrics = data.resource_metrics[0].scope_metrics[0].metrics
    assert "gen_ai.client.operation.duration" in {metric.name for metric in metrics}


@pytest.mark.parametrize("inside", [True, False], ids=["in a module", "alone"])
def test_a_sampled_trace_after_one_that_was_not(scripted_lm: ScriptedLM, inside: bool) -> None:
    """Nothing of a trace that is left out stays behind for the next."""

    class Alternating(LeavesOut):
        def should_sample(self, *args: object, **kwargs: object) -> SamplingResult:  # type: ignore[override]  # any
            self.names.append("")
            return SamplingResult(Decision.DROP if len(self.names) % 2 else Decision.RECORD_AND_SAMPLE)

    lm = scripted_lm.lm()
    with record(sampler=ParentBased(Alternating("")), capture_content=False) as trace, dspy.context(lm=lm):
        for _ in range(4):
            if inside:
                dspy.Predict("question -> answer")(question="?")
            else:
                lm("?")
    assert len(trace.spans) == (4 if inside else 2)
    assert len({span.context.trace_id for span in trace.spans if span.context}) == 2

"""Metrics: exact points of a program, whatever is sampled or traced, and none where nobody takes them."""

from __future__ import annotations

from typing import Any

import dspy
import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NoOpTracerProvider

from dspy_trace import DSPyInstrumentor, metrics
from dspy_trace.facts import LMCall
from dspy_trace.metrics import Meters
from dspy_trace.settings import STABILITY_OPT_IN
from dspy_trace.testing import record
from dspy_trace.vocab import instruments
from dspy_trace.vocab.genai import GenAI
from tests.balanced import fresh_cache
from tests.parts.measured import Measured
from tests.parts.scripted_answers import Reply, fill, in_turn
from tests.parts.scripted_lm import ScriptedLM

MODEL = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
}
ANSWERED = {**MODEL, "gen_ai.response.model": "gpt-4o-mini"}
USAGE = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}


@pytest.fixture
def measured() -> Measured:
    return Measured()


def answer(body: Any) -> Reply:
    return Reply(fill(body, answer="yes"), usage=USAGE)


def test_of_a_program(scripted_lm: ScriptedLM, measured: Measured) -> None:
    """Duration, tokens and cost of the LM call and duration of the program, each once, and nothing else."""
    scripted_lm.answer = answer
    with record(meter_provider=measured.provider), dspy.context(lm=scripted_lm.lm()):
        dspy.ChainOfThought("question -> answer")(question="?")
    cost = measured.points("dspy.lm.cost")[0].value
    assert measured.counts() == {
        "gen_ai.client.operation.duration": [(1, ANSWERED)],
        "gen_ai.client.token.usage": [
            (1, {**ANSWERED, "gen_ai.token.type": "input"}),
            (1, {**ANSWERED, "gen_ai.token.type": "output"}),
        ],
        "gen_ai.invoke_workflow.duration": [(1, {"gen_ai.workflow.name": "ChainOfThought"})],
        "dspy.lm.cost": [(cost, MODEL)],
    }
    assert cost > 0
    assert [point.sum for point in measured.points("gen_ai.client.token.usage")] == [100, 7]
    (duration,) = measured.points("gen_ai.client.operation.duration")
    assert 0 < duration.sum < 60
    assert duration.attributes["server.address"] == "127.0.0.1"
    assert duration.attributes["server.port"] > 1024


def test_the_newest_names(scripted_lm: ScriptedLM, measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    """By OpenTelemetry's opt-in, and then only they."""
    monkeypatch.setenv(STABILITY_OPT_IN, "gen_ai_latest_experimental")
    details = {"prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 2}}
    scripted_lm.answer = lambda body: Reply("yes", usage={**USAGE, **details})
    with record(meter_provider=measured.provider):
        scripted_lm.lm()("?")
        scripted_lm.embedder()(["text"])
    told = measured.counts()
    usage = "gen_ai.client.inference.usage"
    assert {name: points[0][0] for name, points in told.items() if name.startswith(usage)} == {
        f"{usage}.input_tokens": 100,
        f"{usage}.output_tokens": 7,
        f"{usage}.cache_read.input_tokens": 3,
        f"{usage}.reasoning.output_tokens": 2,
    }
    assert told[f"{usage}.input_tokens"][0][1] == {**ANSWERED, "gen_ai.token.modality": "unknown"}
    assert told["gen_ai.client.inference.duration"] == [(1, ANSWERED)]
    assert told["gen_ai.client.inference.operation.output_tokens"] == [(1, ANSWERED)]
    assert [count for count, _ in told["gen_ai.client.embeddings.duration"]] == [1]
    assert [point.sum for point in measured.points("gen_ai.client.embeddings.operation.input_tokens")] == [1]
    assert "gen_ai.client.operation.duration" not in told
    assert "gen_ai.client.token.usage" not in told


def test_a_cache_hit_is_no_inference(scripted_lm: ScriptedLM, measured: Measured) -> None:
    """It is in neither latency, tokens nor cost, and is counted by itself."""
    scripted_lm.answer = lambda body: Reply("yes", usage=USAGE)
    lm = scripted_lm.lm(cache=True)
    with fresh_cache(), record(meter_provider=measured.provider):
        for _ in range(3):
            lm("?")
    told = measured.counts()
    assert told["dspy.lm.cache_hits"] == [(2, MODEL)]
    assert told["gen_ai.client.operation.duration"] == [(1, ANSWERED)]
    assert [count for count, _ in told["gen_ai.client.token.usage"]] == [1, 1]


def test_failures_and_retries(scripted_lm: ScriptedLM, measured: Measured) -> None:
    """A failed call has its error's type and no tokens; what was tried again is counted; a parse failure, too."""
    busy = Reply("busy", status=429, headers={"retry-after": "0"})
    scripted_lm.answer = in_turn(busy, "unreadable", then=answer)
    predict = dspy.Predict("question -> answer")
    with record(meter_provider=measured.provider), dspy.context(lm=scripted_lm.lm(num_retries=2)):
        predict(question="?")
        scripted_lm.answer = lambda body: Reply("no", status=400)
        with pytest.raises(Exception, match="no"):
            predict(question="?")
    told = measured.counts()
    failed = {"error.type": "LMInvalidRequestError"}
    assert (1, {**MODEL, **failed}) in told["gen_ai.client.operation.duration"]
    assert (1, {"gen_ai.workflow.name": "Predict", **failed}) in told["gen_ai.invoke_workflow.duration"]
    assert told["dspy.lm.retries"] == [(1, MODEL)]
    assert told["dspy.adapter.parse_failures"] == [
        (1, {"dspy.adapter": "ChatAdapter", "error.type": "AdapterParseError"})
    ]


def look(city: str) -> str:
    """Look."""
    return "sunny"


def test_an_agent(scripted_lm: ScriptedLM, measured: Measured) -> None:
    """How long it and its tools took, and how many of each it called, over those within it."""
    act = in_turn(
        lambda body: fill(body, next_thought="t", next_tool_name="look", next_tool_args={"city": "Rome"}),
        lambda body: fill(body, next_thought="t", next_tool_name="finish", next_tool_args={}),
        then=answer,
    )
    scripted_lm.answer = act
    with record(meter_provider=measured.provider), dspy.context(lm=scripted_lm.lm()):
        dspy.ReAct("question -> answer", tools=[look])(question="?")
    told, agent = measured.counts(), {"gen_ai.agent.name": "ReAct"}
    tool = {"gen_ai.tool.name": "look", "gen_ai.tool.type": "function", **agent}
    assert told["gen_ai.execute_tool.duration"] == [(1, tool)]
    assert told["gen_ai.invoke_agent.duration"] == [(1, agent)]
    assert measured.points("gen_ai.invoke_agent.inference_calls")[0].sum == 3
    assert measured.points("gen_ai.invoke_agent.tool_calls")[0].sum == 1
    assert "gen_ai.invoke_workflow.duration" not in told


def test_an_evaluation(scripted_lm: ScriptedLM, measured: Measured) -> None:
    """The score of each example, and of all in percent; also where the traces of evaluations are not wanted."""
    scripted_lm.answer = answer
    devset = [dspy.Example(question=text, answer="yes").with_inputs("question") for text in ("a", "b")]

    def right(example: Any, prediction: Any, trace: Any = None) -> float:
        return 0.5 if example.question == "a" else 1.0

    evaluate = dspy.Evaluate(devset=devset, metric=right, num_threads=2)
    with (
        record(meter_provider=measured.provider, log_traces_from_eval=False) as trace,
        dspy.context(lm=scripted_lm.lm()),
    ):
        evaluate(dspy.Predict("question -> answer"))
    attributes = {"dspy.evaluate.program": "Predict", "gen_ai.evaluation.name": "right"}
    told = measured.counts()
    assert told["dspy.evaluate.example.score"] == [(2, attributes)]
    assert measured.points("dspy.evaluate.example.score")[0].sum == 1.5
    assert told["dspy.evaluate.score"] == [(75.0, attributes)]
    assert told["gen_ai.client.operation.duration"] == [(2, ANSWERED)]
    assert trace.spans == ()


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number(score: float, scripted_lm: ScriptedLM, measured: Measured) -> None:
    """It spoils no sum."""
    scripted_lm.answer = answer
    devset = [dspy.Example(question=text, answer="yes").with_inputs("question") for text in ("odd", "even")]

    def odd(example: Any, prediction: Any, trace: Any = None) -> Any:
        return score if example.question == "odd" else 1.0

    evaluate = dspy.Evaluate(devset=devset, metric=odd, num_threads=1)
    with record(meter_provider=measured.provider), dspy.context(lm=scripted_lm.lm()):
        evaluate(dspy.Predict("question -> answer"))
    assert [point.sum for point in measured.points("dspy.evaluate.example.score")] == [1.0]


@pytest.mark.parametrize("latest", [False, True])
def test_the_first_chunk(latest: bool, measured: Measured) -> None:
    """Time to the first chunk of a stream, without the error that it may have ended in."""
    spellings = {kind: [spelling] for kind, spelling in GenAI(latest).spellings.items()}
    call = LMCall("LM", "gpt-4o-mini", "openai", streaming=True, first_chunk=0.5, between_chunks=[0.25, 0.125])
    Meters(measured.provider.get_meter("test"), spellings, latest).watch(call, None).stop(ValueError("cut"), None)
    told = measured.counts()
    name = f"gen_ai.client.{'inference' if latest else 'operation'}"
    assert told[f"{name}.time_to_first_chunk"] == [(1, MODEL)]
    assert measured.points(f"{name}.time_to_first_chunk")[0].sum == 0.5
    assert told[f"{name}.time_per_output_chunk"] == [(2, MODEL)]
    assert measured.points(f"{name}.time_per_output_chunk")[0].sum == 0.375
    assert told[f"{name}.duration"] == [(1, {**MODEL, "error.type": "ValueError"})]


def test_a_stream(scripted_lm: ScriptedLM, measured: Measured) -> None:
    """Its first chunk comes before its end; a call that is no stream has none."""
    scripted_lm.answer = answer
    predict = dspy.Predict("question -> answer")
    listener = dspy.streaming.StreamListener(signature_field_name="answer")
    with record(meter_provider=measured.provider), dspy.context(lm=scripted_lm.lm()):
        predict(question="whole?")
        list(dspy.streamify(predict, stream_listeners=[listener], async_streaming=False)(question="streamed?"))
    (first,) = measured.points("gen_ai.client.operation.time_to_first_chunk")
    (others,) = measured.points("gen_ai.client.operation.time_per_output_chunk")
    (whole,) = measured.points("gen_ai.client.operation.duration")
    assert (first.count, whole.count) == (1, 2)
    assert others.count > 3
    assert 0 < first.sum < first.sum + others.sum < whole.sum


@pytest.mark.parametrize("way", ["not sampled", "no spans at all"])
def test_without_spans(way: str, scripted_lm: ScriptedLM, measured: Measured) -> None:
    """Metrics count every call, whether its span is recorded or there is nobody to record it."""
    scripted_lm.answer = answer
    if way == "not sampled":
        with record(meter_provider=measured.provider, sampler=ALWAYS_OFF), dspy.context(lm=scripted_lm.lm()):
            dspy.Predict("question -> answer")(question="?")
    else:
        instrumentor = DSPyInstrumentor()
        instrumentor.instrument(tracer_provider=NoOpTracerProvider(), meter_provider=measured.provider)
        try:
            with dspy.context(lm=scripted_lm.lm()):
                dspy.Predict("question -> answer")(question="?")
        finally:
            instrumentor.uninstrument()
    told = measured.counts()
    assert told["gen_ai.client.operation.duration"] == [(1, ANSWERED)]
    assert told["gen_ai.invoke_workflow.duration"] == [(1, {"gen_ai.workflow.name": "Predict"})]


def test_suppressed(scripted_lm: ScriptedLM, measured: Measured) -> None:
    """``suppress_instrumentation()`` holds for metrics, too."""
    with record(meter_provider=measured.provider) as trace, suppress_instrumentation():
        scripted_lm.lm()("?")
    assert measured.metrics() == {}
    assert trace.spans == ()


def test_exemplars_lead_to_the_span(scripted_lm: ScriptedLM, measured: Measured) -> None:
    """A point that took long can be looked at: it names the call's own span."""
    with record(meter_provider=measured.provider) as trace:
        scripted_lm.lm()("?")
    (exemplar,) = measured.points("gen_ai.client.operation.duration")[0].exemplars
    context = trace.one("chat gpt-4o-mini").context
    assert context is not None
    assert (exemplar.trace_id, exemplar.span_id) == (context.trace_id, context.span_id)


def test_a_router_is_measured_once(scripted_lm: ScriptedLM, measured: Measured) -> None:
    """An LM that asks another reports the other's usage again: only the other's is measured."""
    inner = scripted_lm.lm()

    class Router(dspy.BaseLM):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return inner(*args, **kwargs)

    with record(meter_provider=measured.provider) as trace:
        Router("router")("?")
    assert len(trace.spans) == 2
    assert measured.counts()["gen_ai.client.operation.duration"] == [(1, ANSWERED)]


@pytest.mark.parametrize("latest", [False, True])
def test_every_instrument_is_as_it_is_documented(latest: bool, measured: Measured) -> None:
    """Name, unit, description and buckets of the table reach the SDK, in either spelling."""
    spellings = {kind: [spelling] for kind, spelling in GenAI(latest).spellings.items()}
    meters = Meters(measured.provider.get_meter("test"), spellings, latest)
    wanted = [one for one in instruments.ALL if one.called(latest)]
    for one in wanted:
        meters._put(one, 1, {}, None)
    made = measured.metrics()
    assert set(made) == {one.called(latest) for one in wanted}
    for one in reversed(wanted):
        metric = made[str(one.called(latest))]
        assert metric.unit == one.unit
        if one.buckets is not None:
            assert list(metric.data.data_points[0].explicit_bounds) == list(one.buckets)


def test_no_meter_provider_no_clock(scripted_lm: ScriptedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is computed where nobody takes metrics, be the provider absent or a no-op."""
    monkeypatch.setattr(metrics, "perf_counter", lambda: pytest.fail("the clock was read"))
    for provider in (None, NoOpMeterProvider()):
        with record(meter_provider=provider):
            scripted_lm.lm()("?")


@pytest.mark.parametrize("name", ["meter_provider", "logger_provider", "tracer_provider"])
def test_a_provider_must_be_one(name: str) -> None:
    """The wrong type is said at once."""
    with pytest.raises(TypeError, match=f"{name} must be a"):
        DSPyInstrumentor().instrument(**{name: 7})

"""Each step of ours may fail, and the application's telemetry too: the program's results and requests stay the same."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import dspy
import pytest
from dspy.utils import DummyLM
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from dspy_trace import DSPyInstrumentor, guard
from dspy_trace.observing import wrappers
from dspy_trace.observing.patching import Patches
from dspy_trace.points.adapters import ParseNotes
from dspy_trace.points.evaluate import ExampleReader
from dspy_trace.points.lm import FinalizeNotes, LMReader
from dspy_trace.points.modules import ModuleReader
from dspy_trace.testing import record
from dspy_trace.vocab.genai import GenAI
from dspy_trace.vocab.genai_calls import LMSpelling, ModuleSpelling
from tests.parts.scripted_answers import in_turn
from tests.parts.scripted_lm import ScriptedLM

WHOLE = """
invoke_workflow QA
  ChainOfThought generate
    Predict generate.predict
      * dspy.adapter.parse_error
      * dspy.adapter.fallback
      chat gpt-4o-mini
      chat gpt-4o-mini
"""
NO_MODULES = """
chat gpt-4o-mini
chat gpt-4o-mini
"""
NO_LM = """
invoke_workflow QA
  ChainOfThought generate
    Predict generate.predict
      * dspy.adapter.parse_error
      * dspy.adapter.fallback
"""
NO_EVENTS = """
invoke_workflow QA
  ChainOfThought generate
    Predict generate.predict
      chat gpt-4o-mini
      chat gpt-4o-mini
"""
NOTHING = "\n"


class QA(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generate = dspy.ChainOfThought("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.generate(question=question)

    async def aforward(self, question: str) -> dspy.Prediction:
        return await self.generate.acall(question=question)


class Bug(Exception):
    """A defect of ours."""


def buggy(*args: Any, **kwargs: Any) -> Any:
    raise Bug("a defect of ours")


Run = Callable[[], tuple[Any, list[Any]]]


@pytest.fixture
def run(scripted_lm: ScriptedLM) -> Run:
    """Run the program, whose first answer cannot be parsed; return its output, and what the LM was asked."""

    def run() -> tuple[Any, list[Any]]:
        scripted_lm.answer = in_turn("nothing of use")
        before = len(scripted_lm.requests)
        with dspy.context(lm=scripted_lm.lm()):
            output = QA()(question="why?").toDict()
        return output, [request.body for request in scripted_lm.requests[before:]]

    return run


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Swallow, as outside of our suite, and count anew."""
    monkeypatch.setattr(guard, "strict", False)
    monkeypatch.setattr(guard, "failures", Counter())
    return guard.failures


STEPS: dict[str, tuple[Any, str, str, int, str]] = {
    "begin of a module": (ModuleReader, "begin", "beginning a call", 3, NO_MODULES),
    "begin of an LM call": (LMReader, "begin", "beginning a call", 2, NO_LM),
    "name of a span": (ModuleSpelling, "name", "beginning a call", 3, NO_MODULES),
    "attributes at the start": (LMSpelling, "at_start", "beginning a call", 2, NO_LM),
    "attributes of the call": (ModuleSpelling, "at_call", "describing a call", 3, WHOLE),
    "end of a module": (ModuleReader, "end", "ending a call", 3, WHOLE),
    "end of an LM call": (LMReader, "end", "ending a call", 2, WHOLE),
    "attributes of the result": (LMSpelling, "at_end", "ending a call", 2, WHOLE),
    "notes on a result": (FinalizeNotes, "before", "noting a call", 2, WHOLE),
    "notes on a failure": (ParseNotes, "failed", "noting a call", 2, NO_EVENTS),
    "an event": (GenAI, "event", "recording an event", 2, NO_EVENTS),
}


@pytest.mark.parametrize("name", STEPS)
def test_each_step_may_fail(
    name: str, run: Run, monkeypatch: pytest.MonkeyPatch, failures: Counter[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The program's result and its LM requests are as they were; all spans but those that failed are there.

    Each failure is counted, and the first is logged with its traceback, and says that the program is not affected.
    """
    owner, method, step, times, tree = STEPS[name]
    untraced = run()
    monkeypatch.setattr(owner, method, buggy)
    with record() as trace, caplog.at_level(logging.DEBUG, "dspy_trace"):
        assert run() == untraced
    assert failures == {step: times}
    assert trace.tree() == tree
    assert [(entry.name, entry.levelname) for entry in caplog.records] == [("dspy_trace", "WARNING")]
    assert f"{step} failed (Bug). The program is not affected" in caplog.text
    assert "a defect of ours" in caplog.text


@pytest.mark.filterwarnings("ignore:Implementing custom LMs:DeprecationWarning")
@pytest.mark.parametrize("name", STEPS)
def test_the_programs_own_error_comes_out(
    name: str, monkeypatch: pytest.MonkeyPatch, failures: Counter[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Where the program fails as well, its own exception comes out, untouched by ours: no cause, no context of ours."""
    owner, method, _, _, _ = STEPS[name]
    monkeypatch.setattr(owner, method, buggy)
    error = KeyError("of the program")

    class Failing(DummyLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            raise error

    with record() as trace, dspy.context(lm=Failing([]), adapter=dspy.ChatAdapter()), pytest.raises(KeyError) as raised:
        QA()(question="why?")
    assert raised.value is error
    assert (error.__cause__, error.__context__) == (None, None)
    assert all(span.attributes and span.attributes["error.type"] == "KeyError" for span in trace.spans)


def test_a_failing_step_in_async_code(
    scripted_lm: ScriptedLM, monkeypatch: pytest.MonkeyPatch, failures: Counter[str]
) -> None:
    """The same holds for awaited calls."""
    monkeypatch.setattr(ModuleReader, "begin", buggy)
    monkeypatch.setattr(LMReader, "end", buggy)

    async def ask() -> Any:
        scripted_lm.answer = in_turn("nothing of use")
        with dspy.context(lm=scripted_lm.lm()):
            return (await QA().acall(question="why?")).toDict()

    untraced = asyncio.run(ask())
    with record() as trace:
        assert asyncio.run(ask()) == untraced
    assert trace.tree() == NO_MODULES
    assert failures == {"beginning a call": 3, "ending a call": 2}


@pytest.mark.parametrize(
    ("owner", "method", "step"),
    [
        (wrappers, "examples", "reading items"),
        (ExampleReader, "begin", "beginning a call"),
        (ExampleReader, "end", "ending a call"),
    ],
)
def test_an_evaluation_goes_on(
    owner: Any, method: str, step: str, monkeypatch: pytest.MonkeyPatch, failures: Counter[str]
) -> None:
    """An evaluation gives the same score where its examples cannot be read."""
    devset = [dspy.Example(question=str(number), answer="42").with_inputs("question") for number in range(3)]

    def evaluate() -> Any:
        evaluator = dspy.Evaluate(devset=devset, metric=lambda gold, pred, trace=None: pred.answer == gold.answer)
        with dspy.context(lm=DummyLM([{"reasoning": "because", "answer": "42"}] * 3)):
            return evaluator(QA()).score

    untraced = evaluate()
    monkeypatch.setattr(owner, method, buggy)
    with record() as trace:
        assert evaluate() == untraced == 100.0
    assert trace.one("evaluate QA").attributes["dspy.evaluate.score"] == 100.0
    assert len(trace.named("invoke_workflow QA")) == 3
    assert set(failures) == {step}


class BrokenSampler(Sampler):
    should_sample = buggy

    def get_description(self) -> str:
        return "broken"


class BrokenProcessor(SpanProcessor):
    def __init__(self, method: str) -> None:
        setattr(self, method, buggy)


@pytest.mark.parametrize(
    ("sampler", "method", "step"),
    [
        (BrokenSampler(), "", "beginning a call"),
        (ALWAYS_ON, "on_start", "beginning a call"),
        (ALWAYS_ON, "on_end", "ending a call"),
        (ALWAYS_ON, "_on_ending", "ending a call"),
    ],
)
def test_the_applications_telemetry_may_fail(
    sampler: Sampler, method: str, step: str, run: Run, failures: Counter[str]
) -> None:
    """A sampler or span processor of the application's that raises costs spans only."""
    untraced = run()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    if method:
        provider.add_span_processor(BrokenProcessor(method))
    DSPyInstrumentor().instrument(tracer_provider=provider)
    try:
        assert run() == untraced
    finally:
        DSPyInstrumentor().uninstrument()
    assert set(failures) == {step}


def test_a_provider_without_a_tracer(run: Run, failures: Counter[str]) -> None:
    """A provider whose ``get_tracer`` raises costs the trace only."""

    class Broken(TracerProvider):
        get_tracer = buggy

    untraced = run()
    DSPyInstrumentor().instrument(tracer_provider=Broken(shutdown_on_exit=False))
    try:
        assert run() == untraced
    finally:
        DSPyInstrumentor().uninstrument()
    assert failures


def test_patching_may_fail(run: Run, monkeypatch: pytest.MonkeyPatch, failures: Counter[str]) -> None:
    """Where DSPy cannot be patched, it runs untraced."""
    untraced = run()
    monkeypatch.setattr(Patches, "module_loaded", buggy)
    with record() as trace:
        assert run() == untraced
    assert trace.tree() == NOTHING
    assert set(failures) == {"patching DSPy"}


def test_redaction_may_fail(run: Run, failures: Counter[str]) -> None:
    """A ``redact`` of the application's that raises costs the values, and is no failure of ours."""
    untraced = run()
    with record(capture_content=True, redact=buggy) as trace:
        assert run() == untraced
    assert trace.tree() == WHOLE
    assert trace.one("invoke_workflow QA").attributes["input.value"] == '"[redact failed]"'
    assert not failures

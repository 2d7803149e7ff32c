"""Events through the Logs API: details of LM calls, by content mode, and what metrics said."""

from __future__ import annotations

import json
from typing import Any

import dspy
import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from dspy_trace.settings import CAPTURE_CONTENT, EMIT_EVENT
from dspy_trace.testing import record
from tests.parts.measured import Logged
from tests.parts.scripted_answers import Reply, fill
from tests.parts.scripted_lm import ScriptedLM

pytestmark = pytest.mark.filterwarnings("ignore:Passing OpenAI-style:DeprecationWarning")

DETAILS = "gen_ai.client.inference.operation.details"
RESULT = "gen_ai.evaluation.result"
EXCEPTION = "gen_ai.client.operation.exception"
MESSAGES = ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.tool.definitions")


@pytest.fixture
def logged() -> Logged:
    return Logged()


@pytest.mark.parametrize(
    ("mode", "events", "content"),
    [("NO_CONTENT", 0, False), ("SPAN_ONLY", 0, True), ("EVENT_ONLY", 1, False), ("SPAN_AND_EVENT", 1, True)],
)
def test_where_content_goes(mode: str, events: int, content: bool, scripted_lm: ScriptedLM, logged: Logged) -> None:
    """On spans, on events, on both or on neither, as the mode says."""
    scripted_lm.answer = lambda body: "the answer"
    with record(logger_provider=logged.provider, capture_content=mode) as trace:
        scripted_lm.lm()("the question")
    span = trace.one("chat gpt-4o-mini")
    assert ("gen_ai.input.messages" in (span.attributes or {})) == content
    assert len(logged.events()) == events


def test_the_details(scripted_lm: ScriptedLM, logged: Logged) -> None:
    """All that the span says, messages as structures, within the span; a failed call has its error's type."""
    function = {"name": "look", "parameters": {"type": "object"}}
    scripted_lm.answer = lambda body: Reply(None, [{"name": "look", "arguments": {"city": "Rome"}}])
    with record(logger_provider=logged.provider, capture_content="SPAN_AND_EVENT") as trace:
        scripted_lm.lm(temperature=0.5)("?", tools=[{"type": "function", "function": function}])
        scripted_lm.answer = lambda body: Reply("no", status=400)
        with pytest.raises(Exception, match="no"):
            scripted_lm.lm()("?")
    event, failed = logged.events(DETAILS)
    span, failed_span = trace.named("chat gpt-4o-mini")
    assert span.context is not None
    assert (event.trace_id, event.span_id) == (span.context.trace_id, span.context.span_id)
    assert (event.severity_number, event.severity_text) == (SeverityNumber.DEBUG, "DEBUG")
    assert event.timestamp > 0
    structured = {
        key: json.loads(value) if key in MESSAGES else value for key, value in (span.attributes or {}).items()
    }
    assert {key: _plain(value) for key, value in event.attributes.items()} == structured
    assert failed.attributes["error.type"] == (failed_span.attributes or {})["error.type"]
    (raised,) = logged.events(EXCEPTION)
    (of_span,) = (one for one in failed_span.events if one.name == "exception")
    assert (raised.severity_text, raised.span_id) == ("WARN", failed.span_id)
    assert raised.attributes.items() <= (of_span.attributes or {}).items()
    assert raised.attributes.keys() == {"exception.type", "exception.message"}


def _plain(value: Any) -> Any:
    """Return a value of the SDK's, which freezes what it holds, as plain data; a list on top stays the tuple it is."""
    plain = json.loads(json.dumps(value, default=lambda item: dict(item) if hasattr(item, "items") else list(item)))
    return tuple(plain) if isinstance(value, tuple) and all(isinstance(item, str) for item in value) else plain


def test_content_is_what_it_was(scripted_lm: ScriptedLM, logged: Logged) -> None:
    """Redacted, within bounds, and of the moment of the call."""
    messages = [{"role": "user", "content": "secret " + "x" * 200_000}]

    def answer(body: Any) -> str:
        messages[0]["content"] = "changed"
        return "ok"

    def redact(value: Any) -> Any:
        return json.loads(json.dumps(value).replace("secret", "***"))

    scripted_lm.answer = answer
    with record(logger_provider=logged.provider, capture_content="EVENT_ONLY", redact=redact):
        scripted_lm.lm()(messages=messages)
    (event,) = logged.events(DETAILS)
    told = str(event.attributes["gen_ai.input.messages"])
    assert "***" in told and "changed" not in told and "secret" not in told
    assert 50_000 < len(told) < 80_000


@pytest.mark.parametrize(("mode", "emit", "events"), [("NO_CONTENT", "true", 1), ("EVENT_ONLY", "false", 0)])
def test_emit_event(
    mode: str, emit: str, events: int, scripted_lm: ScriptedLM, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenTelemetry's own variable switches the events on without content, and off with it."""
    monkeypatch.setenv(EMIT_EVENT, emit)
    monkeypatch.setenv(CAPTURE_CONTENT, mode)
    with record(logger_provider=logged.provider):
        scripted_lm.lm()("?")
    found = logged.events(DETAILS)
    assert len(found) == events
    assert not any(key in MESSAGES for event in found for key in event.attributes)


def test_exceptions_without_content(scripted_lm: ScriptedLM, logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an exception the type alone: its text is content."""
    monkeypatch.setenv(EMIT_EVENT, "true")
    scripted_lm.answer = lambda body: Reply("no", status=400)
    with record(logger_provider=logged.provider, capture_content="NO_CONTENT"), pytest.raises(Exception, match="no"):
        scripted_lm.lm()("?")
    (raised,) = logged.events(EXCEPTION)
    assert list(raised.attributes) == ["exception.type"]


def test_events_are_not_sampled(scripted_lm: ScriptedLM, logged: Logged) -> None:
    """An event is told of a call whose span is not recorded."""
    with record(logger_provider=logged.provider, capture_content="EVENT_ONLY", sampler=ALWAYS_OFF):
        scripted_lm.lm()("?")
    (event,) = logged.events(DETAILS)
    assert event.attributes["gen_ai.usage.input_tokens"] > 0
    assert event.trace_id != 0


def judged(example: Any, prediction: Any, trace: Any = None) -> Any:
    """Judge in each of the ways that a metric can."""
    if example.question == "raise":
        raise RuntimeError("judge is out")
    if example.question == "bool":
        return True
    return dspy.Prediction(score=0.25, feedback="the year is missing")


@pytest.mark.parametrize("mode", ["NO_CONTENT", "SPAN_AND_EVENT"])
def test_results_of_an_evaluation(mode: str, scripted_lm: ScriptedLM, logged: Logged) -> None:
    """One for each example, within its span: score, label of a bool, feedback if content is wanted, or the error."""
    scripted_lm.answer = lambda body: fill(body, answer="yes")
    questions = ["bool", "feedback", "raise"]
    devset = [dspy.Example(question=text, answer="yes").with_inputs("question") for text in questions]
    evaluate = dspy.Evaluate(devset=devset, metric=judged, num_threads=1, max_errors=5)
    with record(logger_provider=logged.provider, capture_content=mode) as trace, dspy.context(lm=scripted_lm.lm()):
        evaluate(dspy.Predict("question -> answer"))
    passed, explained, failed = (dict(event.attributes) for event in logged.events(RESULT))
    name = {"gen_ai.evaluation.name": "judged"}
    assert passed == {**name, "gen_ai.evaluation.score.value": 1.0, "gen_ai.evaluation.score.label": "pass"}
    told = {"gen_ai.evaluation.explanation": "the year is missing"} if mode != "NO_CONTENT" else {}
    assert explained == {**name, "gen_ai.evaluation.score.value": 0.25, **told}
    assert failed == {**name, "error.type": "RuntimeError"}
    spans = trace.named("evaluate_example Predict")
    assert [event.span_id for event in logged.events(RESULT)] == [
        span.context.span_id for span in spans if span.context
    ]
    of_span = [dict(event.attributes or {}) for event in spans[1].events if event.name == RESULT]
    assert of_span == [explained]


def test_no_events_of_what_is_not_traced(scripted_lm: ScriptedLM, logged: Logged) -> None:
    """``log_traces_from_eval=False`` is silent here as well."""
    scripted_lm.answer = lambda body: fill(body, answer="yes")
    devset = [dspy.Example(question="bool", answer="yes").with_inputs("question")]
    evaluate = dspy.Evaluate(devset=devset, metric=judged, num_threads=1)
    asked = {"logger_provider": logged.provider, "capture_content": "EVENT_ONLY", "log_traces_from_eval": False}
    with record(**asked), dspy.context(lm=scripted_lm.lm()):
        evaluate(dspy.Predict("question -> answer"))
    assert logged.events() == []

"""Content, the program's own data, is told where it was asked for and nowhere else, and as it was at the call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from dspy.utils import DummyLM
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits

from dspy_trace.settings import CAPTURE_CONTENT
from dspy_trace.testing import Recording, record
from tests import everything
from tests.balanced import fresh_cache
from tests.parts.scripted_lm import ScriptedLM

pytestmark = pytest.mark.filterwarnings("ignore:Passing OpenAI-style:DeprecationWarning")

# An attempt that is tried again is told by the type of its error; descriptions of tools' parameters are no content.
NEVER_TOLD = {everything.canary("lm-busy")}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CAPTURE_CONTENT, raising=False)


def texts(spans: Any) -> Iterator[tuple[str, str]]:
    """Yield every text of every span, with where it stands: names, attributes, events, status."""
    for span in spans:
        assert isinstance(span, ReadableSpan)
        yield f"{span.name}", span.name
        yield f"{span.name}: status", str(span.status.description)
        for holder in (span, *span.events, *span.links):
            for key, value in (holder.attributes or {}).items():
                yield f"{span.name}: {key}", f"{key}={value!r}"


def run(server: ScriptedLM, **kwargs: Any) -> Recording:
    with fresh_cache(), record(**{"detail": "full", **kwargs}) as trace:
        everything.run(server)
    return trace


def leaks(trace: Recording) -> list[str]:
    return [where for where, text in texts(trace.spans) if "canary" in text or everything.BYTES[:40] in text]


OFF: list[tuple[dict[str, Any], str | None]] = [
    ({}, None),
    ({}, "NO_CONTENT"),
    ({}, "false"),
    ({}, "EVENT_ONLY"),
    ({}, "nonsense"),
    ({"capture_content": False}, "SPAN_ONLY"),
    ({"capture_content": "NO_CONTENT"}, "true"),
    ({"capture_content": "EVENT_ONLY"}, None),
]
ON: list[tuple[dict[str, Any], str | None]] = [
    ({}, "SPAN_ONLY"),
    ({}, "true"),
    ({}, "SPAN_AND_EVENT"),
    ({"capture_content": True}, None),
    ({"capture_content": True}, "NO_CONTENT"),
    ({"capture_content": "SPAN_AND_EVENT"}, "false"),
]


def test_nothing_is_told_by_default(scripted_lm: ScriptedLM) -> None:
    """No prompt, completion, input, output, argument, result, document or text of an exception stands in any name,
    attribute, event or status of any span, though each of them was there.
    """
    trace = run(scripted_lm)
    assert leaks(trace) == []
    assert len(trace.spans) > 60
    failed = [span for span in trace.spans if span.attributes and "error.type" in span.attributes]
    assert {span.status.description for span in failed} == {
        "LookupError",
        "AdapterParseError",
        "LMInvalidRequestError",
        "ValueError",
        "RuntimeError",
    }
    for span in failed:
        (event,) = [event for event in span.events if event.name == "exception"]
        assert list(event.attributes or {}) == ["exception.type"]
    kinds = {
        str((event.attributes or {})["exception.type"])
        for span in failed
        for event in span.events
        if event.name == "exception"
    }
    # As the SDK itself has it: in full, but for what is Python's own.
    assert {"LookupError", "ValueError", "dspy.utils.exceptions.LMInvalidRequestError"} <= kinds


def test_everything_is_told_where_it_is_asked_for(scripted_lm: ScriptedLM) -> None:
    """With content on, each piece of it stands somewhere; bytes never do, only what identifies them."""
    trace = run(scripted_lm, capture_content=True)
    told = "\n".join(text for _, text in texts(trace.spans))
    assert {place for place in everything.PLACES if place not in told} == NEVER_TOLD
    assert everything.BYTES[:40] not in told
    assert '"type":"blob","mime_type":"image/png","modality":"image","size":480,"sha256":"' in told
    failed = [span for span in trace.spans if span.attributes and "error.type" in span.attributes]
    assert all("canary" in str(span.status.description) for span in failed)


@pytest.mark.parametrize(
    ("arguments", "environment", "on"), [(*case, False) for case in OFF] + [(*c, True) for c in ON]
)
def test_modes(arguments: dict[str, Any], environment: str | None, on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument wins over the environment; what is no mode means no content."""
    if environment is not None:
        monkeypatch.setenv(CAPTURE_CONTENT, environment)
    with record(**arguments) as trace, dspy.context(lm=DummyLM([{"answer": "canary"}])):
        dspy.Predict("question -> answer")(question="canary")
    told = [where.partition(": ")[2] for where, text in texts(trace.spans) if "canary" in text]
    everywhere = ["gen_ai.input.messages", "gen_ai.output.messages", "input.value", "output.value"]
    assert told == (everywhere if on else [])


class Changing(dspy.Module):
    """Changes what it was given, and what it returned."""

    def __init__(self) -> None:
        super().__init__()
        self.predict = dspy.Predict("items -> answer")
        self.tool = dspy.Tool(self.change, name="change")

    def change(self, arguments: dict[str, Any]) -> list[Any]:
        arguments["city"] = "changed"
        return [arguments]

    def forward(self, items: list[str]) -> dspy.Prediction:
        items.append("changed")
        result = self.tool(arguments={"city": "Paris"})
        result[0]["city"] = "changed later"
        prediction = self.predict(items=list(items))
        prediction.answer = "changed"
        return prediction


def test_content_is_as_it_was_at_the_moment() -> None:
    """Inputs are told as they were when the call began, outputs as they were when it ended, whatever changes them."""
    items = ["first"]
    with record(capture_content=True) as trace, dspy.context(lm=DummyLM([{"answer": "plain"}])):
        output = Changing()(items=items)
    output.answer = items[0] = "changed afterwards"

    def told(name: str, key: str) -> Any:
        return json.loads(str((trace.one(name).attributes or {})[key]))

    assert told("invoke_workflow Changing", "input.value") == {"items": ["first"]}
    assert told("execute_tool change", "gen_ai.tool.call.arguments") == {"arguments": {"city": "Paris"}}
    assert told("execute_tool change", "gen_ai.tool.call.result") == [{"city": "changed"}]
    assert told("Predict predict", "input.value") == {"items": ["first", "changed"]}
    assert told("Predict predict", "output.value") == {"answer": "plain"}
    assert told("invoke_workflow Changing", "output.value") == {"answer": "changed"}


JSON_KEYS = {
    "input.value",
    "output.value",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.tool.definitions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "gen_ai.retrieval.documents",
    "dspy.decision.state",
}


def check_lengths(trace: Recording, limit: int) -> int:
    """Check that all JSON is whole and no value longer than the limit; return how many have been cut."""
    cut = 0
    for span in trace.spans:
        for key, value in (span.attributes or {}).items():
            if isinstance(value, str):
                assert len(value) <= limit, key
            if key in JSON_KEYS:
                json.loads(str(value))
                cut += "[cut" in str(value)
    return cut


@pytest.mark.parametrize(
    ("limits", "environment", "limit"),
    [
        (SpanLimits(max_span_attribute_length=200), {}, 200),
        (SpanLimits(max_attribute_length=100), {}, 100),
        (SpanLimits(max_attribute_length=100, max_span_attribute_length=300), {}, 300),
        (None, {"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "150"}, 150),
        (None, {"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "64"}, 64),
    ],
)
def test_the_sdks_length_limit_leaves_json_whole(
    limits: SpanLimits | None, environment: dict[str, str], limit: int, scripted_lm: ScriptedLM, monkeypatch: Any
) -> None:
    """However the SDK was told its limit, values are cut to it by us, who know where JSON can be cut."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    trace = run(scripted_lm, capture_content=True, limits=limits)
    assert check_lengths(trace, limit) > 10


def test_our_own_limit() -> None:
    """Without a limit of the SDK's a value has at most 65,536 characters; a text of an exception too."""
    long = "x" * 200_000

    class Failing(dspy.Module):
        def forward(self, text: str) -> None:
            raise ValueError(text)

    with record(capture_content=True) as trace, pytest.raises(ValueError):
        Failing()(text=long)
    assert check_lengths(trace, 65_536) == 1
    (span,) = trace.spans
    told = dict(span.events[0].attributes or {})
    assert told["exception.message"] == "x" * (65_536 - 33) + "… [cut: 200000 characters in all]"
    assert len(str(told["exception.stacktrace"])) == 65_536
    assert len(str(span.status.description)) <= 65_536 + 20


def test_redact_sees_every_captured_value(scripted_lm: ScriptedLM) -> None:
    """It is called with plain values, and with the texts of exceptions; what it hides stands nowhere."""

    def hide(value: Any) -> Any:
        return json.loads(json.dumps(value).replace("canary", "******"))

    trace = run(scripted_lm, capture_content=True, redact=hide)
    assert leaks(trace) == []
    told = "\n".join(text for _, text in texts(trace.spans)).replace("******", "canary")
    assert {place for place in everything.PLACES if place not in told} == NEVER_TOLD


@pytest.mark.parametrize("result", [None, 0, object(), "hidden"])
def test_redact_may_return_anything(result: Any) -> None:
    """Whatever it returns is told in place of the value; of an exception's text, only text is."""

    class Failing(dspy.Module):
        def forward(self, text: str) -> None:
            raise ValueError(text)

    with record(capture_content=True, redact=lambda value: result) as trace, pytest.raises(ValueError):
        Failing()(text="canary")
    assert leaks(trace) == []
    (span,) = trace.spans
    message = dict(span.events[0].attributes or {})["exception.message"]
    assert message == ("hidden" if result == "hidden" else "[redacted]")


def test_the_traceback_is_told_once() -> None:
    """The span where an exception was first seen has its traceback; those above it that it passes have not."""

    class Inner(dspy.Module):
        def forward(self) -> None:
            raise ValueError("canary")

    class Outer(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self) -> None:
            self.inner()

    with record(capture_content=True) as trace, pytest.raises(ValueError):
        Outer()()
    told = {span.name: dict(span.events[0].attributes or {}) for span in trace.spans}
    assert "exception.stacktrace" not in told["invoke_workflow Outer"]
    stack = str(told["Inner inner"]["exception.stacktrace"])
    assert stack.startswith("Traceback (most recent call last):")
    assert stack.rstrip().endswith("ValueError: canary")
    assert {message["exception.message"] for message in told.values()} == {"canary"}


def test_an_unrecorded_run_asks_redact_nothing() -> None:
    """With content off nothing is captured, so nothing has to be redacted."""
    with record(redact=lambda value: pytest.fail("asked")) as trace, dspy.context(lm=DummyLM([{"answer": "a"}])):
        dspy.Predict("question -> answer")(question="q")
    assert len(trace.spans) == 2

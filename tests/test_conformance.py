"""Every span of a program that uses everything keeps to OpenTelemetry's GenAI conventions and to our own table."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import dspy
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from dspy_trace.settings import STABILITY_OPT_IN
from dspy_trace.testing import Recording, record
from dspy_trace.vocab import keys, openinference_keys, table
from tests import everything
from tests.balanced import fresh_cache
from tests.parts import openinference, semconv
from tests.parts.scripted_answers import Reply, fill
from tests.parts.scripted_lm import ScriptedLM

pytestmark = pytest.mark.filterwarnings("ignore:Passing OpenAI-style:DeprecationWarning")

MODES = ["NO_CONTENT", "SPAN_ONLY", "EVENT_ONLY", "SPAN_AND_EVENT"]
VOCABULARIES = [("genai",), ("genai", "openinference")]
OTHERS = {value for name, value in vars(openinference_keys).items() if name.isupper()}
ENTRIES = [*table.entries(), *table.entries(table.AGENT_KEYS)]
KNOWN = {entry.name for entry in [*ENTRIES, *table.entries(table.LOG_KEYS)] if not entry.is_event}
EVENTS = {entry.name: set(entry.example.replace("`", "").split(", ")) for entry in ENTRIES if entry.is_event}


def run(server: ScriptedLM, **kwargs: Any) -> Recording:
    with fresh_cache(), record(**{"detail": "full", **kwargs}) as trace:
        everything.run(server)
    return trace


@pytest.fixture(scope="module", params=itertools.product(MODES, VOCABULARIES), ids=str)
def trace(request: pytest.FixtureRequest) -> Recording:
    """A run of everything, in one mode of content and in one vocabulary or both."""
    mode, vocabularies = request.param
    with pytest.MonkeyPatch.context() as patch, ScriptedLM() as server:
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.delenv("OPENAI_BASE_URL", raising=False)
        patch.delenv("OPENAI_API_BASE", raising=False)
        trace = run(server, capture_content=mode, conventions=vocabularies)
    trace.content = "SPAN" in mode  # type: ignore[attr-defined]
    trace.both = len(vocabularies) > 1  # type: ignore[attr-defined]
    return trace


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def operation(span: ReadableSpan) -> Any:
    return told(span).get("gen_ai.operation.name")


def test_every_operation_is_there(trace: Recording) -> None:
    """The program does all that the table speaks of, so that the other tests look at all of it."""
    assert {operation(span) for span in trace.spans} == {*semconv.OPERATIONS, None}
    assert {span.kind for span in trace.spans} == {SpanKind.CLIENT, SpanKind.INTERNAL}


def test_spans_keep_to_the_conventions(trace: Recording) -> None:
    """Kind, name, required and allowed attributes of each operation; and no ``gen_ai.*`` on other spans."""
    assert [f"{span.name} {problem}" for span in trace.spans for problem in semconv.problems(span)] == []


def test_what_calls_a_server_is_a_client(trace: Recording) -> None:
    """LM calls are of kind CLIENT; so are embeddings and retrievals that ask a server, and no others."""
    asking = {span.name for span in trace.spans if "server.address" in told(span) or operation(span) in LM_CALLS}
    assert {span.name for span in trace.spans if span.kind is SpanKind.CLIENT} == asking
    assert {"embeddings text-embedding-3-small", "retrieval ColBERTv2", "decision jev-latest"} <= asking


def test_attributes_are_of_the_type_that_is_said(trace: Recording) -> None:
    """Types and enumerations."""
    assert [f"{span.name}: {problem}" for span in trace.spans for problem in semconv.wrong_types(span)] == []


def test_messages_are_in_the_format_of_the_conventions(trace: Recording) -> None:
    """Roles, parts and their fields; structured values are whole JSON."""
    seen = 0
    for span in trace.spans:
        for key, value in told(span).items():
            if key in semconv.MESSAGES:
                seen += 1
                assert list(semconv.wrong_messages(json.loads(value))) == [], span.name
            elif key in semconv.CONTENT and key != "gen_ai.retrieval.query.text":
                json.loads(value)
    assert bool(seen) == trace.content  # type: ignore[attr-defined]


def test_every_attribute_and_event_is_documented(trace: Recording) -> None:
    """What a span or an event carries stands in ``keys.py``, from which the README's table is made."""
    assert {key for span in trace.spans for key in told(span) if not set(openinference.parts(key)) <= OTHERS} <= KNOWN
    for span in trace.spans:
        for event in span.events:
            attributes = set(event.attributes or {})
            assert EVENTS[event.name] <= attributes <= KNOWN, event.name
    assert {event.name for span in trace.spans for event in span.events} == EVENTS.keys()


def test_the_second_spelling_keeps_to_its_conventions(trace: Recording) -> None:
    """OpenInference's kinds, names and types, where it is asked for; else nothing of it."""
    for span in trace.spans:
        if trace.both:  # type: ignore[attr-defined]
            assert list(openinference.problems(span)) == [], span.name
        else:
            assert not OTHERS & {part for key in told(span) for part in openinference.parts(key)}
    if trace.both:  # type: ignore[attr-defined]
        kinds = {told(span)["openinference.span.kind"] for span in trace.spans}
        assert openinference.KINDS - kinds == {"RERANKER", "GUARDRAIL", "UNKNOWN"}


LM_CALLS = {"chat", "text_completion", "decision"}
CONTENT_KEYS = {entry.name for entry in ENTRIES if entry.value.endswith("content")}


def test_content_is_what_the_table_says_it_is(trace: Recording) -> None:
    """The attributes marked as content are there with content on, each of them, and never with content off."""
    found = {key for span in trace.spans for holder in (span, *span.events) for key in holder.attributes or {}}
    assert found & CONTENT_KEYS == (CONTENT_KEYS if trace.content else set())  # type: ignore[attr-defined]
    assert semconv.CONTENT - {"gen_ai.system_instructions"} <= CONTENT_KEYS


def test_what_is_told_of_an_lm_call(trace: Recording) -> None:
    """Required and, where it applies, conditional and recommended: request, response, usage, server, errors."""
    asked = next(span for span in trace.spans if told(span).get("gen_ai.request.choice.count") == 2)
    attributes = told(asked)
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.response.model": "gpt-4o-mini",
        "server.address": "127.0.0.1",
        "dspy.lm.class": "LM",
        "dspy.lm.cache_hit": False,
        "dspy.lm.retries": 0,
    }
    assert expected.items() <= attributes.items()
    assert set(attributes["gen_ai.response.finish_reasons"]) == {"stop"}
    for key in ("input_tokens", "output_tokens", "cache_read.input_tokens", "reasoning.output_tokens"):
        assert attributes[f"gen_ai.usage.{key}"] > 0
    assert attributes["server.port"] > 1024
    assert attributes["gen_ai.response.id"].startswith("chatcmpl-")
    (failed,) = [span for span in trace.spans if operation(span) == "chat" and "error.type" in told(span)]
    assert told(failed)["error.type"] == "LMInvalidRequestError"


def test_numbers_are_finite(trace: Recording) -> None:
    """No attribute is NaN or infinite: no JSON could hold it."""
    numbers = [v for span in trace.spans for v in told(span).values() if isinstance(v, float)]
    assert numbers
    assert all(math.isfinite(number) for number in numbers)


def test_every_span_can_be_encoded(trace: Recording) -> None:
    """Each span goes over the wire as it is: OTLP holds all of its values."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    encoded = encode_spans(trace.spans).resource_spans[0].scope_spans[0]
    assert len(encoded.spans) == len(trace.spans)
    assert encoded.scope.name == "dspy_trace"


@pytest.mark.parametrize("latest", [False, True])
def test_finish_reasons_in_messages(latest: bool, scripted_lm: ScriptedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The spelling of today has them in the output messages; the newest only as an attribute."""
    monkeypatch.setenv(STABILITY_OPT_IN, "gen_ai_latest_experimental" if latest else "http")
    scripted_lm.answer = lambda body: Reply("cut", finish_reason="length")
    with record(capture_content=True) as trace:
        scripted_lm.lm()("go on")
    attributes = told(trace.one("chat gpt-4o-mini"))
    assert attributes["gen_ai.response.finish_reasons"] == ("length",)
    (message,) = json.loads(attributes["gen_ai.output.messages"])
    assert message.get("finish_reason") == (None if latest else "length")


def test_a_stream_is_said_to_be_one(scripted_lm: ScriptedLM) -> None:
    """``gen_ai.request.stream`` is there for a streamed call, and only there."""
    scripted_lm.answer = lambda body: fill(body, answer="one two three")
    predict = dspy.Predict("question -> answer")
    listener = dspy.streaming.StreamListener(signature_field_name="answer")
    streamed = dspy.streamify(predict, stream_listeners=[listener], async_streaming=False)
    with record() as trace, dspy.context(lm=scripted_lm.lm()):
        predict(question="whole?")
        list(streamed(question="streamed?"))
    calls = trace.named("chat gpt-4o-mini")
    assert [told(span).get("gen_ai.request.stream") for span in calls] == [None, True]
    assert [problem for span in trace.spans for problem in semconv.problems(span)] == []


def test_a_cache_hit_costs_nothing(scripted_lm: ScriptedLM) -> None:
    """What DSPy's cache answered has no usage, no cost and no count of requests."""
    lm = scripted_lm.lm(cache=True)
    with fresh_cache(), record() as trace:
        lm("once")
        lm("once")
    first, second = (told(span) for span in trace.named("chat gpt-4o-mini"))
    assert (first["dspy.lm.cache_hit"], second["dspy.lm.cache_hit"]) == (False, True)
    assert "gen_ai.usage.input_tokens" in first
    assert {keys.LM_COST, keys.LM_REQUESTS, keys.LM_ENGINE, *semconv.USAGE}.isdisjoint(second)

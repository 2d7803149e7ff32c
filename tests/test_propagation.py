"""W3C trace context on requests to LMs: by both transports, only while traced, and nothing else of the request."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import dspy
import httpx
import pytest
from opentelemetry import baggage, context, propagate
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanContext, TraceFlags, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from dspy_trace.settings import PROPAGATE
from dspy_trace.testing import record
from tests.balanced import fresh_cache
from tests.parts.scripted_answers import Reply, fill, in_turn
from tests.parts.scripted_lm import ScriptedLM

ENGINES: list[Any] = ["lm15", "litellm"]


def sent(server: ScriptedLM) -> list[SpanContext]:
    """Return the span that each request came from."""
    contexts = [TraceContextTextMapPropagator().extract(request.headers) for request in server.requests]
    return [get_current_span(found).get_span_context() for found in contexts]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("way", ["sync", "async", "stream"])
def test_the_request_belongs_to_the_span(engine: Any, way: str, scripted_lm: ScriptedLM) -> None:
    """Each request names the span of its LM call as its parent, retried ones too."""
    scripted_lm.answer = in_turn(
        Reply("busy", status=429, headers={"retry-after": "0"}), then=lambda body: fill(body, answer="one two")
    )
    predict = dspy.Predict("question -> answer")
    with record() as trace, dspy.context(lm=scripted_lm.lm(engine, num_retries=1)):
        if way == "sync":
            predict(question="?")
        elif way == "async":
            asyncio.run(predict.acall(question="?"))
        else:
            listener = dspy.streaming.StreamListener(signature_field_name="answer")
            list(dspy.streamify(predict, stream_listeners=[listener], async_streaming=False)(question="?"))
    span = trace.one("chat gpt-4o-mini").context
    assert span is not None
    found = sent(scripted_lm)
    assert len(found) == 2
    assert {(one.trace_id, one.span_id) for one in found} == {(span.trace_id, span.span_id)}
    assert all(one.trace_flags & TraceFlags.SAMPLED for one in found)


AWS = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "a-secret", "aws_region_name": "us-east-1"}


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        ("anthropic/claude-3-haiku-20240307", {"engine": "lm15"}),
        ("anthropic/claude-3-haiku-20240307", {"engine": "litellm"}),
        ("azure/gpt-4", {"api_version": "2024-02-01"}),
        ("bedrock/anthropic.claude-v2", AWS),
        ("gemini/gemini-1.5-flash", {"engine": "litellm"}),
        ("ollama_chat/llama3", {}),
    ],
)
def test_providers_with_protocols_of_their_own(model: str, asked: Any, scripted_lm: ScriptedLM) -> None:
    """Whatever is sent, signed or not, goes out by the two transports, understood by the scripted server or not."""
    lm = dspy.LM(model, api_base=scripted_lm.url, api_key="a-key", cache=False, num_retries=0, **asked)
    with record() as trace, contextlib.suppress(Exception):
        lm("?")
    (span,) = trace.spans
    assert span.context is not None
    assert {one.span_id for one in sent(scripted_lm)} == {span.context.span_id}


def test_an_embedding_belongs_to_its_span(scripted_lm: ScriptedLM) -> None:
    """A hosted embedding is a request to a model's server like any other."""
    with record() as trace:
        scripted_lm.embedder()(["text"])
    span = trace.one("embeddings text-embedding-3-small").context
    assert span is not None
    assert [one.span_id for one in sent(scripted_lm)] == [span.span_id]


def headers(server: ScriptedLM) -> list[set[str]]:
    return [
        {name for name in request.headers if name in ("traceparent", "tracestate", "baggage")}
        for request in server.requests
    ]


@pytest.mark.parametrize("engine", ENGINES)
def test_off(engine: Any, scripted_lm: ScriptedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """By argument or variable; and nothing is sent where a call is not traced, or suppressed."""
    lm = scripted_lm.lm(engine)
    with record(propagate=False):
        lm("?")
    with record(), suppress_instrumentation():
        lm("?")
    monkeypatch.setenv(PROPAGATE, "off")
    with record():
        lm("?")
    with record(propagate=True):
        lm("?")
    lm("?")
    assert headers(scripted_lm) == [set(), set(), set(), {"traceparent"}, set()]


def test_silent_evaluations_stay_silent(scripted_lm: ScriptedLM) -> None:
    """Where the calls of an evaluation are not traced, their requests tell of no trace."""
    scripted_lm.answer = lambda body: fill(body, answer="yes")
    devset = [dspy.Example(question="?", answer="yes").with_inputs("question")]
    evaluate = dspy.Evaluate(devset=devset, metric=lambda *_: 1.0, num_threads=1)
    with (
        record(log_traces_from_eval=False) as trace,
        dspy.context(lm=scripted_lm.lm()),
        trace.provider.get_tracer("app").start_as_current_span("app"),
    ):
        evaluate(dspy.Predict("question -> answer"))
    assert headers(scripted_lm) == [set()]


def test_what_is_not_sampled_says_so(scripted_lm: ScriptedLM) -> None:
    """A server follows the decision, instead of starting a trace of its own."""
    with record(sampler=ALWAYS_OFF):
        scripted_lm.lm()("?")
    (found,) = sent(scripted_lm)
    assert found.is_valid
    assert not found.trace_flags & TraceFlags.SAMPLED


def test_baggage_stays_at_home(scripted_lm: ScriptedLM) -> None:
    """What an application tells its own services goes to no provider."""
    token = context.attach(baggage.set_baggage("customer", "alice"))
    try:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        assert "baggage" in carrier
        with record():
            scripted_lm.lm()("?")
    finally:
        context.detach(token)
    assert headers(scripted_lm) == [{"traceparent"}]


def test_the_programs_own_requests_are_its_own(scripted_lm: ScriptedLM) -> None:
    """Outside LM calls nothing is added: in tools, in modules, in the program."""

    def fetch() -> str:
        """Fetch."""
        with httpx.Client(trust_env=False) as client:
            return str(
                client.post(f"{scripted_lm.url}/chat/completions", json={"messages": [], "model": "m"}).status_code
            )

    class Fetching(dspy.Module):
        def forward(self) -> str:
            return fetch()

    with record():
        dspy.Tool(fetch)()
        Fetching()()
        fetch()
    assert len(scripted_lm.requests) == 3
    assert headers(scripted_lm) == [set(), set(), set()]


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_else_changes(engine: Any, scripted_lm: ScriptedLM) -> None:
    """The same engine, body, cache key and history as without; a header of the program's own wins."""

    def once(lm: dspy.LM) -> Any:
        with fresh_cache():
            lm("?")
            lm("?")
        return [{k: v for k, v in entry.items() if k in ("prompt", "messages", "kwargs")} for entry in lm.history]

    bare = once(scripted_lm.lm(engine, cache=True))
    with record() as trace:
        traced = once(scripted_lm.lm(engine, cache=True))
    assert bare == traced
    first, second = scripted_lm.requests
    assert first.body == second.body
    assert set(second.headers) - set(first.headers) == {"traceparent"}
    assert (trace.named("chat gpt-4o-mini")[0].attributes or {})["dspy.lm.engine"] == engine


def test_a_header_of_the_programs_own_wins(scripted_lm: ScriptedLM) -> None:
    """Who says where a request belongs is believed."""
    mine = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with record():
        scripted_lm.lm(extra_headers={"traceparent": mine})("?")
    assert [request.headers["traceparent"] for request in scripted_lm.requests] == [mine]

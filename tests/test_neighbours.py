"""Instrumentations around and beneath: one span for each LM call, HTTP spans in their places, one warning for two."""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dspy
import openai
import pytest
from opentelemetry import trace as otel_trace
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.trace import SpanKind
from opentelemetry.util.genai.handler import TelemetryHandler

from dspy_trace import DSPyInstrumentor
from dspy_trace.facts import LMCall
from dspy_trace.observing import neighbours
from dspy_trace.testing import Recording, record
from tests.parts.measured import Measured
from tests.parts.scripted_answers import fill
from tests.parts.scripted_lm import ScriptedLM


@contextmanager
def instrumented(instrumentor: Any, trace: Recording, **kwargs: Any) -> Iterator[None]:
    """Let another instrumentation record with the same provider for the length of the block."""
    instrumentor.instrument(tracer_provider=trace.provider, **kwargs)
    try:
        yield
    finally:
        instrumentor.uninstrument()


def ask(server: ScriptedLM, engine: Any = "litellm") -> None:
    server.answer = lambda body: fill(body, answer="yes")
    with dspy.context(lm=server.lm(engine)):
        dspy.Predict("question -> answer")(question="?")


def test_an_instrumented_client_beneath(scripted_lm: ScriptedLM) -> None:
    """The OpenAI client that LiteLLM uses makes no second span and no second measurement; by itself it does."""
    measured = Measured()
    with record() as trace, instrumented(OpenAIInstrumentor(), trace, meter_provider=measured.provider):
        ask(scripted_lm)
        assert trace.tree() == "\ninvoke_workflow Predict\n  chat gpt-4o-mini\n"
        assert "gen_ai.client.operation.duration" not in measured.metrics()
        trace.clear()
        scripted_lm.answer = lambda body: "yes"
        openai.OpenAI(base_url=scripted_lm.url, api_key="k").chat.completions.create(model="m", messages=[])
        assert [span.name for span in trace.spans] == ["chat m"]


def test_the_same_without_us(scripted_lm: ScriptedLM) -> None:
    """What is not observed is not claimed: then the client's span is the only one."""
    scripted_lm.answer = lambda body: "yes"
    with record() as trace:
        DSPyInstrumentor().uninstrument()
        with instrumented(OpenAIInstrumentor(), trace):
            scripted_lm.lm("litellm")("?")
    assert [span.name for span in trace.spans] == ["chat gpt-4o-mini"]


def test_an_instrumentation_above(scripted_lm: ScriptedLM) -> None:
    """Where somebody has a span of an inference already, ours gives way, counts, and tells what it knows."""
    measured = Measured()
    with record(meter_provider=measured.provider) as trace:
        handler = TelemetryHandler(tracer_provider=trace.provider)

        class Program(dspy.Module):
            def forward(self) -> None:
                with handler.inference("openai", request_model="gpt-4o-mini"):
                    scripted_lm.lm()("?")

        Program()()
    assert trace.tree() == "\ninvoke_workflow Program\n  chat gpt-4o-mini\n"
    attributes = dict(trace.one("chat gpt-4o-mini").attributes or {})
    root = dict(trace.one("invoke_workflow Program").attributes or {})
    assert root["dspy.usage.input_tokens"] == attributes["gen_ai.usage.input_tokens"] > 0
    assert attributes["gen_ai.response.model"] == "gpt-4o-mini"
    assert list(measured.counts()) == ["gen_ai.invoke_workflow.duration"]


def test_an_lm_within_an_lm(scripted_lm: ScriptedLM) -> None:
    """What a router engine calls is a span of its own, whatever is claimed."""
    inner = scripted_lm.lm("litellm")

    class Router(dspy.BaseLM):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return inner(*args, **kwargs)

    with record() as trace, instrumented(OpenAIInstrumentor(), trace):
        Router("router")("?")
    assert trace.tree() == "\nchat router\n  chat gpt-4o-mini\n"


def test_an_embedding_is_claimed(scripted_lm: ScriptedLM) -> None:
    """The same for embeddings."""
    with record() as trace, instrumented(OpenAIInstrumentor(), trace):
        scripted_lm.embedder()(["text"])
    assert [span.name for span in trace.spans] == ["embeddings text-embedding-3-small"]


def test_http_above_and_beneath(scripted_lm: ScriptedLM) -> None:
    """A server's span is above; that of an HTTP client is beneath the LM call, and the request belongs to it."""
    with record() as trace, instrumented(HTTPXClientInstrumentor(), trace):
        tracer = trace.provider.get_tracer("server")
        with tracer.start_as_current_span("POST /ask", kind=SpanKind.SERVER):
            ask(scripted_lm)
    assert trace.tree() == "\nPOST /ask\n  invoke_workflow Predict\n    chat gpt-4o-mini\n      POST\n"
    context = trace.one("POST").context
    assert context is not None
    sent = scripted_lm.requests[0].headers["traceparent"].split("-")
    assert sent[1:3] == [f"{context.trace_id:032x}", f"{context.span_id:016x}"]


def test_without_util_genai(scripted_lm: ScriptedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody has loaded it nothing is claimed; where its names are gone neither."""
    monkeypatch.setitem(sys.modules, "opentelemetry.util.genai.invocation", None)
    assert dict(neighbours.claims(LMCall)) == {}
    monkeypatch.setitem(sys.modules, "opentelemetry.util.genai.invocation", otel_trace)
    assert dict(neighbours.claims(LMCall)) == {}
    with record() as trace:
        ask(scripted_lm, "lm15")
    assert len(trace.spans) == 2


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("openinference.instrumentation.dspy", "openinference-instrumentation-dspy"),
        ("opentelemetry.instrumentation.genai.dspy", "opentelemetry-instrumentation-genai-dspy"),
        ("mlflow.dspy", "mlflow.dspy.autolog"),
    ],
)
def test_another_instrumentation_of_dspy(
    module: str, package: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning, once, that names both and says how to keep either."""
    other: Any = types.ModuleType(module)
    other.DSPyInstrumentor = type("DSPyInstrumentor", (), {"is_instrumented_by_opentelemetry": True})
    monkeypatch.setitem(sys.modules, module, other)
    monkeypatch.setitem(sys.modules, "mlflow", types.ModuleType("mlflow"))
    monkeypatch.setattr(neighbours, "_warned", False)
    callback = type("Callback", (), {"__module__": f"{module}.callback"})()
    with caplog.at_level(logging.WARNING, "dspy_trace"), dspy.context(callbacks=[callback]):
        for _ in range(2):
            neighbours.warn_once()
    (warning,) = [entry.getMessage() for entry in caplog.records]
    assert f"dspy-trace and by {package}:" in warning
    assert "dspy_trace.DSPyInstrumentor().uninstrument()" in warning
    assert ("mlflow.dspy.autolog(disable=True)" if "mlflow" in module else f"{module}.DSPyInstrumentor()") in warning

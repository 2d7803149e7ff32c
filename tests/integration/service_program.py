"""A service as people run them, with telemetry of its own: ``python service_program.py PORT FILE ORDER``.

Its exporter writes each span into FILE, one JSON object a line. ORDER says when its tracer provider is set: ``early``,
before tracing is switched on, or ``late``, after everything else; ``untraced`` is late, and without us.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import dspy
import uvicorn
from fastapi import Body, FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

PORT, FILE, ORDER = sys.argv[1:]


class ToFile(SpanExporter):
    """Writes spans into a file."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with open(FILE, "a", encoding="utf-8") as file:
            for span in spans:
                file.write(json.dumps(json.loads(span.to_json())) + "\n")
        return SpanExportResult.SUCCESS


def set_up_telemetry() -> None:
    """Do what applications do."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ToFile()))
    trace.set_tracer_provider(provider)


if ORDER == "early":
    set_up_telemetry()
if ORDER != "untraced":
    import dspy_trace

    dspy_trace.autolog()

# FastAPI makes a SERVER span of each request; what it makes beneath is of no interest here.
app = FastAPI(telemetry={"operation_spans": False})
tracer = trace.get_tracer("service")  # for good, as most modules do


class Answer(dspy.Module):
    """Thinks, then answers; fails where it is asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.think = dspy.ChainOfThought("question -> answer")

    def forward(self, question: str) -> Any:
        if "fail" in question:
            raise ValueError(f"cannot answer {question}")
        return self.think(question=question)

    async def aforward(self, question: str) -> Any:
        return await self.think.acall(question=question)


answer = Answer()
dspy.configure(lm=dspy.LM("openai/gpt-4o-mini", api_base=os.environ["DESK_LM"], api_key="scripted-key", cache=False))


@app.get("/health")
async def health() -> dict[str, str]:
    """Say that all is well."""
    with tracer.start_as_current_span("check database"):
        return {"health": "ok"}


@app.post("/ask")
async def ask(question: str = Body(embed=True)) -> dict[str, str]:
    """Answer in the event loop."""
    with tracer.start_as_current_span("authorize"):
        pass
    found = await answer.acall(question=question)
    with tracer.start_as_current_span("store"):
        return {"answer": found.answer}


@app.post("/ask-in-thread")
def ask_in_thread(question: str = Body(embed=True)) -> dict[str, str]:
    """Answer in a thread of the pool."""
    with tracer.start_as_current_span("handle"):
        return {"answer": answer(question=question).answer}


if ORDER != "early":
    set_up_telemetry()
uvicorn.run(app, host="127.0.0.1", port=int(PORT), log_level="warning")

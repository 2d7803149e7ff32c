"""The measured program with the same spans and attributes, as an engineer would write them with the SDK's API.

No error handling, no bounds and no bookkeeping: whatever could be looked up once is a constant here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dspy
import orjson
from dspy.utils import DummyLM
from opentelemetry.trace import SpanKind, Tracer

from benchmarks.program import QA, QUESTION, scripted

JSON = "application/json"


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _messages(messages: list[dict[str, Any]]) -> str:
    return _json([{"role": m["role"], "parts": [{"type": "text", "content": m["content"]}]} for m in messages])


def _answers(outputs: list[str]) -> str:
    return _json(
        [
            {"role": "assistant", "parts": [{"type": "text", "content": output}], "finish_reason": "stop"}
            for output in outputs
        ]
    )


def _lm(tracer: Tracer) -> type:
    class HandLM(DummyLM):
        def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
            attributes = {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "DummyLM",
                "gen_ai.request.model": "dummy",
                "dspy.lm.class": "DummyLM",
                "gen_ai.request.temperature": 0.0,
                "gen_ai.request.max_tokens": 1000,
                "gen_ai.input.messages": _messages(messages),
            }
            with tracer.start_as_current_span("chat dummy", kind=SpanKind.CLIENT, attributes=attributes) as span:
                outputs = super().__call__(prompt, messages=messages, **kwargs)
                span.set_attributes(
                    {
                        "dspy.lm.engine": "custom",
                        "dspy.lm.cache_hit": False,
                        "gen_ai.response.model": "dummy",
                        "gen_ai.response.finish_reasons": ["stop"] * len(outputs),
                        "dspy.lm.requests": 1,
                        "dspy.lm.retries": 0,
                        "gen_ai.output.messages": _answers(outputs),
                    }
                )
                return outputs

    return HandLM


def _predict(tracer: Tracer) -> type:
    class HandPredict(dspy.Predict):
        def __call__(self, **kwargs: Any) -> Any:
            attributes = {
                "dspy.module.class": "Predict",
                "dspy.module.path": "generate.predict",
                "dspy.signature": "question -> reasoning, answer",
                "dspy.signature.name": "StringSignature",
                "dspy.predict.demos": len(self.demos),
                "input.value": _json(kwargs),
                "input.mime_type": JSON,
            }
            with tracer.start_as_current_span("Predict generate.predict", attributes=attributes) as span:
                result = super().__call__(**kwargs)
                span.set_attributes(
                    {"dspy.adapter": "ChatAdapter", "output.value": _json(result.toDict()), "output.mime_type": JSON}
                )
                return result

    return HandPredict


def _chain_of_thought(tracer: Tracer) -> type:
    class HandCoT(dspy.ChainOfThought):
        def __call__(self, **kwargs: Any) -> Any:
            attributes = {
                "dspy.module.class": "ChainOfThought",
                "dspy.module.path": "generate",
                "input.value": _json(kwargs),
                "input.mime_type": JSON,
            }
            with tracer.start_as_current_span("ChainOfThought generate", attributes=attributes) as span:
                result = super().__call__(**kwargs)
                span.set_attributes({"output.value": _json(result.toDict()), "output.mime_type": JSON})
                return result

    return HandCoT


def _qa(tracer: Tracer, version: str) -> type:
    class HandQA(QA):
        def __call__(self, **kwargs: Any) -> Any:
            attributes = {
                "gen_ai.operation.name": "invoke_workflow",
                "gen_ai.workflow.name": "QA",
                "dspy.module.class": "QA",
                "dspy.program.version": version,
                "input.value": _json(kwargs),
                "input.mime_type": JSON,
            }
            with tracer.start_as_current_span("invoke_workflow QA", attributes=attributes) as span:
                result = super().__call__(**kwargs)
                span.set_attributes(
                    {
                        "output.value": _json(result.toDict()),
                        "output.mime_type": JSON,
                        "dspy.usage.lm_calls": 1,
                        "dspy.usage.cache_hits": 0,
                        "dspy.usage.input_tokens": 0,
                        "dspy.usage.output_tokens": 0,
                    }
                )
                return result

    return HandQA


def make(tracer: Tracer) -> Callable[[], object]:
    """Return the call to measure."""
    from dspy_trace.points.programs import program_of

    plain = QA()
    known = program_of(plain)
    known.refresh(plain)
    qa = _qa(tracer, str(known.version))()
    qa.generate = _chain_of_thought(tracer)("question -> answer")
    qa.generate.predict = _predict(tracer)(qa.generate.predict.signature)
    lm = scripted(_lm(tracer)([]))

    def call() -> object:
        with dspy.context(lm=lm, disable_history=True):
            return qa(question=QUESTION)

    return call

"""Modules and LM calls in the words of the GenAI conventions: the two that make up nearly every trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.trace import SpanKind

from dspy_trace import facts
from dspy_trace.vocab import Attributes, Capture, keys
from dspy_trace.vocab.genai_messages import input_messages, output_messages, tool_definitions
from dspy_trace.vocab.spelling import Spelling, io, put, sums


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: Any) -> list[str] | None:
    if isinstance(value, str):
        return [value]
    return [text for text in value if isinstance(text, str)] if isinstance(value, list | tuple) else None


PARAMETERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "temperature": (keys.REQUEST_TEMPERATURE, _float),
    "top_p": (keys.REQUEST_TOP_P, _float),
    "top_k": (keys.REQUEST_TOP_K, _int),
    "max_tokens": (keys.REQUEST_MAX_TOKENS, _int),
    "max_completion_tokens": (keys.REQUEST_MAX_TOKENS, _int),
    "stop": (keys.REQUEST_STOP_SEQUENCES, _texts),
    "frequency_penalty": (keys.REQUEST_FREQUENCY_PENALTY, _float),
    "presence_penalty": (keys.REQUEST_PRESENCE_PENALTY, _float),
    "seed": (keys.REQUEST_SEED, _int),
    "reasoning_effort": (keys.REQUEST_REASONING_LEVEL, _text),
}
"""Request parameters that are told, by DSPy's name for them. Whatever is not listed here never leaves."""


class ModuleSpelling(Spelling):
    def name(self, fact: facts.ModuleCall) -> str:
        if fact.agent:
            return f"invoke_agent {fact.path or fact.cls}"
        if fact.outermost:
            return f"invoke_workflow {fact.cls}"
        return f"{fact.cls} {fact.path}" if fact.path else fact.cls

    def at_start(self, fact: facts.ModuleCall) -> Attributes:
        if fact.agent:
            return {keys.OPERATION_NAME: "invoke_agent", keys.AGENT_NAME: fact.path or fact.cls}
        if fact.outermost:
            return {keys.OPERATION_NAME: "invoke_workflow", keys.WORKFLOW_NAME: fact.cls}
        return {}

    def at_call(self, fact: facts.ModuleCall, capture: Capture | None) -> Attributes:
        attributes: Attributes = {keys.MODULE_CLASS: fact.cls}
        if fact.path:
            attributes[keys.MODULE_PATH] = fact.path
        if fact.signature is not None:
            attributes[keys.SIGNATURE] = fact.signature
            put(attributes, (keys.SIGNATURE_NAME, fact.signature_name))
        put(attributes, (keys.PREDICT_DEMOS, fact.demos), (keys.PROGRAM_VERSION, fact.version))
        io(attributes, keys.INPUT_VALUE, fact.inputs, capture)
        return attributes

    def at_end(self, fact: facts.ModuleCall, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        if fact.adapter is not None:
            attributes[keys.ADAPTER] = fact.adapter
        if fact.output is not None:
            io(attributes, keys.OUTPUT_VALUE, fact.output, capture)
        sums(attributes, fact.tally)
        return attributes


class LMSpelling(Spelling):
    kind = SpanKind.CLIENT

    def __init__(self, finish_reason_in_message: bool) -> None:
        self._finish_reason_in_message = finish_reason_in_message

    def name(self, fact: facts.LMCall) -> str:
        return f"text_completion {fact.model}" if fact.text_completion else f"chat {fact.model}"

    def at_start(self, fact: facts.LMCall) -> Attributes:
        return {
            keys.OPERATION_NAME: "text_completion" if fact.text_completion else "chat",
            keys.PROVIDER_NAME: fact.provider,
            keys.REQUEST_MODEL: fact.model,
        }

    def at_call(self, fact: facts.LMCall, capture: Capture | None) -> Attributes:
        attributes: Attributes = {keys.LM_CLASS: fact.cls}
        for parameter, value in fact.parameters.items():
            if value is not None and (spelled := PARAMETERS.get(parameter)):
                put(attributes, (spelled[0], spelled[1](value)))
        choices = fact.parameters.get("n")
        if isinstance(choices, int) and choices != 1:
            attributes[keys.REQUEST_CHOICE_COUNT] = choices
        if fact.json_output:
            attributes[keys.OUTPUT_TYPE] = "json"
        if capture is not None:
            attributes[keys.INPUT_MESSAGES] = capture(input_messages(fact.messages))
            if fact.tools:
                attributes[keys.TOOL_DEFINITIONS] = capture(tool_definitions(fact.tools))
        return attributes

    def at_end(self, fact: facts.LMCall, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        if fact.address is not None:
            put(attributes, (keys.SERVER_ADDRESS, fact.address), (keys.SERVER_PORT, fact.port))
        if fact.cache_hit is not None:
            attributes[keys.LM_CACHE_HIT] = fact.cache_hit
        if fact.response_model is not None:
            attributes[keys.RESPONSE_MODEL] = fact.response_model
        if fact.response_id is not None:
            attributes[keys.RESPONSE_ID] = fact.response_id
        if fact.finish_reasons:
            attributes[keys.RESPONSE_FINISH_REASONS] = fact.finish_reasons
        if fact.engine is not None:
            attributes[keys.LM_ENGINE] = fact.engine
        if fact.requests:
            attributes[keys.LM_REQUESTS] = fact.requests
            attributes[keys.LM_RETRIES] = fact.retries
        if not fact.cache_hit and (fact.input_tokens is not None or fact.output_tokens is not None):
            _usage(attributes, fact)
        if not fact.cache_hit and fact.cost is not None:
            attributes[keys.LM_COST] = fact.cost
        if capture is not None and fact.outputs is not None:
            reasons = fact.finish_reasons if self._finish_reason_in_message else ()
            attributes[keys.OUTPUT_MESSAGES] = capture(output_messages(fact.outputs, reasons))
        return attributes


def _usage(attributes: Attributes, fact: facts.LMCall) -> None:
    put(
        attributes,
        (keys.USAGE_INPUT_TOKENS, fact.input_tokens),
        (keys.USAGE_OUTPUT_TOKENS, fact.output_tokens),
        (keys.USAGE_CACHE_READ_TOKENS, fact.cache_read_tokens),
        (keys.USAGE_CACHE_WRITE_TOKENS, fact.cache_write_tokens),
        (keys.USAGE_REASONING_TOKENS, fact.reasoning_tokens),
    )

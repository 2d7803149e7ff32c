"""Modules and LM calls in the words of the GenAI conventions: the two that make up nearly every trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.trace import SpanKind

from dspy_trace import facts
from dspy_trace.guard import ask
from dspy_trace.values.scalars import number, text, whole
from dspy_trace.vocab import Attributes, Capture, agent_keys, keys
from dspy_trace.vocab.genai_messages import input_messages, output_messages, tool_definitions
from dspy_trace.vocab.spelling import Spelling, io, put, sums


def _texts(value: Any) -> list[str] | None:
    if type(value) not in (list, tuple):
        value = [value]
    return [told for item in value[:64] if (told := text(item)) is not None] or None


PARAMETERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "temperature": (keys.REQUEST_TEMPERATURE, number),
    "top_p": (keys.REQUEST_TOP_P, number),
    "top_k": (keys.REQUEST_TOP_K, whole),
    "max_tokens": (keys.REQUEST_MAX_TOKENS, whole),
    "max_completion_tokens": (keys.REQUEST_MAX_TOKENS, whole),
    "stop": (keys.REQUEST_STOP_SEQUENCES, _texts),
    "frequency_penalty": (keys.REQUEST_FREQUENCY_PENALTY, number),
    "presence_penalty": (keys.REQUEST_PRESENCE_PENALTY, number),
    "seed": (keys.REQUEST_SEED, whole),
    "reasoning_effort": (keys.REQUEST_REASONING_LEVEL, text),
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
            put(attributes, (keys.SIGNATURE_NAME, fact.signature_name), (keys.PREDICT_DEMOS, fact.demos))
        if fact.version is not None:
            attributes[keys.PROGRAM_VERSION] = fact.version
        io(attributes, keys.INPUT_VALUE, fact.inputs, capture)
        return attributes

    def at_end(self, fact: facts.ModuleCall, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        if fact.adapter is not None:
            attributes[keys.ADAPTER] = fact.adapter
        if fact.output is not None:
            io(attributes, keys.OUTPUT_VALUE, fact.output, capture)
        if fact.agent:
            put(attributes, (agent_keys.AGENT_ITERATIONS, fact.iterations))
            put(attributes, (agent_keys.AGENT_TERMINATION, fact.termination))
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
        choices = whole(fact.parameters.get("n"))
        if choices is not None and choices != 1:
            attributes[keys.REQUEST_CHOICE_COUNT] = choices
        if fact.json_output:
            attributes[keys.OUTPUT_TYPE] = "json"
        if capture is not None:
            attributes[keys.INPUT_MESSAGES] = capture(ask(input_messages, fact.messages, default="[unreadable]"))
            if fact.tools is not None and (tools := ask(tool_definitions, fact.tools)):
                attributes[keys.TOOL_DEFINITIONS] = capture(tools)
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
        if fact.streaming:  # not known before the request is made: a cache hit is no stream
            attributes[keys.REQUEST_STREAM] = True
            put(attributes, (keys.RESPONSE_TIME_TO_FIRST_CHUNK, fact.first_chunk))
        if fact.requests:
            attributes[keys.LM_REQUESTS] = fact.requests
            attributes[keys.LM_RETRIES] = fact.retries
        if fact.adaptations:
            attributes[keys.LM_ADAPTATIONS] = fact.adaptations
        if not fact.cache_hit and (fact.input_tokens is not None or fact.output_tokens is not None):
            _usage(attributes, fact)
        if not fact.cache_hit and fact.cost is not None:
            attributes[keys.LM_COST] = fact.cost
        if capture is not None and fact.outputs is not None:
            reasons = fact.finish_reasons if self._finish_reason_in_message else ()
            messages = ask(output_messages, fact.outputs, reasons, default="[unreadable]")
            attributes[keys.OUTPUT_MESSAGES] = capture(messages)
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

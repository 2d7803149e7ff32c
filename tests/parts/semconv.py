"""OpenTelemetry's GenAI semantic conventions as data, and a check of a span against them.

Source: repository open-telemetry/semantic-conventions-genai, ``model/gen-ai/*.yaml`` at 88eccb15. For each operation:
the kinds of its span, the attribute that its name ends in, and its attributes by requirement. What the conventions
call opt-in is content.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

_TEXTS: type = tuple
TYPES: Mapping[str, type] = {
    "error.type": str,
    "gen_ai.agent.name": str,
    "gen_ai.conversation.id": str,
    "gen_ai.data_source.id": str,
    "gen_ai.embeddings.dimension.count": int,
    "gen_ai.input.messages": str,
    "gen_ai.operation.name": str,
    "gen_ai.output.messages": str,
    "gen_ai.output.type": str,
    "gen_ai.provider.name": str,
    "gen_ai.request.choice.count": int,
    "gen_ai.request.encoding_formats": _TEXTS,
    "gen_ai.request.frequency_penalty": float,
    "gen_ai.request.max_tokens": int,
    "gen_ai.request.model": str,
    "gen_ai.request.presence_penalty": float,
    "gen_ai.request.reasoning.level": str,
    "gen_ai.request.seed": int,
    "gen_ai.request.stop_sequences": _TEXTS,
    "gen_ai.request.stream": bool,
    "gen_ai.request.temperature": float,
    "gen_ai.request.top_k": int,
    "gen_ai.request.top_p": float,
    "gen_ai.response.finish_reasons": _TEXTS,
    "gen_ai.response.id": str,
    "gen_ai.response.model": str,
    "gen_ai.response.time_to_first_chunk": float,
    "gen_ai.retrieval.documents": str,
    "gen_ai.retrieval.query.text": str,
    "gen_ai.retrieval.top_k": int,
    "gen_ai.system_instructions": str,
    "gen_ai.tool.call.arguments": str,
    "gen_ai.tool.call.id": str,
    "gen_ai.tool.call.result": str,
    "gen_ai.tool.definitions": str,
    "gen_ai.tool.description": str,
    "gen_ai.tool.name": str,
    "gen_ai.tool.type": str,
    "gen_ai.usage.cache_read.input_tokens": int,
    "gen_ai.usage.cache_write.input_tokens": int,
    "gen_ai.usage.input_tokens": int,
    "gen_ai.usage.output_tokens": int,
    "gen_ai.usage.reasoning.output_tokens": int,
    "gen_ai.workflow.name": str,
    "server.address": str,
    "server.port": int,
}

ENUMS: Mapping[str, set[str]] = {
    "gen_ai.output.type": {"text", "json", "image", "speech"},
    "gen_ai.tool.type": {"function", "extension", "datastore"},
}

MESSAGES = {"gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"}
CONTENT = {
    *MESSAGES,
    "gen_ai.retrieval.documents",
    "gen_ai.retrieval.query.text",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "gen_ai.tool.definitions",
}


def _keys(prefix: str, *names: str) -> set[str]:
    return {f"{prefix}.{name}" for name in names}


SAMPLING = _keys(
    "gen_ai.request",
    *("choice.count", "frequency_penalty", "max_tokens", "model", "presence_penalty", "seed"),
    *("stop_sequences", "temperature", "top_k", "top_p", "reasoning.level"),
)
SERVER = {"server.address", "server.port"}
USAGE = _keys(
    "gen_ai.usage",
    *("input_tokens", "output_tokens", "cache_read.input_tokens", "cache_write.input_tokens"),
    "reasoning.output_tokens",
)
ALWAYS = {"gen_ai.operation.name", "gen_ai.conversation.id", "error.type"}


@dataclass(frozen=True)
class Operation:
    """What the conventions say of the spans of one operation."""

    kinds: set[SpanKind]
    named_after: str | None
    required: set[str]
    others: set[str]

    @property
    def allowed(self) -> set[str]:
        return ALWAYS | self.required | self.others


_INFERENCE = Operation(
    {SpanKind.CLIENT, SpanKind.INTERNAL},
    "gen_ai.request.model",
    {"gen_ai.provider.name"},
    SAMPLING
    | SERVER
    | USAGE
    | _keys("gen_ai.response", "id", "model", "finish_reasons", "time_to_first_chunk")
    | {"gen_ai.output.type", "gen_ai.request.stream", "gen_ai.tool.definitions", *MESSAGES},
)
OPERATIONS: Mapping[str, Operation] = {
    "chat": _INFERENCE,
    "text_completion": _INFERENCE,
    # A value of our own, which the conventions allow: a model that decides instead of generating.
    "decision": _INFERENCE,
    "embeddings": Operation(
        {SpanKind.CLIENT, SpanKind.INTERNAL},
        "gen_ai.request.model",
        {"gen_ai.provider.name"},
        SERVER
        | {"gen_ai.request.model", "gen_ai.embeddings.dimension.count", "gen_ai.request.encoding_formats"}
        | {"gen_ai.response.model", "gen_ai.usage.input_tokens"},
    ),
    "retrieval": Operation(
        {SpanKind.CLIENT, SpanKind.INTERNAL},
        None,
        set(),
        SERVER
        | _keys("gen_ai.retrieval", "top_k", "query.text", "documents")
        | {"gen_ai.data_source.id", "gen_ai.provider.name", "gen_ai.request.model"},
    ),
    "execute_tool": Operation(
        {SpanKind.INTERNAL},
        "gen_ai.tool.name",
        {"gen_ai.tool.name"},
        _keys("gen_ai.tool", "type", "call.id", "description", "call.arguments", "call.result") | {"gen_ai.agent.name"},
    ),
    "invoke_agent": Operation(
        {SpanKind.INTERNAL},
        "gen_ai.agent.name",
        set(),
        SAMPLING
        | {"gen_ai.agent.name", "gen_ai.output.type", "gen_ai.data_source.id", "gen_ai.response.finish_reasons"}
        | _keys("gen_ai.usage", "input_tokens", "output_tokens")
        | MESSAGES,
    ),
    "invoke_workflow": Operation(
        {SpanKind.INTERNAL}, "gen_ai.workflow.name", set(), {"gen_ai.workflow.name", *MESSAGES}
    ),
}

PARTS: Mapping[str, tuple[set[str], set[str]]] = {
    "text": ({"content"}, set()),
    "reasoning": ({"content"}, set()),
    "tool_call": ({"name", "arguments"}, {"id"}),
    "tool_call_response": ({"response"}, {"id"}),
    # The conventions want the bytes themselves; ours has what identifies them.
    "blob": ({"mime_type", "modality", "size", "sha256"}, set()),
    "file": ({"modality", "file_id"}, {"mime_type"}),
    "uri": ({"modality", "uri"}, {"mime_type"}),
}
"""Fields that each kind of message part must and may have."""

MODALITIES = {"text", "image", "audio", "video", "document"}
ROLES = {"system", "user", "assistant", "tool"}


def problems(span: ReadableSpan) -> Iterator[str]:
    """Yield what is wrong with a span, as text."""
    told = dict(span.attributes or {})
    name = str(told.get("gen_ai.operation.name", ""))
    operation = OPERATIONS.get(name)
    genai = {key for key in told if key.startswith("gen_ai.")}
    if operation is None:
        if genai:
            yield f"has {sorted(genai)} without an operation that the conventions know"
        return
    if span.kind not in operation.kinds:
        yield f"is of kind {span.kind}"
    ending = told.get(operation.named_after) if operation.named_after else None
    if ending is not None and span.name != f"{name} {ending}":
        yield f"is named {span.name!r}, not {name!r} and {ending!r}"
    if not span.name.startswith(f"{name} "):
        yield f"is named {span.name!r} for {name!r}"
    for key in sorted(operation.required - told.keys()):
        yield f"lacks {key}"
    for key in sorted(genai - operation.allowed):
        yield f"must not have {key}"
    if (span.status.status_code is StatusCode.ERROR) != ("error.type" in told):
        yield "has error.type without a failure, or the reverse"
    if "server.port" in told and "server.address" not in told:
        yield "has a port without a host"
    if told.get("gen_ai.request.choice.count") == 1 or told.get("gen_ai.request.stream") is False:
        yield "says what goes without saying"


def wrong_types(span: ReadableSpan) -> Iterator[str]:
    """Yield the attributes of a span that are of another type, or another word, than the conventions say."""
    for key, value in (span.attributes or {}).items():
        expected = TYPES.get(key)
        if expected is not None and type(value) is not expected:
            yield f"{key} is {value!r}"
        if expected is _TEXTS and not all(isinstance(item, str) for item in value):  # type: ignore[union-attr]
            yield f"{key} is {value!r}"
        if key in ENUMS and value not in ENUMS[key]:
            yield f"{key} is {value!r}"


def wrong_messages(messages: Any) -> Iterator[str]:
    """Yield what is wrong with messages in the conventions' format."""
    for message in messages:
        if not {"role", "parts"} <= message.keys() <= {"role", "parts", "name", "finish_reason"}:
            yield f"a message has {sorted(message)}"
        if message.get("role") not in ROLES:
            yield f"the role is {message.get('role')!r}"
        for part in message.get("parts", ()):
            must, may = PARTS.get(part.get("type"), ({"a type that the conventions know"}, set()))
            if not must <= part.keys() - {"type"} <= must | may:
                yield f"a part has {sorted(part)}: {part}"
            if "modality" in part and part["modality"] not in MODALITIES:
                yield f"the modality is {part['modality']!r}"

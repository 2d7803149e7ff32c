"""Spans as MLflow shall see them: one *row* of plain JSON data each, and the ways to hand rows over.

A row is made from a finished span and from what travelled beside it (:mod:`dspy_trace.vocab.mlflow`). It goes through
the spool as JSON, and from there to a server by :func:`otlp_request` or into a database by :func:`mlflow_spans`; both
are read back the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Link, StatusCode

from dspy_trace.export.mlflow_info import TraceFacts, assessment, mlflow_trace_info, trace_info
from dspy_trace.export.mlflow_spans import mlflow_spans
from dspy_trace.export.mlflow_values import clean, cost, decoded, mlflow_decoded, text, usage
from dspy_trace.export.otlp_request import otlp_request
from dspy_trace.secrets import hide, looks_secret, scrub
from dspy_trace.vocab import keys
from dspy_trace.vocab import mlflow_keys as mlflow
from dspy_trace.vocab.mlflow_spelling import ERROR, Captured

__all__ = ["TraceFacts", "assessment", "mlflow_spans", "mlflow_trace_info", "otlp_request", "row", "trace_info"]

Row = dict[str, Any]

LONGEST_ID: Final = 250
"""Characters of a session or user id: a longer one makes MLflow refuse the whole request."""

LONGEST_NAME: Final = 4_096
"""Characters of a span's and a trace's name; the same."""

_LAST_TIME: Final = 2**63 - 1

_TWINS: Final = {
    keys.INPUT_VALUE: mlflow.INPUTS,
    keys.INPUT_MIME_TYPE: mlflow.INPUTS,
    keys.INPUT_MESSAGES: mlflow.INPUTS,
    keys.TOOL_ARGUMENTS: mlflow.INPUTS,
    keys.RETRIEVAL_QUERY: mlflow.INPUTS,
    keys.DECISION_STATE: mlflow.INPUTS,
    keys.OUTPUT_VALUE: mlflow.OUTPUTS,
    keys.OUTPUT_MIME_TYPE: mlflow.OUTPUTS,
    keys.OUTPUT_MESSAGES: mlflow.OUTPUTS,
    keys.TOOL_RESULT: mlflow.OUTPUTS,
    keys.RETRIEVAL_DOCUMENTS: mlflow.OUTPUTS,
    keys.TOOL_DEFINITIONS: mlflow.CHAT_TOOLS,
}
"""What says the same as one of MLflow's attributes, where the program put content on its spans as well: stored once."""

_TOKENS: Final = frozenset({keys.USAGE_INPUT_TOKENS, keys.USAGE_OUTPUT_TOKENS})
"""From these MLflow makes usage, which a span of ours without it must not have."""

_IDS: Final = frozenset({mlflow.SESSION_ID, mlflow.USER_ID, mlflow.CONVERSATION_ID})

_NESTED: Final = frozenset({dict, list})

_NOT_PASSED_ON: Final = frozenset({mlflow.REQUEST_ID, mlflow.EXPERIMENT_ID})

_HAS_INPUTS: Final = (mlflow.INPUTS, keys.INPUT_VALUE, keys.INPUT_MESSAGES)

_TYPES: Final = {
    "chat": "CHAT_MODEL",
    "generate_content": "LLM",
    "text_completion": "LLM",
    "embeddings": "EMBEDDING",
    "execute_tool": "TOOL",
    "invoke_agent": "AGENT",
    "create_agent": "AGENT",
    "retrieval": "RETRIEVER",
}
"""Span types of other GenAI instrumentations: MLflow would work them out for its page, but not for its search."""


def row(
    span: ReadableSpan,
    beside: Mapping[str, Any],
    *,
    trace_id: int,
    parent_id: int | None,
    root: bool,
    trace: TraceFacts | None = None,
) -> Row:
    """Return a finished span as MLflow shall see it, to be encoded by ``orjson.dumps``.

    Args:
        span: one of ours, or of the application's own.
        beside: what travelled beside it; empty for the application's own.
        trace_id: of the trace that it is part of in MLflow.
        parent_id: its parent there; ``None`` for a local root, whatever its true parent is.
        root: whether it is a local root.
        trace: what is said of the trace as a whole. Rows add to it, and a root's row says it, so that the row of the
            root is to be made last.
    """
    context = span.context
    assert context is not None
    trace = trace if trace is not None else TraceFacts()
    failed = span.status.status_code is StatusCode.ERROR
    attributes, name = _ours(span, trace.take(beside), failed) if beside else (_foreign(span), None)
    if root and parent_id is None:
        if span.parent is not None:
            attributes[mlflow.PARENT_SPAN_ID] = f"{span.parent.span_id:016x}"
        _say_of_trace(attributes, name or span.name, span, trace, ours=bool(beside))
    elif name is not None:
        trace.program(attributes)
    events = [_event(event.name, event.timestamp, event.attributes) for event in span.events]
    if not beside and events:
        events = scrub(events)
    message = text(span.status.description or "") if failed else ""
    if keys.EXCEPTION_TYPE in beside:
        message = _tell_exception(events, beside) or message
    if beside:
        trace.scored(events, context.span_id)
    return {
        **_ids(trace_id, context.span_id, parent_id),
        **_times(span),
        "name": text(span.name)[:LONGEST_NAME],
        "kind": span.kind.name,
        "status": "ERROR" if failed else "OK",
        "message": message,
        "root": root,
        "attributes": attributes,
        "events": events,
        "links": [_link(link) for link in span.links],
    }


def _ids(trace_id: int, span_id: int, parent_id: int | None) -> dict[str, str | None]:
    return {
        "trace_id": f"{trace_id:032x}",
        "span_id": f"{span_id:016x}",
        "parent_id": None if parent_id is None else f"{parent_id:016x}",
    }


def _times(span: ReadableSpan) -> dict[str, int]:
    start = _time(span.start_time)
    return {"start": start, "end": _time(span.end_time) if span.end_time is not None else start}


def _link(link: Link) -> dict[str, Any]:
    told = clean(link.attributes or {})
    return {
        "trace_id": f"{link.context.trace_id:032x}",
        "span_id": f"{link.context.span_id:016x}",
        "attributes": told,
    }


def _ours(span: ReadableSpan, beside: dict[str, Any], failed: bool) -> tuple[dict[str, Any], str | None]:
    """Return the attributes of a span of ours, and the name of the trace if it is the program's outermost."""
    name = beside.pop(mlflow.TRACE_NAME, None)
    attributes: dict[str, Any] = {}
    counted = mlflow.CHAT_USAGE in beside
    for key, value in (span.attributes or {}).items():
        if _TWINS.get(key) in beside or (key in _TOKENS and not counted) or key.startswith(mlflow.NUMBERED):
            continue
        if not key.startswith(mlflow.OWN):
            attributes[key] = _id(value) if key in _IDS else decoded(value)
    for key, value in beside.items():
        if type(value) is Captured:
            attributes[key] = orjson.Fragment(str(value))
        elif key not in _EXCEPTION:
            attributes[key] = _id(value) if key in _IDS else clean(value)
    if failed and mlflow.LOG_LEVEL in attributes:
        attributes[mlflow.LOG_LEVEL] = ERROR
    return attributes, name


_EXCEPTION: Final = frozenset({keys.EXCEPTION_TYPE, keys.EXCEPTION_MESSAGE, keys.EXCEPTION_STACKTRACE})


def _foreign(span: ReadableSpan) -> dict[str, Any]:
    """Return the attributes of a span of the application's own, without what would make MLflow refuse it."""
    scope = span.instrumentation_scope
    decode_all = scope is not None and scope.name.startswith("mlflow")
    attributes: dict[str, Any] = {}
    for key, value in (span.attributes or {}).items():
        if key in _NOT_PASSED_ON:
            continue
        if decode_all or key.startswith(mlflow.OWN):
            told = mlflow_decoded(value)
        else:
            told = _id(value) if key in _IDS else decoded(value)
        if told is not None:
            attributes[key] = hide(key, told) if looks_secret(key) else scrub(told) if type(told) in _NESTED else told
    for key, check in ((mlflow.CHAT_USAGE, usage), (mlflow.LLM_COST, cost)):
        if key in attributes and (sound := check(attributes.pop(key))):
            attributes[key] = sound
    kind = attributes.get(keys.OPERATION_NAME)
    if mlflow.SPAN_TYPE not in attributes and isinstance(kind, str) and kind in _TYPES:
        attributes[mlflow.SPAN_TYPE] = _TYPES[kind]
    return attributes


def _id(value: Any) -> Any:
    return text(value)[:LONGEST_ID] if isinstance(value, str) else clean(value)


def _say_of_trace(attributes: dict[str, Any], name: str, span: ReadableSpan, trace: TraceFacts, ours: bool) -> None:
    """Add to a root what is said of its trace: name, tags and, where the root is not ours, the program's own words."""
    attributes[mlflow.TRACE_NAME] = text(name)[:LONGEST_NAME]
    for key, value in {**_resource(span), **trace.tags}.items():
        attributes[f"{mlflow.TRACE_TAG}{text(key)}"] = text(value)
    if not ours and not any(key in attributes for key in _HAS_INPUTS):
        for key, value in ((mlflow.INPUTS, trace.request), (mlflow.OUTPUTS, trace.response)):
            if value is not None:
                attributes[key] = value


def _resource(span: ReadableSpan) -> dict[str, str]:
    """Return the resource as tags, as MLflow itself makes them of OTLP's, without the SDK's stopgap for a name."""
    tags: dict[str, str] = {}
    for key, value in span.resource.attributes.items():
        if key.startswith(mlflow.OF_MACHINE) or (
            key == mlflow.SERVICE_NAME and str(value).startswith("unknown_service")
        ):
            continue
        tags[key] = value if isinstance(value, str) else orjson.dumps(clean(value)).decode()
    return tags


def _event(name: str, timestamp: int, attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"name": text(name), "time": _time(timestamp), "attributes": clean(attributes or {})}


def _tell_exception(events: list[dict[str, Any]], beside: Mapping[str, Any]) -> str | None:
    """Put the text of an exception, which travels beside the span, into its event; return the status description."""
    told = {key: text(beside[key]) for key in _EXCEPTION if key in beside}
    event = next((event for event in reversed(events) if event["name"] == keys.EVENT_EXCEPTION), None)
    if event is not None:
        event["attributes"].update(told)
    message = told.get(keys.EXCEPTION_MESSAGE)
    return None if message is None else f"{told[keys.EXCEPTION_TYPE].rpartition('.')[2]}: {message}"


def _time(nanoseconds: int | None) -> int:
    """Return a time that MLflow's databases can hold: one that is larger makes the server fail, not refuse."""
    return min(max(nanoseconds or 0, 0), _LAST_TIME)


def rows_of(payloads: Iterable[bytes]) -> list[Row]:
    """Return the rows of some payloads, in order."""
    return [one for payload in payloads for one in orjson.loads(payload)]

"""Rows as one OTLP request, for a server of MLflow's. Neither mlflow nor its client is needed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import orjson

from dspy_trace.export.choice import SPANS
from dspy_trace.export.mlflow_values import reads_as_json
from dspy_trace.export.pace import in_turns
from dspy_trace.vocab import mlflow_keys as mlflow

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

SCOPE: Final = "dspy_trace"

_PREVIEWED: Final = frozenset({mlflow.INPUTS, mlflow.OUTPUTS})


def otlp_request(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return an encoded ``ExportTraceServiceRequest``.

    Of rows that are one span the last wins: two of them in a request would spoil the trace's sums.

    Encoding: objects and lists as JSON text, texts as they are, numbers and booleans typed. The server writes each
    value as JSON, and then takes one layer off what is JSON text of JSON text, so that a text which reads as JSON is
    sent as JSON text itself.
    """
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    latest = {(row["trace_id"], row["span_id"]): row for row in rows}
    request = ExportTraceServiceRequest()
    scope_spans = request.resource_spans.add().scope_spans.add()
    scope_spans.scope.name = SCOPE
    for row in in_turns(latest.values(), every=4, most=SPANS):
        _fill(scope_spans.spans.add(), row)
    return bytes(request.SerializeToString())


def _fill(span: Span, row: Mapping[str, Any]) -> None:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

    span.trace_id = bytes.fromhex(row["trace_id"])
    span.span_id = bytes.fromhex(row["span_id"])
    if row["parent_id"] is not None:
        span.parent_span_id = bytes.fromhex(row["parent_id"])
    span.name = row["name"]
    span.kind = Span.SpanKind.Value(f"SPAN_KIND_{row['kind']}")
    span.start_time_unix_nano = row["start"]
    span.end_time_unix_nano = row["end"]
    span.status.code = Status.STATUS_CODE_ERROR if row["status"] == "ERROR" else Status.STATUS_CODE_OK
    span.status.message = row["message"]
    for key, value in row["attributes"].items():
        if value is not None:
            attribute = span.attributes.add()
            attribute.key = key
            _put(attribute.value, as_sent(key, value, row))
    for event in row["events"]:
        told = span.events.add()
        told.name = event["name"]
        told.time_unix_nano = event["time"]
        _put_all(told.attributes, event["attributes"])
    for link in row["links"]:
        linked = span.links.add()
        linked.trace_id = bytes.fromhex(link["trace_id"])
        linked.span_id = bytes.fromhex(link["span_id"])
        _put_all(linked.attributes, link["attributes"])


def as_sent(key: str, value: Any, row: Mapping[str, Any]) -> str | bool | int | float:
    """Return an attribute's value in the form that it is sent in."""
    if isinstance(value, str):
        return json.dumps(value) if reads_as_json(value) else value
    if isinstance(value, dict | list):
        return json_text(key, value, row)
    return value  # type: ignore[no-any-return]  # a number or boolean, as JSON knows no more


def json_text(key: str, value: Any, row: Mapping[str, Any]) -> str:
    """Return a value as JSON text; a root's inputs and outputs, which people read in the list, with spaces."""
    if row["root"] and key in _PREVIEWED:
        return json.dumps(value, ensure_ascii=False)
    return orjson.dumps(value).decode()


def _put_all(pairs: Any, attributes: Mapping[str, Any]) -> None:
    for key, value in attributes.items():
        pair: KeyValue = pairs.add()
        pair.key = key
        _put(pair.value, value)


def _put(target: AnyValue, value: Any) -> None:
    if isinstance(value, str):
        target.string_value = value
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int):
        target.int_value = value
    elif isinstance(value, float):
        target.double_value = value
    elif isinstance(value, list):
        target.array_value.SetInParent()
        for item in value:
            _put(target.array_value.values.add(), item)
    elif isinstance(value, dict):
        target.kvlist_value.SetInParent()
        _put_all(target.kvlist_value.values, value)

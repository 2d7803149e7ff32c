"""What MLflow says of traces, read into the form in which they are looked at.

MLflow has two forms of a span: its own, whose attributes are JSON texts, which its Python objects and its page use, and
OTLP's, with typed values, which its REST interface answers. A trace as a whole has one form everywhere.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

import orjson

from dspy_trace.guard import ask
from dspy_trace.store.traces import Event, Link, Span, Summary
from dspy_trace.vocab import mlflow_keys as mlflow

Told = Mapping[str, Any]


def summary(told: Told) -> Summary:
    """Read ``TraceInfo.to_dict()``, or the same as REST answers it. Raises whatever a wrong one calls for."""
    tags, metadata = told.get("tags") or {}, told.get("trace_metadata") or {}
    usage = _mapping(metadata.get(mlflow.TRACE_USAGE))
    cost = _mapping(metadata.get(mlflow.TRACE_COST)).get(mlflow.TOTAL_COST)
    location = told.get("trace_location") or {}
    return Summary(
        trace_id=told["trace_id"],
        experiment_id=str((location.get("mlflow_experiment") or {}).get("experiment_id", "")),
        name=tags.get(mlflow.STORED_NAME, ""),
        state=told.get("state") or "",
        start=_moment(told["request_time"]),
        seconds=_seconds(told),
        input_tokens=_number(usage.get(mlflow.INPUT_TOKENS), int),
        output_tokens=_number(usage.get(mlflow.OUTPUT_TOKENS), int),
        cost=_number(cost, float),
        request=told.get("request_preview") or "",
        response=told.get("response_preview") or "",
        tags=tags,
        metadata=metadata,
    )


def spans(told: Iterable[Told]) -> list[Span]:
    """Read spans in either form. Raises whatever a wrong one calls for."""
    return [_span(one) for one in told]


def _span(told: Told) -> Span:
    status = told.get("status") or {}
    return Span(
        trace_id=_hex(told["trace_id"], 32),
        span_id=_hex(told["span_id"], 16),
        parent_id=_hex(told["parent_span_id"], 16) if told.get("parent_span_id") else None,
        name=told["name"],
        start=int(told["start_time_unix_nano"]),
        end=int(told.get("end_time_unix_nano") or 0) or None,
        failed=status.get("code") == "STATUS_CODE_ERROR",
        message=status.get("message") or "",
        attributes=_attributes(told.get("attributes")),
        events=[_event(event) for event in told.get("events") or ()],
        links=[_link(link) for link in told.get("links") or ()],
    )


def _event(told: Told) -> Event:
    attributes = told.get("attributes")
    # MLflow's own form has an event's attributes as they are, unlike a span's.
    values = _typed(attributes) if isinstance(attributes, list) else attributes or {}
    return Event(told["name"], int(told["time_unix_nano"]), values)


def _link(told: Told) -> Link:
    return Link(_hex(told["trace_id"].removeprefix("tr-"), 32), _hex(told["span_id"], 16))


def _attributes(told: Any) -> dict[str, Any]:
    if isinstance(told, list):
        return _typed(told)
    return {key: _decoded(value) for key, value in (told or {}).items()}


def _typed(told: Iterable[Told]) -> dict[str, Any]:
    return {one["key"]: _value(one.get("value") or {}) for one in told}


def _value(told: Told) -> Any:
    """Read OTLP's ``AnyValue``."""
    for kind, value in told.items():
        if kind == "kvlist_value":
            return _typed(value.get("values") or ())
        if kind == "array_value":
            return [_value(item) for item in value.get("values") or ()]
        # JSON has no integers of 64 bits: they may come as texts.
        return int(value) if kind == "int_value" else value
    return None


def _decoded(value: Any) -> Any:
    return ask(orjson.loads, value, default=value) if isinstance(value, str) else value


def _mapping(text: Any) -> Told:
    found = _decoded(text)
    return found if isinstance(found, dict) else {}


def _number(value: Any, kind: Any) -> Any:
    return kind(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _hex(identifier: str, digits: int) -> str:
    """Return an identifier in hexadecimal digits, which is told in those or in base64."""
    if len(identifier) == digits and ask(bytes.fromhex, identifier) is not None:
        return identifier.lower()
    return b64decode(identifier, validate=True).hex().rjust(digits, "0")


def _moment(text: str) -> int:
    """Return a timestamp of RFC 3339, always in UTC here, in nanoseconds; Python 3.10 reads only some of them."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    moment = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    return int(moment.timestamp()) * 1_000_000_000 + int(f"{fraction:0<9}"[:9])


def _seconds(told: Told) -> float | None:
    if told.get("execution_duration_ms") is not None:
        return float(told["execution_duration_ms"]) / 1_000
    text = told.get("execution_duration")
    return float(text.removesuffix("s")) if text else None

"""Finished spans made by hand, and their rows."""

from __future__ import annotations

from typing import Any

import orjson
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext

from dspy_trace.export.mlflow import TraceFacts, row

Row = dict[str, Any]

TRACE, SPAN, PARENT = 0xABC, 0x12, 0x34
HEX = f"{TRACE:032x}"
NAME = "mlflow.traceTag.mlflow.traceName"


def span(name: str = "work", *, parent: int | None = None, scope: str = "app", **more: Any) -> ReadableSpan:
    """Make a finished span, by default one of the application's own."""
    above = None if parent is None else SpanContext(TRACE, parent, is_remote=True)
    told = {"start_time": 1_000_000_000, "end_time": 3_500_000_000, "resource": Resource({}), **more}
    return ReadableSpan(
        name, SpanContext(TRACE, SPAN, False), above, instrumentation_scope=InstrumentationScope(scope), **told
    )


def made(one: ReadableSpan, beside: Row | None = None, trace: TraceFacts | None = None, **more: Any) -> Row:
    """Return the row of a span after its way through the spool."""
    place = {"trace_id": TRACE, "parent_id": None, "root": more.get("parent_id") is None, **more}
    told: Row = orjson.loads(orjson.dumps(row(one, beside or {}, trace=trace, **place)))
    return told


def attributes_of(one: ReadableSpan, beside: Row | None = None, **more: Any) -> Row:
    """Return the attributes of a span that is no root."""
    told: Row = made(one, beside, parent_id=PARENT, **more)["attributes"]
    return told

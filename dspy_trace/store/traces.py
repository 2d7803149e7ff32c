"""A trace as it is looked at: one form, whether it was just recorded or comes back from a tracking store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at one moment of a span.

    Attributes:
        name: its name. Example: ``dspy.adapter.fallback``.
        time: nanoseconds since 1970.
        attributes: values by key.
    """

    name: str
    time: int
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Link:
    """Another span that a span belongs to: 32 and 16 hexadecimal digits."""

    trace_id: str
    span_id: str


@dataclass(frozen=True, slots=True)
class Span:
    """One span, of ours or of anybody's.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: 16 hexadecimal digits.
        parent_id: the same, or ``None`` for a root.
        name: its name.
        start: nanoseconds since 1970.
        end: the same, or ``None`` for a span that has not ended.
        failed: whether its status is an error.
        message: what its status says, if it failed.
        attributes: values by key; what is JSON in the store is decoded.
        events: in no particular order.
        links: to spans of other traces.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start: int
    end: int | None
    failed: bool
    message: str
    attributes: Mapping[str, Any]
    events: Sequence[Event] = ()
    links: Sequence[Link] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """What a tracking store says of a trace as a whole.

    Attributes:
        trace_id: MLflow's. Example: ``tr-a45b0ff0b9191e460f28fd66b723d4c1``.
        experiment_id: of the experiment that holds it.
        name: its name; may be empty.
        state: ``OK``, ``ERROR``, ``IN_PROGRESS`` or something that a later MLflow knows.
        start: nanoseconds since 1970.
        seconds: how long it took, if it has ended.
        input_tokens: of all its LM calls, if any is known.
        output_tokens: the same.
        cost: in USD, if it is known.
        request: preview of what was asked.
        response: preview of what was answered.
        tags: texts by key.
        metadata: texts by key.
    """

    trace_id: str
    experiment_id: str
    name: str
    state: str
    start: int
    seconds: float | None
    input_tokens: int | None
    output_tokens: int | None
    cost: float | None
    request: str
    response: str
    tags: Mapping[str, str]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace with its spans, which are in no particular order."""

    summary: Summary
    spans: Sequence[Span]


def recorded(span: ReadableSpan) -> Span:
    """Return a span of the SDK's in the form in which it is looked at."""
    context = span.context
    assert context is not None
    return Span(
        trace_id=f"{context.trace_id:032x}",
        span_id=f"{context.span_id:016x}",
        parent_id=f"{span.parent.span_id:016x}" if span.parent is not None else None,
        name=span.name,
        start=span.start_time or 0,
        end=span.end_time,
        failed=span.status.status_code.name == "ERROR",
        message=span.status.description or "",
        attributes=span.attributes or {},
        events=[Event(event.name, event.timestamp, event.attributes or {}) for event in span.events],
        links=[Link(f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") for link in span.links],
    )

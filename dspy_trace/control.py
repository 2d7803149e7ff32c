"""Waiting for delivery, ending it, accounts of it, and feedback on what was delivered."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dspy_trace.autologging import autolog, end_metrics
from dspy_trace.export.outlet import existing, outlet
from dspy_trace.guard import shielded
from dspy_trace.observing import context as place


def flush(timeout: float = 30.0) -> bool:
    """Deliver everything that was recorded so far.

    Args:
        timeout: longest time to wait, in seconds.

    Returns:
        whether nothing waits any more.
    """
    return all(shielded("flushing", out.flush, timeout) for out in existing())


def shutdown(timeout: float = 5.0, *, worker: bool = False) -> None:
    """Stop tracing, write out what is left and end our threads. DSPy is restored.

    Args:
        timeout: longest time to take, in seconds; less than one counts as one where something holds it up.
        worker: also end the process that writes into databases, which otherwise ends by itself when it is idle.
    """
    autolog(disable=True)
    until = time.monotonic() + timeout
    end_metrics(timeout)
    for out in existing():
        shielded("shutting down", out.shutdown, max(until - time.monotonic(), 0.0), worker)


@dataclass(frozen=True, slots=True)
class Stats:
    """What has become of the spans of this process, those of the application's own included.

    ``observed = queued + spooled + delivered + dead + filtered + sum(dropped.values())``

    Attributes:
        observed: spans that ended.
        queued: waiting in memory.
        spooled: waiting in the spool.
        delivered: acknowledged by the tracking store.
        dead: refused by it for good, and kept as dead letters.
        filtered: of traces that hold no DSPy call.
        dropped: given up, by reason.
        retried: sent in vain and sent again; over HTTP.
        bytes: payload that waits in the spool.
        age: seconds that the oldest of it has waited.
    """

    observed: int = 0
    queued: int = 0
    spooled: int = 0
    delivered: int = 0
    dead: int = 0
    filtered: int = 0
    dropped: Mapping[str, int] | None = None
    retried: int = 0
    bytes: int = 0
    age: float = 0.0


def stats() -> Stats:
    """Return the accounts of this process."""
    if not existing():
        return Stats(dropped={})
    out = existing()[0]
    counts, (delivered, refused) = out.processor.counted(out.accounts)
    dropped = {**delivered.dropped, "queue full": counts.dropped, **refused}
    return Stats(
        observed=counts.observed,
        queued=counts.queued,
        spooled=delivered.waiting,
        delivered=delivered.delivered,
        dead=delivered.dead,
        filtered=counts.filtered,
        dropped={reason: number for reason, number in dropped.items() if number},
        retried=delivered.retried,
        bytes=delivered.bytes,
        age=delivered.age,
    )


def last_trace_id() -> str | None:
    """Return the OpenTelemetry id of the last finished trace of this context, 32 hex digits.

    MLflow's id of it is ``tr-`` and the same digits.
    """
    trace_id = place.last_trace.get()
    return None if trace_id is None else f"{trace_id:032x}"


def log_feedback(
    trace_id: str,
    name: str,
    value: float | int | str | bool | list[Any] | dict[str, Any],
    rationale: str | None = None,
    *,
    source_type: Literal["HUMAN", "LLM_JUDGE", "CODE"] = "HUMAN",
    source_id: str = "default",
    metadata: Mapping[str, str] | None = None,
    span_id: str | None = None,
) -> None:
    """Attach feedback to a trace, as an MLflow assessment. It is delivered after the trace, never before.

    Args:
        trace_id: OpenTelemetry's or MLflow's id of the trace.
        name: name of the assessment. Example: ``helpful``.
        value: what was said.
        rationale: why.
        source_type: who said it.
        source_id: which of them. Example: a user's id.
        metadata: texts by name.
        span_id: span that is meant, 16 hex digits; the whole trace by default.

    Raises:
        ValueError: `trace_id` or `span_id` is none.
        dspy_trace.export.target.BadTarget: the tracking URI is one that traces cannot be kept in.
    """
    digits = trace_id.removeprefix("tr-").lower()
    for what, text, length in (("trace_id", digits, 32), ("span_id", span_id, 16)):
        if text is not None and (len(text) != length or not set(text) <= set("0123456789abcdef")):
            raise ValueError(f"{what} must be {length} hexadecimal digits, not {text!r}")
    told = {
        "name": name,
        "value": value,
        "time": time.time_ns(),
        "rationale": rationale,
        "source_type": source_type,
        "source_id": source_id,
        "metadata": dict(metadata or {}),
        "span_id": span_id,
    }
    outlet().feedback(digits, {key: item for key, item in told.items() if item not in (None, {})})

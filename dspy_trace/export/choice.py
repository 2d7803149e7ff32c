"""What goes into one request: whole traces where possible, old or large ones in parts, within bounds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from dspy_trace.export.items import Batch

WAIT = 2.0
"""Seconds that a trace is held back for its root, so that it is stored whole."""

LARGE = 512
"""Spans from which on a trace is sent in parts: MLflow reads all of a trace again for each part."""

TRACES, SPANS, BYTES = 100, 1_000, 4 * 2**20
"""Most of each in one request."""


def choose(heads: Iterable[Batch], now: float, hurried: bool) -> tuple[list[Batch], float | None]:
    """Return what to send now, oldest trace first, and the seconds until more is due (``None``: nothing is held back).

    A trace is due once its root is there, or its oldest spans have waited, or it is large. A single batch may exceed
    the bounds; what sends it takes it apart.
    """
    traces: dict[str, list[Batch]] = {}
    for head in heads:
        traces.setdefault(head.trace_id, []).append(head)
    ready: list[Batch] = []
    spans = size = sent = 0
    later: float | None = None
    for batches in traces.values():
        age = now - batches[0].created
        whole = any(batch.complete for batch in batches) or sum(batch.spans for batch in batches) >= LARGE
        if not (hurried or whole or age >= WAIT or age < 0):
            later = min(later if later is not None else WAIT, WAIT - age)
            continue
        for batch in batches:
            if ready and (spans + batch.spans > SPANS or size + batch.size > BYTES):
                return ready, 0.0
            ready.append(batch)
            spans += batch.spans
            size += batch.size
        sent += 1
        if sent == TRACES:
            return ready, 0.0
    return ready, later


def rows_in(payload: bytes) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the rows of a batch by trace and span; raises what it likes where they are none."""
    found = orjson.loads(payload)
    if not isinstance(found, list):
        raise TypeError("no list of rows")
    return {(row["trace_id"] + "", row["span_id"] + ""): row for row in found}

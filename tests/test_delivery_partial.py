"""Traces that are large, unfinished or late: readable early, complete at last, in linear time."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from dspy_trace.export.target import Target
from tests.delivery import batch, delivering, environment, eventually, row, spans_of
from tests.parts.scripted_mlflow import ScriptedMlflow


def long_trace(target: Target, spans: int) -> list[object]:
    """Return the batches of a trace as a program puts them: half a thousand spans each, the root in the last."""
    trace_id = secrets.token_hex(16)
    root = row(trace_id, root=True)
    rows = [row(trace_id, root["span_id"]) for _ in range(spans - 1)] + [root]
    parts = [rows[first : first + 512] for first in range(0, spans, 512)]
    return [batch(target, trace_id, part, part is parts[-1]) for part in parts]


def test_a_trace_of_ten_thousand_spans(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """It is sent in parts while it goes on, each span once, and takes no longer for a span than a small one does."""
    target = Target(scripted_mlflow.url)
    seconds = {}
    with delivering(environment(tmp_path)) as delivery:
        for spans in (1_000, 10_000):
            put = long_trace(target, spans)
            begun = time.process_time()
            for one in put:
                delivery.put([one])
            assert delivery.flush(60)
            seconds[spans] = time.process_time() - begun
            assert spans_of(*put) <= set(scripted_mlflow.spans)
    assert {span["times"] for span in scripted_mlflow.spans.values()} == {1}
    assert max(len(request.body) for request in scripted_mlflow.otlp) < 4 * 2**20
    assert seconds[10_000] < 30 * seconds[1_000]


def test_children_that_come_after_their_root(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """What ends after its root is sent as well, though nothing of its trace comes any more."""
    target, trace_id = Target(scripted_mlflow.url), "ab" * 16
    root = row(trace_id, root=True)
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([first := batch(target, trace_id, [root])])
        eventually(lambda: len(scripted_mlflow.spans) == 1)
        delivery.put([late := batch(target, trace_id, [row(trace_id, root["span_id"])], complete=False)])
        eventually(lambda: not delivery.waits())
    assert set(scripted_mlflow.spans) == spans_of(first, late)

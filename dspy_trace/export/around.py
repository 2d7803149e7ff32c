"""What MLflow, where the program uses it, has around a trace of ours: its run, model and own span."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from operator import methodcaller
from typing import Any

from dspy_trace.export.target import Target, target
from dspy_trace.export.traces import LiveTrace
from dspy_trace.guard import ask


def ask_mlflow(trace: LiveTrace, *, follow_run: bool) -> None:
    """Note the run and the model that are active and MLflow's own span; on the program's thread, when the trace begins.

    Args:
        trace: what is known of it; its destination has been read.
        follow_run: keep the trace in the run's experiment: the page of a run shows what is in there.
    """
    mlflow = sys.modules["mlflow"]
    # Without its full package, or while another thread imports it, mlflow lacks some of these.
    run, model_id = ask(methodcaller("active_run"), mlflow), ask(methodcaller("get_active_model_id"), mlflow)
    if (run is not None or model_id is not None) and _writes_to(mlflow, trace.destination):
        trace.about["model_id"] = model_id
        trace.about["run_id"] = run.info.run_id if run is not None else None
        if run is not None and follow_run:
            trace.destination = replace(trace.destination, experiment_id=run.info.experiment_id, experiment_name=None)
    span = ask(methodcaller("get_current_active_span"), mlflow)
    trace_id, span_id = getattr(span, "trace_id", None), getattr(span, "span_id", None)
    if isinstance(trace_id, str) and trace_id.startswith("tr-") and isinstance(span_id, str):
        trace.mlflow_trace_id = int(trace_id[3:], 16)
        trace.mlflow_parent_id = int(span_id, 16)


def _writes_to(mlflow: Any, where: Target) -> bool:
    """Return whether mlflow, and so its runs, are in the same store."""
    theirs = ask(lambda: target(mlflow.get_tracking_uri(), None, os.environ)[0])
    return theirs is not None and theirs.uri == where.uri

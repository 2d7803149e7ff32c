"""A process with MLflow in it, which does for tests what a person does with MLflow: makes databases, reads traces.

It is a process of its own because importing mlflow takes seconds, and because programs that have it are traced in
another way. Run as ``python -m tests.parts.mlflow_reader``, it answers each line of JSON on stdin, ``[what, argument,
...]``, with one on stdout, ``[answer, error]``. It ends when stdin does.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any


def traces(uri: str, experiment: str = "Default") -> list[dict[str, Any]]:
    """Return what plain ``mlflow.search_traces`` finds, oldest first."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    found = mlflow.get_experiment_by_name(experiment)
    if found is None:
        return []
    told: Any = mlflow.search_traces(locations=[found.experiment_id], return_type="list")
    return [_trace(one) for one in sorted(told, key=lambda one: int(one.info.request_time))]


def _trace(trace: Any) -> dict[str, Any]:
    info = trace.info
    return {
        "id": info.trace_id,
        "name": info.tags.get("mlflow.traceName"),
        "state": str(info.state.value),
        "request": info.request_preview,
        "response": info.response_preview,
        "tokens": info.token_usage,
        "cost": info.cost,
        "tags": dict(info.tags),
        "metadata": dict(info.trace_metadata),
        "assessments": [_assessment(one) for one in info.assessments],
        "spans": [_span(one) for one in trace.data.spans],
    }


def _span(span: Any) -> dict[str, Any]:
    return {
        "id": span.span_id,
        "parent": span.parent_id,
        "name": span.name,
        "type": span.span_type,
        "status": str(span.status.status_code.value),
        "inputs": span.inputs,
        "outputs": span.outputs,
        "attributes": dict(span.attributes),
        "events": [event.name for event in span.events],
        "start": span.start_time_ns,
    }


def _assessment(told: Any) -> dict[str, Any]:
    value = told.feedback.value if told.feedback is not None else None
    source = told.source
    return {
        "name": told.name,
        "value": value,
        "rationale": told.rationale,
        "source": [source.source_type, source.source_id],
        "metadata": told.metadata,
        "span": told.span_id,
    }


def found(uri: str, experiment: str, condition: str) -> list[str]:
    """Return the ids of the traces that MLflow's search finds by a condition."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    where = mlflow.get_experiment_by_name(experiment)
    assert where is not None
    told: Any = mlflow.search_traces(
        locations=[where.experiment_id], filter_string=condition, return_type="list", include_spans=False
    )
    return [one.info.trace_id for one in told]


def runs(uri: str, experiment: str = "Default") -> list[dict[str, Any]]:
    """Return the runs of an experiment, the first to start first, with what is attached to them."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    where = client.get_experiment_by_name(experiment)
    if where is None:
        return []
    found = client.search_runs([where.experiment_id], order_by=["attributes.start_time"])
    return [_run(client, run, where.experiment_id) for run in found]


def _run(client: Any, run: Any, experiment: str) -> dict[str, Any]:
    from mlflow.artifacts import load_dict

    run_id, tags = run.info.run_id, run.data.tags
    condition = f"attributes.run_id = '{run_id}'"
    shown = [one["path"] for one in json.loads(tags.get("mlflow.loggedArtifacts", "[]"))]
    return {
        "id": run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "start": run.info.start_time,
        "end": run.info.end_time,
        "params": run.data.params,
        "tags": tags,
        "metrics": {
            name: [[point.step, point.value] for point in client.get_metric_history(run_id, name)]
            for name in run.data.metrics
        },
        "data": [[one.dataset.name, one.dataset.profile, one.tags[0].value] for one in run.inputs.dataset_inputs],
        "files": sorted(_files(client, run_id)),
        "tables": {path: load_dict(f"{run.info.artifact_uri}/{path}") for path in shown},
        "traces": len(client.search_traces([experiment], filter_string=condition, include_spans=False)),
    }


def _files(client: Any, run_id: str, folder: str | None = None) -> Iterator[str]:
    for one in client.list_artifacts(run_id, folder):
        if one.is_dir:
            yield from _files(client, run_id, one.path)
        else:
            yield one.path


def make(path: str, revision: str | None = None) -> None:
    """Make a database, as MLflow of today or as an older one did: with the schema of a `revision`: `heads-2`."""
    from mlflow.store.db import utils

    if revision is None:
        from mlflow.tracing.client import TracingClient

        TracingClient(f"sqlite:///{path}")
        return
    import sqlalchemy
    from alembic import command
    from mlflow.store.tracking.dbmodels.initial_models import Base

    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        config = getattr(utils, "_get_alembic_config")(str(engine.url))  # noqa: B009  # MLflow has no public way
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def main() -> None:
    """Answer until stdin ends."""
    tell = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    doers: dict[str, Any] = {"traces": traces, "found": found, "runs": runs, "make": make}
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        answer: Any = None
        error: str | None = None
        try:
            answer = doers[what](*arguments)
        except Exception as exception:  # noqa: BLE001  # the test gets it
            error = f"{type(exception).__name__}: {exception}"
        tell.write(json.dumps([answer, error], default=str) + "\n")
        tell.flush()


if __name__ == "__main__":
    main()

"""Compiled programs as models of MLflow's: packed in the program's process, logged by the worker.

MLflow is imported in the worker alone, and nothing of the program is: what the worker gets are the files of the model.
"""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from dspy_trace.guard import attempt
from dspy_trace.vocab import run_keys as keys

if TYPE_CHECKING:
    from dspy_trace.runs.run import Run

logger = logging.getLogger("dspy_trace")


def tell(run: Run, program: Any) -> None:
    """Tell a run of the model that its program is, as it is now. What cannot be one is said, and left out."""
    recorder = run.recorder
    if run.target is None:
        return
    if recorder.capture is None or recorder.redact is not None:
        logger.warning("dspy-trace: log_models=True logs nothing where content is kept out or redact= is given")
        return
    parcel, error = attempt(_packed, program)
    if error is not None:
        logger.warning("dspy-trace: the compiled program is not logged as a model: %s", error)
        return
    name = type(program).__name__
    run.tell(lambda: {"model": {"name": name, **parcel.told()}})


def _packed(program: Any) -> Any:
    from dspy_trace_flavor.packing import Parcel

    return Parcel(program)


def log(client: Any, experiment_id: str, run: str, run_id: str, told: dict[str, Any]) -> None:
    """Log a model as an output of a run: once, however often it is told of, and only if it is whole."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    from dspy_trace_flavor.saving import save_packed

    with TemporaryDirectory(prefix="dspy-trace-model-") as folder:
        described = Model(run_id=run_id)
        save_packed(told, Path(folder), described)
        (found, *_) = _of_run(client, experiment_id, run) or [None]
        if found is None:
            found = client.create_logged_model(experiment_id, told["name"], run_id, {keys.RUN: run}, model_type="dspy")
        if found.status != "READY":
            described.model_id = found.model_id
            described.save(str(Path(folder) / "MLmodel"))
            client.log_model_artifacts(found.model_id, folder)
            client.finalize_logged_model(found.model_id, "READY")
    outputs = client.get_run(run_id).outputs
    if found.model_id not in [one.model_id for one in (outputs.model_outputs if outputs else ())]:
        client.log_outputs(run_id, [LoggedModelOutput(found.model_id, step=0)])


def drop(client: Any, experiment_id: str, run: str) -> None:
    """Delete what a model that could not be logged has left."""
    for found in _of_run(client, experiment_id, run):
        if found.status != "READY":
            client.delete_logged_model(found.model_id)


def _of_run(client: Any, experiment_id: str, run: str) -> list[Any]:
    return list(client.search_logged_models([experiment_id], f"tags.`{keys.RUN}` = '{run}'"))

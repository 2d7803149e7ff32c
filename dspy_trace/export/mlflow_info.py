"""What is said of a trace as a whole: its tags, run, model, source and assessments."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

import orjson

from dspy_trace.guard import ask
from dspy_trace.vocab import keys, log_keys
from dspy_trace.vocab import mlflow_keys as mlflow

if TYPE_CHECKING:
    from mlflow.entities import TraceInfo

    from dspy_trace.export.items import Batch
    from dspy_trace.export.target import Target

LONGEST_METADATA: Final = 250
"""Characters of a value of trace metadata that every tracking store holds."""

_LAST_SECOND: Final = 253_402_300_799
"""Of the year 9999: none later can be written."""


@dataclass(slots=True)
class TraceFacts:
    """What the spans of one trace say of it as a whole. One per trace; used by one thread at a time.

    Attributes:
        tags: tags of the trace, besides the name and the resource's.
        metadata: metadata of the trace.
        request: inputs of the program's outermost module, the first of them, where a root that is not ours is above it.
        response: outputs of the program's outermost module, the last of them, likewise.
        scores: assessments that evaluations gave.
    """

    tags: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    request: Any = None
    response: Any = None
    scores: list[dict[str, Any]] = field(default_factory=list)

    def take(self, beside: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of what travelled beside a span, less what is said of the whole trace."""
        told = dict(beside)
        for key in beside:
            if key.startswith(mlflow.TRACE_METADATA):
                self.metadata[key[len(mlflow.TRACE_METADATA) :]] = told.pop(key)
            elif key.startswith(mlflow.TRACE_TAG) and key != mlflow.TRACE_NAME:
                self.tags[key[len(mlflow.TRACE_TAG) :]] = told.pop(key)
        return told

    def program(self, attributes: Mapping[str, Any]) -> None:
        """Note what the program was asked and answered, for a root above it that knows neither."""
        self.request = self.request if self.request is not None else attributes.get(mlflow.INPUTS)
        self.response = attributes.get(mlflow.OUTPUTS, self.response)

    def scored(self, events: list[dict[str, Any]], span_id: int) -> None:
        """Note the scores among the events of a span."""
        for event in events:
            told = event["attributes"]
            if event["name"] == keys.EVENT_EVALUATION and keys.EVALUATION_SCORE in told:
                name = told.get(keys.EVALUATION_NAME, "score")
                score = {"name": name, "value": told[keys.EVALUATION_SCORE], "time": event["time"]}
                score["rationale"] = told.get(log_keys.EVALUATION_EXPLANATION)
                self.scores.append({**score, "source_type": "CODE", "source_id": name})

    def info(self, about: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what there is to say beyond the spans, ``None`` if nothing.

        Args:
            about: what is known from elsewhere: ``run_id``, ``model_id``, ``source``, ``user``.
        """
        told = {key: value for key, value in about.items() if value}
        if self.metadata:
            told["metadata"] = {**told.get("metadata", {}), **self.metadata}
        if self.scores:
            told["assessments"] = [*told.get("assessments", ()), *self.scores]
        return told or None


def trace_info(root: Mapping[str, Any], info: Mapping[str, Any], experiment_id: str) -> dict[str, Any] | None:
    """Return MLflow's ``TraceInfoV3`` as JSON data; a server takes it as ``{"trace": {"trace_info": ...}}``.

    Sent after the spans. It overrides state and times, which are the root's, and leaves previews, tokens and cost.

    Args:
        root: the row of the local root.
        info: some of ``run_id``, ``model_id``, ``user``; ``metadata``, ``tags``, ``source``, each a dict;
            ``assessments``, a list of what :func:`assessment` takes.
        experiment_id: id of the experiment that holds the trace.

    Returns:
        ``None`` where the trace is not ours to speak of, since it goes on above this root, in MLflow's own tracing.
    """
    if root["parent_id"] is not None:
        return None
    trace_id = f"tr-{root['trace_id']}"
    metadata = {mlflow.TRACE_SCHEMA_VERSION: "3", **info.get("metadata", {}), **info.get("source", {})}
    for key, name in ((mlflow.SOURCE_RUN, "run_id"), (mlflow.MODEL_ID, "model_id"), (mlflow.USER, "user")):
        if info.get(name):
            metadata[key] = info[name]
    milliseconds = root["end"] // 1_000_000 - root["start"] // 1_000_000
    return {
        "trace_id": trace_id,
        "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment_id}},
        "request_time": _timestamp(root["start"]),
        "execution_duration": f"{max(milliseconds, 0) / 1000:.3f}s",
        "state": root["status"],
        "trace_metadata": {key: str(value)[:LONGEST_METADATA] for key, value in metadata.items()},
        "tags": {key: str(value) for key, value in info.get("tags", {}).items()},
        "assessments": [assessment(trace_id, one) for one in info.get("assessments", ())],
    }


def said_of(batch: Batch, experiment: Callable[[Target], str]) -> tuple[str, bytes, str] | None:
    """Return what is to be said of a batch's trace once its spans are there: trace, payload and owner.

    Args:
        batch: it has been delivered.
        experiment: gives the id of an experiment.
    """
    if batch.info is None:
        return None
    info, found = ask(orjson.loads, batch.info), ask(orjson.loads, batch.payload, default=[])
    root = next((row for row in reversed(found) if row["root"]), None)
    if root is None or not isinstance(info, dict):
        return None
    told = trace_info(root, info, experiment(batch.target))
    if told is None:
        return None
    if "run" in info:
        told["run"] = info["run"]
    return batch.trace_id, orjson.dumps(told), batch.owner


def mlflow_trace_info(told: Mapping[str, Any]) -> TraceInfo:
    """Return what :func:`trace_info` returned as MLflow's own object, for ``TracingClient.start_trace``.

    Imports mlflow, which takes seconds.
    """
    from mlflow.entities import TraceInfo

    entries = dict(told)
    entries["execution_duration_ms"] = round(float(entries.pop("execution_duration").rstrip("s")) * 1000)
    return TraceInfo.from_dict(entries)


def assessment(trace_id: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return feedback on a trace as MLflow's ``Assessment``, in JSON data. Told twice it is still one: its id says so.

    Args:
        trace_id: MLflow's id of the trace, ``tr-`` and 32 hex digits.
        told: ``name``, ``value`` and ``time`` (ns); besides, if known, ``rationale``, ``metadata`` (dict of texts),
            ``span_id`` (16 hex digits), ``source_type`` (``HUMAN``, ``LLM_JUDGE`` or ``CODE``), ``source_id``, ``id``.
    """
    at = _timestamp(told["time"])
    named = f"{trace_id}/{told.get('span_id')}/{told['name']}/{told['time']}"
    made: dict[str, Any] = {
        "assessment_id": told.get("id") or f"a-{hashlib.sha256(named.encode()).hexdigest()[:32]}",
        "assessment_name": told["name"],
        "trace_id": trace_id,
        "source": {"source_type": told.get("source_type", "CODE"), "source_id": told.get("source_id", "default")},
        "create_time": at,
        "last_update_time": at,
        "feedback": {"value": told["value"]},
        "valid": True,
    }
    for key in ("rationale", "span_id"):
        if told.get(key):
            made[key] = told[key]
    if told.get("metadata"):
        made["metadata"] = {key: str(value) for key, value in told["metadata"].items()}
    return made


def _timestamp(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    moment = datetime.fromtimestamp(min(seconds, _LAST_SECOND), timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}Z"

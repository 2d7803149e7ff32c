"""Rows as MLflow's own span objects, for its tracking databases. Only the worker process calls this."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dspy_trace.export.mlflow_values import reads_as_json
from dspy_trace.export.otlp_request import json_text
from dspy_trace.guard import ask
from dspy_trace.vocab import mlflow_keys as mlflow

if TYPE_CHECKING:
    from mlflow.entities import Span


def mlflow_spans(rows: Iterable[Mapping[str, Any]]) -> list[Span]:
    """Return `rows` as spans for ``TracingClient.log_spans``; of rows that are one span the last.

    Imports mlflow, which takes seconds.
    """
    from mlflow.entities import Span

    latest = {(row["trace_id"], row["span_id"]): row for row in rows}
    return [Span.from_dict(_as_dict(row)) for row in latest.values()]


def _as_dict(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row in the form of ``Span.to_dict()``, each attribute as JSON text."""
    attributes = {key: _dumped(key, value, row) for key, value in row["attributes"].items() if value is not None}
    attributes[mlflow.REQUEST_ID] = json.dumps(f"tr-{row['trace_id']}")
    return {
        "trace_id": _base64(row["trace_id"]),
        "span_id": _base64(row["span_id"]),
        "parent_span_id": _base64(row["parent_id"]) if row["parent_id"] is not None else None,
        "name": row["name"],
        "start_time_unix_nano": row["start"],
        "end_time_unix_nano": row["end"],
        "status": {"code": f"STATUS_CODE_{row['status']}", "message": row["message"]},
        "attributes": attributes,
        "events": [
            {"name": event["name"], "time_unix_nano": event["time"], "attributes": event["attributes"]}
            for event in row["events"]
        ],
        "links": [
            {
                "trace_id": f"tr-{link['trace_id']}",
                "span_id": link["span_id"],
                "attributes": link["attributes"] or None,
            }
            for link in row["links"]
        ],
    }


def _dumped(key: str, value: Any, row: Mapping[str, Any]) -> str:
    if isinstance(value, str) and reads_as_json(value) and _store_unwraps():
        value = json.dumps(value)
    return json_text(key, value, row)


def _base64(identifier: str) -> str:
    return b64encode(bytes.fromhex(identifier)).decode()


@lru_cache(maxsize=1)
def _store_unwraps() -> bool:
    """Return whether the store takes JSON text of JSON text for encoded twice, as MLflow's does up to 3.17.

    Asked of a private function, by what it does; where it is gone, so is the habit.
    """
    return bool(ask(_unwraps, default=False))


def _unwraps() -> bool:
    from mlflow.entities import Span
    from mlflow.tracing.otel.translation import translate_span_when_storing

    nothing: dict[str, Any] = {
        "events": [],
        "links": [],
        "root": False,
        "message": "",
        "status": "OK",
        "attributes": {},
    }
    probe = _as_dict(
        {**nothing, "trace_id": "1" * 32, "span_id": "1" * 16, "parent_id": None, "name": "", "start": 1, "end": 2}
    )
    probe["attributes"]["probe"] = json.dumps("[1]")
    return bool(translate_span_when_storing(Span.from_dict(probe))["attributes"]["probe"] == "[1]")

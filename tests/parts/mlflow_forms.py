"""A process with MLflow in it that stores the same rows in a database and on a server, and reads both back.

Run as ``python -m tests.parts.mlflow_forms`` with a JSON object on stdin: ``rows``, ``infos`` by trace id, ``database``
and ``server`` (tracking URIs) and ``experiment`` (a name). Writes to stdout for each the experiment's id, and what the
experiment holds then, by trace id.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import urllib.request
from typing import Any

from dspy_trace.export.mlflow import mlflow_spans, mlflow_trace_info, otlp_request, trace_info

Row = dict[str, Any]


def main() -> None:
    tell = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    asked = json.load(sys.stdin)
    told = {name: stored(name, asked) for name in ("database", "server")}
    json.dump(told, tell, default=str)
    tell.flush()


def stored(name: str, asked: Row) -> tuple[str, dict[str, Row]]:
    """Store the rows, twice as after an answer that got lost, and return in which experiment, and what is there."""
    import mlflow

    uri = asked[name]
    mlflow.set_tracking_uri(uri)
    experiment = mlflow.set_experiment(asked["experiment"]).experiment_id
    for _ in range(2):
        (_into_database if name == "database" else _to_server)(uri, experiment, asked["rows"], asked["infos"])
    found: Any = mlflow.search_traces(locations=[experiment], return_type="list", max_results=500)
    return experiment, {trace.info.trace_id: _trace(trace) for trace in found}


def _into_database(uri: str, experiment: str, rows: list[Row], infos: dict[str, Row]) -> None:
    from mlflow.tracing.client import TracingClient

    client = TracingClient(uri)
    client.log_spans(experiment, mlflow_spans(rows))
    for told in _told(experiment, rows, infos):
        client.start_trace(mlflow_trace_info(told))


def _to_server(uri: str, experiment: str, rows: list[Row], infos: dict[str, Row]) -> None:
    spans = gzip.compress(otlp_request(rows))
    protobuf = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
    _post(f"{uri}/v1/traces", spans, {**protobuf, "x-mlflow-experiment-id": experiment})
    for told in _told(experiment, rows, infos):
        body = json.dumps({"trace": {"trace_info": told}}).encode()
        _post(f"{uri}/api/3.0/mlflow/traces", body, {"Content-Type": "application/json"})


def _told(experiment: str, rows: list[Row], infos: dict[str, Row]) -> list[Row]:
    roots = [row for row in rows if row["root"] and row["trace_id"] in infos]
    made = [trace_info(row, infos[row["trace_id"]], experiment) for row in roots]
    return [told for told in made if told is not None]


def _post(address: str, body: bytes, headers: dict[str, str]) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(urllib.request.Request(address, body, headers), timeout=60) as answer:
        answer.read()


def _trace(trace: Any) -> Row:
    info = trace.info
    names = ("request_preview", "response_preview", "request_time", "execution_duration", "token_usage", "cost")
    return {
        **{name: getattr(info, name) for name in names},
        "state": info.state.value,
        "tags": {key: value for key, value in info.tags.items() if key != "mlflow.artifactLocation"},
        "metadata": dict(info.trace_metadata),
        "assessments": [one.to_dictionary() for one in info.assessments],
        "spans": {span.span_id: _span(span) for span in trace.data.spans},
    }


def _span(span: Any) -> Row:
    told = span.to_dict()
    return {
        "parent": span.parent_id,
        "name": span.name,
        "type": span.span_type,
        "status": [span.status.status_code.value, span.status.description],
        "times": [span.start_time_ns, span.end_time_ns],
        "attributes": {key: value for key, value in span.attributes.items() if key != "mlflow.traceRequestId"},
        "as_stored": {
            key: _plain(value) for key, value in told["attributes"].items() if key != "mlflow.traceRequestId"
        },
        "events": [[event.name, event.timestamp, event.attributes] for event in span.events],
        "links": [link.to_dict() for link in span.links],
    }


def _plain(text: str) -> Any:
    """Return objects, lists and numbers as such, for their spacing does not matter; texts as they are stored."""
    try:
        told = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(told, str) else told


if __name__ == "__main__":
    main()

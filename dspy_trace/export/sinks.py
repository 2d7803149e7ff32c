"""Into an MLflow server over HTTP: OTLP for spans, MLflow's REST interface for what follows them. Needs no mlflow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol
from urllib.parse import quote

import orjson

from dspy_trace.export.choice import BYTES
from dspy_trace.export.outcomes import Failing, Refused, Undelivered, Unwelcome, outcome
from dspy_trace.export.target import Credential, Target
from dspy_trace.export.wire import Answer, Wire
from dspy_trace.guard import ask, attempt

Row = dict[str, Any]

MISSING = "RESOURCE_DOES_NOT_EXIST"
TRACES = "/api/3.0/mlflow/traces"
EXPERIMENTS = "/api/2.0/mlflow/experiments"

FRESH = 60.0
"""Seconds for which an experiment that is there is taken to be there."""

RESTORE = "Restore it (`mlflow experiments restore`), or set MLFLOW_EXPERIMENT_NAME to another."


class Sink(Protocol):
    """One tracking server or database. Each method raises :class:`~dspy_trace.export.outcomes.Undelivered`."""

    def experiment(self, target: Target) -> str:
        """Return the id of the experiment, which is created if it is named and missing, as MLflow does."""
        ...

    def spans(self, target: Target, rows: Sequence[Row]) -> None:
        """Store spans. May be told the same twice; no span may be in `rows` twice."""
        ...

    def info(self, target: Target, told: Row) -> None:
        """Say something of a trace as a whole; see :func:`dspy_trace.export.mlflow_info.trace_info`."""
        ...

    def feedback(self, target: Target, told: Row) -> None:
        """Store an assessment; see :func:`dspy_trace.export.mlflow_info.assessment`. May be told the same twice."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


class Experiments:
    """Ids of experiments, asked for again after a while: one may be deleted while a program runs.

    Args:
        find: returns the id of a target's experiment; raises ``Undelivered``.
    """

    def __init__(self, find: Callable[[Target], str]) -> None:
        self._find = find
        self._known: dict[Target, tuple[str, float]] = {}

    def id_of(self, target: Target) -> str:
        """Return the id of the experiment of a target."""
        found, until = self._known.get(target, ("", 0.0))
        if monotonic() >= until:
            found = self._find(target)
            self._known[target] = found, monotonic() + FRESH
        return found

    def forget(self, target: Target) -> None:
        """Ask again the next time."""
        self._known.pop(target, None)


class HttpSink:
    """A tracking server.

    Args:
        uri: its address.
        credentials: gives what opens a target, asked before each request.
    """

    def __init__(self, uri: str, credentials: Callable[[Target], Credential | None]) -> None:
        self._wire = Wire(uri)
        self._credentials = credentials
        self._experiments = Experiments(self._resolved)

    def experiment(self, target: Target) -> str:
        return self._experiments.id_of(target)

    def spans(self, target: Target, rows: Sequence[Row]) -> None:
        from dspy_trace.export.otlp_request import otlp_request

        body, error = attempt(otlp_request, rows)
        if error is not None:
            raise error if isinstance(error, ImportError) else Refused(f"it cannot be encoded: {error!r}")
        if len(body) > BYTES and len(rows) > 1:
            raise Refused("too large for one request")
        headers = {"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": self.experiment(target)}
        answer = self._wire.send("POST", "/v1/traces", body, headers, self._credentials(target), packed=True)
        if answer.status == 404:
            self._experiments.forget(target)
        _accept(answer)
        if not _acknowledges(answer.body):
            raise Unwelcome(f"it answers {_beginning(answer.body)!r}, as no MLflow server does", "unsuitable")

    def info(self, target: Target, told: Row) -> None:
        self._ask(target, "POST", TRACES, {"trace": {"trace_info": told}})

    def feedback(self, target: Target, told: Row) -> None:
        where = f"{TRACES}/{told['trace_id']}/assessments"
        try:
            self._ask(target, "POST", where, {"assessment": told})
        except Failing:
            # An id that is there already breaks the server down: the answer to an earlier try got lost.
            try:
                self._ask(target, "GET", f"{where}/{told['assessment_id']}")
                return
            except Undelivered:
                pass
            raise

    def close(self) -> None:
        self._wire.close()

    def _resolved(self, target: Target) -> str:
        if target.experiment_name is None:
            wanted = target.experiment_id or "0"
            path = f"{EXPERIMENTS}/get?experiment_id={quote(wanted, safe='')}"
        else:
            path = f"{EXPERIMENTS}/get-by-name?experiment_name={quote(target.experiment_name, safe='')}"
        try:
            found = self._ask(target, "GET", path).get("experiment") or {}
        except Unwelcome as unwelcome:
            if target.experiment_name is None or MISSING not in unwelcome.words:
                raise
            return self._created(target, path)
        if found.get("lifecycle_stage") == "deleted":
            raise Unwelcome(f"the experiment {target.experiment} has been deleted", "deleted", RESTORE)
        if not isinstance(found.get("experiment_id"), str):
            raise Unwelcome("what answers there is no MLflow server", "missing")
        return str(found["experiment_id"])

    def _created(self, target: Target, path: str) -> str:
        try:
            made = self._ask(target, "POST", f"{EXPERIMENTS}/create", {"name": target.experiment_name})
        except Refused as refused:
            if "RESOURCE_ALREADY_EXISTS" not in refused.words:
                raise Unwelcome(refused.words, "missing") from refused
            made = self._ask(target, "GET", path).get("experiment") or {}
        return str(made["experiment_id"])

    def _ask(self, target: Target, method: str, path: str, told: Row | None = None) -> Row:
        body = None if told is None else orjson.dumps(told)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        answer = self._wire.send(method, path, body, headers, self._credentials(target))
        _accept(answer)
        found = ask(orjson.loads, answer.body)
        if not isinstance(found, dict):
            raise Unwelcome(f"it answers {_beginning(answer.body)!r}, as no MLflow server does", "unsuitable")
        return found


def _accept(answer: Answer) -> None:
    if not 200 <= answer.status < 300:
        raise outcome(answer.status, words(answer), answer.retry_after)


def _acknowledges(body: bytes) -> bool:
    """Return whether a 2xx to spans is MLflow's: a proxy may answer 200 with a page of its own, and keep nothing."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    return ask(ExportTraceServiceResponse.FromString, body) is not None or isinstance(ask(orjson.loads, body), dict)


def _beginning(body: bytes) -> str:
    return body[:60].decode("utf-8", "replace")


def words(answer: Answer) -> str:
    """Return what a server says is wrong, briefly."""
    if answer.location:
        return f"it says to go to {answer.location}"
    told = ask(orjson.loads, answer.body)
    if isinstance(told, dict):
        said = [told[key] for key in ("error_code", "message", "detail") if isinstance(told.get(key), str)]
        if said:
            return " ".join(said)
    text = answer.body[:500].decode("utf-8", "replace").strip()
    return "" if text.startswith("<") else text[:300]

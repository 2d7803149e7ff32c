"""A tracking server on loopback that speaks what MLflow's does, keeps what it gets, and fails as it is told.

    def test_it(scripted_mlflow):
        scripted_mlflow.fault = lambda request: Fault(503, retry_after="1") if request.number == 1 else None

It answers `/v1/traces` and the REST calls for experiments, trace information and assessments, with MLflow 3.17's codes.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.parts.loopback import Handler, LoopbackServer

POISON = "poison"
"""A span with this attribute is refused, with the status that the value names, and all that came with it."""


@dataclass(frozen=True)
class Request:
    """One request as it arrived; header names are in lower case, the body is unpacked."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Fault:
    """How to fail: with a status, after a delay, or by closing the connection with half an answer or none."""

    status: int = 503
    body: bytes = b""
    retry_after: str | None = None
    delay: float = 0.0
    close: bool = False
    headers: dict[str, str] = field(default_factory=dict)


class ScriptedMlflow:
    """A running server. Close it when done; `restart()` opens it again on the same port, with all it has stored."""

    def __init__(self) -> None:
        self.fault: Callable[[Request], Fault | None] = lambda request: None
        self.authorization: str | None = None
        """What requests must carry; others get a 401."""
        self.experiments = {"Default": "0"}
        self.deleted: set[str] = set()
        """Ids of deleted experiments."""
        self.spans: dict[tuple[str, str], dict[str, Any]] = {}
        """Stored spans by trace and span: `name`, `parent`, `experiment`, `times` (how often it was stored)."""
        self.infos: list[dict[str, Any]] = []
        self.assessments: dict[str, dict[str, Any]] = {}
        self.failures: list[BaseException] = []
        self._requests: list[Request] = []
        self._lock = threading.RLock()
        self._server: _Server | None = None
        self._port = 0
        self.restart()

    @property
    def url(self) -> str:
        """The tracking URI."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def requests(self) -> list[Request]:
        """Every request so far, failed ones included; a copy."""
        with self._lock:
            return list(self._requests)

    @property
    def otlp(self) -> list[Request]:
        """The requests of spans among them."""
        return [request for request in self.requests if request.path == "/v1/traces"]

    def restart(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._server = _Server(self, self._port)
        self._port = self._server.server_port

    def close(self) -> None:
        """Stop listening and cut every connection."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[Fault | None, int, bytes]:
        """Return the fault to make, or status and body of the answer. For the handler."""
        with self._lock:
            request = Request(len(self._requests) + 1, method, path, headers, body, monotonic())
            self._requests.append(request)
            fault = self.fault(request)
            if fault is not None:
                return fault, fault.status, fault.body
            if self.authorization is not None and headers.get("authorization") != self.authorization:
                return None, 401, b"You are not authenticated."
            if path == "/v1/traces":
                return None, *self._store(request)
            return None, *self._rest(request)

    def _store(self, request: Request) -> tuple[int, bytes]:
        experiment = request.headers.get("x-mlflow-experiment-id", "")
        if not experiment.isdecimal():
            return 400, _error("INVALID_PARAMETER_VALUE", f"Invalid experiment ID: {experiment}")
        if experiment not in self.experiments.values():
            return 404, _error("RESOURCE_DOES_NOT_EXIST", f"No Experiment with id={experiment} exists")
        told = ExportTraceServiceRequest.FromString(request.body)
        spans = [span for resource in told.resource_spans for scope in resource.scope_spans for span in scope.spans]
        keys = [(span.trace_id.hex(), span.span_id.hex()) for span in spans]
        assert len(set(keys)) == len(keys), "a span is in one request twice, which spoils the trace's sums"
        for span in spans:
            for attribute in span.attributes:
                if attribute.key == POISON:
                    return attribute.value.int_value, _error("BAD", "Failed to log OpenTelemetry spans")
        for key, span in zip(keys, spans, strict=True):
            before = self.spans.get(key, {"times": 0})
            parent = span.parent_span_id.hex() or None
            self.spans[key] = {
                "name": span.name,
                "parent": parent,
                "experiment": experiment,
                "times": before["times"] + 1,
            }
        return 200, b""

    def _rest(self, request: Request) -> tuple[int, bytes]:
        path, _, query = request.path.partition("?")
        value = query.partition("=")[2].replace("%20", " ")
        known = self.experiments
        if path.endswith("/experiments/get-by-name"):
            return self._experiment(value if value in known else None)
        if path.endswith("/experiments/get"):
            return self._experiment(next((name for name, ident in known.items() if ident == value), None))
        if path.endswith("/experiments/create"):
            name = request.json["name"]
            if name in known:
                return 400, _error("RESOURCE_ALREADY_EXISTS", f"Experiment '{name}' already exists.")
            known[name] = str(len(known))
            return 200, json.dumps({"experiment_id": known[name]}).encode()
        if path == "/api/3.0/mlflow/traces":
            self.infos.append(request.json["trace"]["trace_info"])
            return 200, b"{}"
        if path.startswith("/api/3.0/mlflow/traces/") and "/assessments" in path:
            return self._assess(request)
        return 404, b"<!doctype html>no such page"

    def _experiment(self, name: str | None) -> tuple[int, bytes]:
        if name is None:
            return 404, _error("RESOURCE_DOES_NOT_EXIST", "Could not find experiment")
        ident = self.experiments[name]
        stage = "deleted" if ident in self.deleted else "active"
        return 200, json.dumps({"experiment": {"experiment_id": ident, "lifecycle_stage": stage}}).encode()

    def _assess(self, request: Request) -> tuple[int, bytes]:
        trace, _, ident = request.path.split("/traces/")[1].partition("/assessments")
        if request.method == "GET":
            found = self.assessments.get(ident.strip("/"))
            return (200, json.dumps(found).encode()) if found else (404, _error("RESOURCE_DOES_NOT_EXIST", "none"))
        if not any(f"tr-{trace_id}" == trace for trace_id, _ in self.spans):
            return 404, _error("RESOURCE_DOES_NOT_EXIST", f"Trace with ID '{trace}' not found.")
        told = request.json["assessment"]
        if told["assessment_id"] in self.assessments:
            return 500, _error("INTERNAL_ERROR", "Failed to create assessment due to a constraint violation.")
        self.assessments[told["assessment_id"]] = told
        return 200, b"{}"


def _error(code: str, message: str) -> bytes:
    return json.dumps({"error_code": code, "message": message}).encode()


class _Server(LoopbackServer):
    def __init__(self, owner: ScriptedMlflow, port: int) -> None:
        self.owner = owner
        super().__init__(_Handler, port, owner.failures)


class _Handler(Handler):
    def do_POST(self) -> None:
        assert isinstance(self.server, _Server)
        owner = self.server.owner
        body, headers = self.body(), self.lower_headers()
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        fault, status, answer = owner.answer(self.command, self.path, headers, body)
        if fault is not None and fault.delay:
            threading.Event().wait(fault.delay)
        if fault is not None and fault.close:
            self.close_connection = True
            if not fault.body:
                return
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer) + (10 if fault is not None and fault.close else 0)))
        for name, value in (fault.headers if fault is not None else {}).items():
            self.send_header(name, value)
        if fault is not None and fault.retry_after is not None:
            self.send_header("Retry-After", fault.retry_after)
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST


@pytest.fixture
def scripted_mlflow() -> Iterator[ScriptedMlflow]:
    """A fresh server. It fails the test if the server itself broke down."""
    server = ScriptedMlflow()
    yield server
    server.close()
    assert not server.failures, server.failures

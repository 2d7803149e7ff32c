"""An OTLP/HTTP endpoint that keeps every span, metric and event that it is sent."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, TypedDict

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status
from typing_extensions import Self


class ReceivedSpan(TypedDict):
    """A span as it went over the wire, in plain values."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    """`INTERNAL`, `CLIENT`, ..."""
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    events: list[dict[str, Any]]
    """Each with `name`, `time_ns` and `attributes`."""
    links: list[dict[str, Any]]
    """Each with `trace_id`, `span_id` and `attributes`."""
    status: dict[str, str]
    """`code` (`UNSET`, `OK`, `ERROR`) and `message`."""
    resource: dict[str, Any]
    scope: str
    """Name of the instrumentation scope."""


class ReceivedEvent(TypedDict):
    """A log record as it went over the wire, in plain values."""

    name: str
    trace_id: str
    span_id: str
    attributes: dict[str, Any]
    scope: str


class Recorder:
    """Listen on a free port of 127.0.0.1 while the block lasts; thread-safe."""

    def __init__(self) -> None:
        self._spans: list[ReceivedSpan] = []
        self._metrics: dict[str, Metric] = {}
        self._events: list[ReceivedEvent] = []
        self._arrived = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._server.daemon_threads = True
        # The short poll makes the end of each test quick: shutting down waits for one interval.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def endpoint(self) -> str:
        """Base URL, as `OTEL_EXPORTER_OTLP_ENDPOINT` wants it."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def spans(self) -> list[ReceivedSpan]:
        """Return what has arrived so far, in the order of arrival."""
        with self._arrived:
            return list(self._spans)

    def wait_for(self, n_spans: int, timeout: float = 20.0) -> list[ReceivedSpan]:
        """Return all spans as soon as there are at least `n_spans`.

        Raises:
            TimeoutError: fewer arrived within `timeout` seconds; the message names those that did.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self._spans) >= n_spans, timeout):
                names = [span["name"] for span in self._spans]
                raise TimeoutError(f"{len(names)} of {n_spans} spans arrived within {timeout:g} s: {names}")
            return list(self._spans)

    def wait_for_metrics(self, *names: str, timeout: float = 20.0) -> dict[str, Metric]:
        """Return all metrics by name, each as it came last, as soon as those named are there.

        Raises:
            TimeoutError: they did not arrive within `timeout` seconds; the message names those that did.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: self._metrics.keys() >= set(names), timeout):
                raise TimeoutError(f"only these metrics arrived within {timeout:g} s: {sorted(self._metrics)}")
            return dict(self._metrics)

    def forget_metrics(self) -> None:
        """Forget the metrics that have arrived."""
        with self._arrived:
            self._metrics.clear()

    def events(self) -> list[ReceivedEvent]:
        """Return the log records that have arrived so far."""
        with self._arrived:
            return list(self._events)

    def receive(self, body: bytes, path: str = "/v1/traces") -> None:
        """Keep what an encoded request for `path` has."""
        with self._arrived:
            if path == "/v1/traces":
                self._spans.extend(decode(ExportTraceServiceRequest.FromString(body)))
            elif path == "/v1/metrics":
                of_metrics = ExportMetricsServiceRequest.FromString(body).resource_metrics
                self._metrics |= {
                    m.name: m for batch in of_metrics for scope in batch.scope_metrics for m in scope.metrics
                }
            elif path == "/v1/logs":
                of_logs = ExportLogsServiceRequest.FromString(body).resource_logs
                self._events += [_event(e, scope) for x in of_logs for scope in x.scope_logs for e in scope.log_records]
            self._arrived.notify_all()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def decode(request: ExportTraceServiceRequest) -> list[ReceivedSpan]:
    """Turn an OTLP request into plain spans."""
    return [
        _span(span, batch.resource, scope)
        for batch in request.resource_spans
        for scope in batch.scope_spans
        for span in scope.spans
    ]


def _span(span: Span, resource: Resource, scope: ScopeSpans) -> ReceivedSpan:
    return ReceivedSpan(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() or None,
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        events=[
            {"name": e.name, "time_ns": e.time_unix_nano, "attributes": _attributes(e.attributes)} for e in span.events
        ],
        links=[
            {"trace_id": x.trace_id.hex(), "span_id": x.span_id.hex(), "attributes": _attributes(x.attributes)}
            for x in span.links
        ],
        status={
            "code": Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
            "message": span.status.message,
        },
        resource=_attributes(resource.attributes),
        scope=scope.scope.name,
    )


def _event(record: LogRecord, scope: ScopeLogs) -> ReceivedEvent:
    return ReceivedEvent(
        name=record.event_name,
        trace_id=record.trace_id.hex(),
        span_id=record.span_id.hex(),
        attributes=_attributes(record.attributes),
        scope=scope.scope.name,
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    which = value.WhichOneof("value")
    if which is None:
        return None
    if which == "array_value":
        return [_value(item) for item in value.array_value.values]
    if which == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return getattr(value, which)


def _handler_for(recorder: Recorder) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            recorder.receive(body, self.path)
            # The replies to metrics and logs are as empty as this one.
            reply = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: the tests read stderr."""

    return Handler

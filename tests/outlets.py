"""``autolog()`` in a test's own process: a way out of the test's own, no worker, and the rows that reach its spool."""

from __future__ import annotations

import atexit
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from dspy.utils import DummyLM
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once

import dspy_trace
from dspy_trace import autologging
from dspy_trace.export import outlet as outlets
from dspy_trace.export.outlet import Outlet

Row = dict[str, Any]

OURS = ("OTEL_", "MLFLOW_", "DSPY_TRACE_")
"""Beginnings of the environment variables that the tests set themselves."""


class Kept:
    """What has reached the spool.

    Attributes:
        folder: the test's own; its database would be ``mlflow.db`` there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def uri(self) -> str:
        """The tracking URI of the environment."""
        return f"sqlite:///{self.folder}/mlflow.db"

    @property
    def out(self) -> Outlet:
        """The way out, which has been made."""
        (made,) = outlets.existing()
        return made

    def batches(self) -> list[tuple[str, str, list[Row], dict[str, Any]]]:
        """Return tracking URI, experiment, rows and info of each batch in the spool, in order."""
        if not outlets.existing():
            return []
        self.out.processor.write_out()
        found = self.out.delivery.file().read(
            "SELECT uri, experiment_id || experiment_name, payload, info FROM batches JOIN targets"
            " ON targets.id = batches.target ORDER BY batches.id"
        )
        return [
            (uri, experiment, orjson.loads(payload), orjson.loads(info or "{}"))
            for uri, experiment, payload, info in found
        ]

    def rows(self) -> list[Row]:
        """Return all rows in the spool."""
        return [row for _, _, rows, _ in self.batches() for row in rows]

    def tree(self) -> str:
        """Return the rows as text; see :func:`tree`."""
        return tree(self.rows())

    def targets(self) -> list[tuple[str, str]]:
        """Return tracking URI and experiment of each local root in the spool."""
        return [(uri, experiment) for uri, experiment, rows, _ in self.batches() for row in rows if row["root"]]


def tree(rows: Iterable[Row]) -> str:
    """Return rows as an indented tree, siblings by start; a local root is marked ``>``, a failure ``!``."""
    ordered = sorted(rows, key=lambda row: int(row["start"]))
    known = {row["span_id"] for row in ordered}
    children: defaultdict[str | None, list[Row]] = defaultdict(list)
    for row in ordered:
        children[row["parent_id"] if row["parent_id"] in known else None].append(row)
    lines = [""]

    def add(row: Row, depth: int) -> None:
        failed = " !" if row["status"] == "ERROR" else ""
        lines.append("  " * depth + ("> " if row["root"] else "") + row["name"] + failed)
        for child in children[row["span_id"]]:
            add(child, depth + 1)

    for row in children[None]:
        add(row, 0)
    return "\n".join(lines) + "\n"


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Kept]:
    """Give the test a process as it is before telemetry is set up, and what ``autolog()`` leaves in its spool."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DSPY_TRACE_SPOOL_DIR", str(tmp_path / "spool"))
    monkeypatch.setenv("DSPY_TRACE_WORKER", "off")
    # Where a test sends spans somewhere over OTLP, metrics do not go along unless it asks for them.
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    here = Kept(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", here.uri)
    monkeypatch.setattr(outlets, "_outlet", [])
    offered: list[TracerProvider] = []
    monkeypatch.setattr(autologging, "_offered", offered)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    yield here
    dspy_trace.shutdown(timeout=0.0)
    for out in outlets.existing():
        atexit.unregister(out._at_exit)
    for provider in offered:
        provider.shutdown()


def provider_of_app(**asked: Any) -> tuple[TracerProvider, InMemorySpanExporter]:
    """Return a provider as an application sets one up, and what its exporter gets."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False, **asked)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


def names(exporter: InMemorySpanExporter) -> list[str]:
    """Return the names of the exported spans, in order of their start."""
    return [span.name for span in sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)]


def dummy(answers: Sequence[str] = ("yes",), times: int = 50) -> DummyLM:
    """Return an LM that answers in turn, and again."""
    return DummyLM([{"answer": answer} for answer in answers] * times)


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set environment variables for the length of the block."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def nothing_is_said(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """OpenTelemetry never has to refuse a provider, and we have nothing to complain of."""
    yield
    said = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING]
    assert said == []

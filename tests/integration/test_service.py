"""A service with telemetry of its own: its exporter loses nothing, and MLflow gets what DSPy did, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.parts.mlflow_server import MISSING, Reader, end, is_installed
from tests.parts.project import Project, tree, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not is_installed(), reason=MISSING),
    pytest.mark.skipif(importlib.util.find_spec("fastapi") is None, reason="FastAPI, which MLflow brings, is missing"),
]

PROGRAM = Path(__file__).with_name("service_program.py")

REMOTE = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
"""Trace and span of the caller."""

ASK = """
POST /ask
  authorize
  invoke_workflow Answer
    ChainOfThought think
      Predict think.predict
        chat gpt-4o-mini
  store
"""

ASK_IN_THREAD = """
POST /ask-in-thread
  handle
    invoke_workflow Answer
      ChainOfThought think
        Predict think.predict
          chat gpt-4o-mini
"""

FAILED = """
POST /ask-in-thread
  handle
    invoke_workflow Answer
"""

TREES = {ASK: 5, ASK_IN_THREAD: 1, FAILED: 1}
"""What MLflow gets, and how often."""

SPANS = sum((told.count("\n") - 1) * number for told, number in TREES.items())


class Service:
    """A service that runs.

    Args:
        url: where.
        file: what its exporter writes into.
    """

    def __init__(self, url: str, file: Path) -> None:
        self.url = url
        self._file = file
        self._direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> Any:
        """Ask for a page."""
        with self._direct.open(self.url + path, timeout=60) as response:
            return json.load(response)

    def post(self, path: str, question: str, *, remote: bool = False) -> str | int:
        """Ask a question; return the answer, or the status."""
        body = json.dumps({"question": question}).encode()
        request = urllib.request.Request(self.url + path, body, {"content-type": "application/json"})
        if remote:
            request.add_header("traceparent", f"00-{REMOTE[0]}-{REMOTE[1]}-01")
        try:
            with self._direct.open(request, timeout=60) as response:
                return str(json.load(response)["answer"])
        except urllib.error.HTTPError as error:
            return error.code

    def spans(self) -> list[dict[str, Any]]:
        """Return what the application's exporter was given."""
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        return [json.loads(line) for line in lines]


@contextmanager
def running(project: Project, order: str) -> Iterator[Service]:
    """Run the service until the block ends, and then to its own end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    service = Service(f"http://127.0.0.1:{port}", project.home / f"{order}.jsonl")
    log = project.home / f"{order}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(port), str(project.home / f"{order}.jsonl"), order],
            cwd=project.folder,
            env=project.environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        until(lambda: process.poll() is not None or listens(port), 100, log.read_text)
        yield service
    finally:
        end(process)
    assert "dspy-trace" not in log.read_text(), log.read_text()


def listens(port: int) -> bool:
    """Return whether somebody does."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def visit(service: Service) -> None:
    """Do what clients do: look whether it is well, ask by name of another trace or of none, ask at once, fail."""
    assert service.get("/health") == {"health": "ok"}
    assert service.post("/ask", "canary1", remote=True) == "answer of canary1"
    assert service.post("/ask-in-thread", "canary2") == "answer of canary2"
    assert service.post("/ask-in-thread", "fail") == 500
    with ThreadPoolExecutor(4) as pool:
        questions = [f"canary{number}" for number in range(4)]
        assert list(pool.map(lambda one: service.post("/ask", one), questions)) == [
            f"answer of {one}" for one in questions
        ]
    assert service.get("/health") == {"health": "ok"}


def shapes(spans: list[dict[str, Any]]) -> Counter[str]:
    """Return the application's own spans by all that does not change from run to run."""
    named = {span["context"]["span_id"]: span["name"] for span in spans}
    told: Counter[str] = Counter()
    for span in spans:
        own = {key: value for key, value in span["attributes"].items() if "port" not in key}
        stable = {key: value for key, value in own.items() if "127.0.0.1" not in str(value)}
        parent = named.get(span["parent_id"] or "", span["parent_id"])
        events = [event["name"] for event in span["events"]]
        told[json.dumps([span["name"], span["kind"], parent, span["status"], stable, events, span["links"]])] += 1
    return told


def is_ours(span: dict[str, Any]) -> bool:
    """Return whether a span is one of DSPy's."""
    return any(key.startswith(("dspy.", "gen_ai.")) for key in span["attributes"])


@pytest.fixture
def project_with_database(project: Project, made_database: Path) -> Project:
    """Give a project whose database is made: that takes MLflow seconds."""
    shutil.copyfile(made_database, project.folder / "mlflow.db")
    return project


@pytest.mark.parametrize("order", ["late", "early"])
def test_a_service(project_with_database: Project, mlflow_reader: Reader, order: str) -> None:
    """Whenever its provider is set, the application's exporter gets what it got without us, and our spans beside.

    MLflow gets the requests that asked DSPy, whole, named and finished; prompts are in MLflow alone.
    """
    project = project_with_database
    with running(project, "untraced") as bare:
        visit(bare)
    with running(project, order) as service:
        visit(service)
        # It dies of the SIGTERM that uvicorn raises once more: what was handed over an interval before is kept.
        until(lambda: project.in_spool() == SPANS, 60)
    spans = service.spans()
    theirs = [span for span in spans if not is_ours(span)]
    assert shapes(theirs) == shapes(bare.spans())
    assert Counter(span["name"] for span in spans if is_ours(span)) == {
        "invoke_workflow Answer": 7,
        "ChainOfThought think": 6,
        "Predict think.predict": 6,
        "chat gpt-4o-mini": 6,
    }
    assert "canary" not in json.dumps(spans)
    project.arrived()
    check_traces(mlflow_reader.traces(project.database), spans)


def check_traces(traces: list[dict[str, Any]], exported: list[dict[str, Any]]) -> None:
    assert Counter(tree(trace) for trace in traces) == TREES
    assert Counter((trace["name"], trace["state"]) for trace in traces) == {
        ("POST /ask", "OK"): 5,
        ("POST /ask-in-thread", "OK"): 1,
        ("POST /ask-in-thread", "ERROR"): 1,
    }
    first = traces[0]
    root = next(span for span in first["spans"] if span["parent"] is None)
    assert first["id"] == f"tr-{REMOTE[0]}"
    assert root["attributes"]["dspy.parent.span_id"] == REMOTE[1]
    assert json.loads(first["request"]) == {"question": "canary1"}
    assert json.loads(first["response"])["answer"] == "answer of canary1"
    assert all(trace["tokens"]["input_tokens"] > 0 for trace in traces if trace["state"] == "OK")
    assert not any(trace["tokens"] for trace in traces if trace["state"] == "ERROR")
    ids = {(span["context"]["trace_id"], span["context"]["span_id"]) for span in exported}
    stored = {(trace["id"].replace("tr-", "0x"), f"0x{span['id']}") for trace in traces for span in trace["spans"]}
    assert stored <= ids

"""A real MLflow: a tracking server, databases, and what a person reads in them.

Fixtures, one each for all tests, and skipped where MLflow is not installed: `mlflow_reader`, `mlflow_server`; and
`new_database`, the path of a database of the test's own that MLflow has made.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import IO, Any

import pytest

ROOT = Path(__file__).parents[2]

START_TIMEOUT = 130.0
"""Seconds that a server may take on a busy machine."""

MISSING = "MLflow is not installed: pip install 'dspy-trace[mlflow]'"


def is_installed() -> bool:
    """Return whether MLflow is here, with what it needs for databases; nothing is imported."""
    return importlib.util.find_spec("mlflow") is not None and importlib.util.find_spec("sqlalchemy") is not None


class Reader:
    """Reads and makes MLflow's stores, by a process of its own; see :mod:`tests.parts.mlflow_reader`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.parts.mlflow_reader"],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def traces(self, uri: str, experiment: str = "Default") -> list[dict[str, Any]]:
        """Return the traces of an experiment, oldest first, with their spans."""
        told: list[dict[str, Any]] = self._ask("traces", uri, experiment)
        return told

    def found(self, uri: str, condition: str, experiment: str = "Default") -> list[str]:
        """Return the ids of the traces that a search by MLflow's `condition` finds."""
        told: list[str] = self._ask("found", uri, experiment, condition)
        return told

    def runs(self, uri: str, experiment: str = "Default") -> list[dict[str, Any]]:
        """Return the runs of an experiment, the first to start first, with their data, tables and files."""
        told: list[dict[str, Any]] = self._ask("runs", uri, experiment)
        return told

    def make(self, path: Path, revision: str | None = None) -> None:
        """Make a database, of today or as it was at a `revision` of the schema."""
        self._ask("make", str(path), revision)

    def _ask(self, *what: Any) -> Any:
        with self._lock:
            requests, answers = self._process.stdin, self._process.stdout
            assert requests is not None
            assert answers is not None
            requests.write(json.dumps(what) + "\n")
            requests.flush()
            line = answers.readline()
        answer, error = json.loads(line or '[null, "the reader has ended"]')
        if error is not None:
            raise RuntimeError(error)
        return answer

    def close(self) -> None:
        """End the process."""
        with suppress(OSError):
            self._process.communicate(timeout=10)
        end(self._process)


@pytest.fixture(scope="session")
def mlflow_reader() -> Iterator[Reader]:
    """Give the reader."""
    if not is_installed():
        pytest.skip(MISSING)
    reader = Reader()
    yield reader
    reader.close()


@pytest.fixture(scope="session")
def made_database(mlflow_reader: Reader, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an empty database, not to be written: making one takes MLflow seconds, a copy takes none."""
    path = tmp_path_factory.mktemp("made") / "mlflow.db"
    mlflow_reader.make(path)
    return path


@pytest.fixture
def new_database(made_database: Path, tmp_path: Path) -> Path:
    """Give an empty database of the test's own."""
    return Path(shutil.copyfile(made_database, tmp_path / "new.db"))


@dataclass(frozen=True)
class MlflowServer:
    """A server that runs; `uri` is its tracking URI."""

    uri: str
    pid: int


@pytest.fixture(scope="session")
def mlflow_server(made_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Give ``mlflow server`` on a database of its own. Tests keep apart by experiments of their own."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copyfile(made_database, folder / "mlflow.db")
    with serving(folder, f"sqlite:///{folder / 'mlflow.db'}") as server:
        yield server


@contextmanager
def serving(folder: Path, store: str) -> Generator[MlflowServer]:
    """Give ``mlflow server`` on a store, with its artifacts in a folder."""
    port = free_port()
    where = ["--backend-store-uri", store, "--artifacts-destination", str(folder)]
    address = ["--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", "mlflow", "server", *where, *address, "--workers", "1"]
    uri = f"http://127.0.0.1:{port}"
    with listening(command, f"{uri}/health", folder, environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")) as pid:
        yield MlflowServer(uri, pid)


@contextmanager
def listening(command: Sequence[str], address: str, folder: Path, environ: dict[str, str]) -> Generator[int]:
    """Run a server in a folder, and give its process's id as soon as it answers at an address."""
    with (folder / "log").open("w+b") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait_for(address, process, log)
            yield process.pid
        finally:
            # It has started processes of its own, in the session that it leads.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            end(process)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _wait_for(address: str, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = monotonic() + START_TIMEOUT
    while process.poll() is None and monotonic() < deadline:
        with suppress(OSError), direct.open(address, timeout=5):
            return
        sleep(0.1)
    log.seek(0)
    raise RuntimeError(f"{address} does not answer: {log.read()[-3000:].decode(errors='replace')}")


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a program that nothing has set up for tracing or MLflow."""
    unwanted = ("OTEL_", "MLFLOW_", "DSPY_", "COVERAGE_", "OPENAI_", "KUBERNETES_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    kept.pop("PYTHONPATH", None)
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    return {**kept, **quiet, **more}


def end(process: subprocess.Popen[Any]) -> None:
    """End a process of ours."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

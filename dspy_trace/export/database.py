"""Into one of MLflow's tracking databases, through MLflow itself. Only the worker process uses this."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from dspy_trace.export.outcomes import Failing, Refused, Undelivered, Unreachable, Unwelcome, outcome
from dspy_trace.export.sinks import RESTORE, Experiments, Row
from dspy_trace.export.target import Target
from dspy_trace.guard import ask, attempt

T = TypeVar("T")

INSTALL = "Install MLflow where the program runs: pip install 'dspy-trace[mlflow]'."

_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}

_opening = threading.Lock()
"""MLflow opens one database at a time; and the working folder, which it looks at then, is one for all threads."""


class DatabaseSink:
    """A tracking database.

    Args:
        uri: tracking URI with everything that opens it.
        folder: working folder of the program, beneath which MLflow keeps the artifacts of experiments it makes.
        replaced: called when the file that is open is no longer the one that has its name. MLflow keeps it open as
            long as the process lives, and would go on writing into a deleted file.
    """

    def __init__(self, uri: str, folder: str, replaced: Callable[[], None]) -> None:
        self._uri = uri
        self._folder = folder
        self._replaced = replaced
        self._client: Any = None
        self._file: Path | None = None
        self._inode: tuple[int, int] | None = None
        self._experiments = Experiments(self._experiment)

    def experiment(self, target: Target) -> str:
        return self._understood(lambda: self._experiments.id_of(target))

    def spans(self, target: Target, rows: Sequence[Row]) -> None:
        from dspy_trace.export.mlflow_spans import mlflow_spans

        def store() -> None:
            client = self._opened()
            client.log_spans(self._experiments.id_of(target), mlflow_spans(rows))

        try:
            self._understood(store)
        except Unwelcome:
            self._experiments.forget(target)
            raise

    def info(self, target: Target, told: Row) -> None:
        from dspy_trace.export.mlflow_info import mlflow_trace_info

        self._understood(lambda: self._opened().start_trace(mlflow_trace_info(told)))

    def feedback(self, target: Target, told: Row) -> None:
        def store() -> None:
            from mlflow.entities import Assessment

            assessment = Assessment.from_dictionary(told)
            assessment.assessment_id = told["assessment_id"]
            self._opened().log_assessment(told["trace_id"], assessment)

        try:
            self._understood(store)
        except Failing:
            # An id that is there already is no failure: we were ended before we could note it.
            _, missing = attempt(self._client.get_assessment, told["trace_id"], told["assessment_id"])
            if missing is not None:
                raise

    def close(self) -> None:
        """Do nothing: MLflow keeps what it has opened until the process ends."""

    def _understood(self, work: Callable[[], T]) -> T:
        """Return what `work` returns; raise what it raises as the outcome that it means."""
        result, error = attempt(work)
        if error is None:
            return result  # type: ignore[no-any-return]
        if isinstance(error, Undelivered):
            raise error
        raise meaning(error) from error

    def _opened(self) -> Any:
        """Return MLflow's client of the database, which is made if there is none, but never its folder.

        Raises:
            Unreachable: no server listens there, or the file is no longer the one that has its name.
            Unwelcome: its folder is gone.
        """
        if self._client is not None:
            if self._file is not None and _inode(self._file) != self._inode:
                _there(self._file.parent)
                self._replaced()
                raise Unreachable(f"{self._file} has been replaced")
            return self._client
        from mlflow.tracing.client import TracingClient
        from sqlalchemy.engine import make_url

        uri = self._uri
        if uri.startswith("sqlite"):
            url = make_url(uri)
            self._file = Path(url.database or "")
            _there(self._file.parent)
            if "%" not in str(self._file) and "?" not in str(self._file) and not url.query:
                # MLflow would make a folder of the quoted name.
                uri = f"{url.drivername}:///{self._file}"
        else:
            reach(uri)
        _impatient()
        with _opening, _working_in(self._folder or (str(self._file.parent) if self._file else "")):
            self._client = TracingClient(uri)
        if self._file is not None:
            self._inode = _inode(self._file)
        return self._client

    def _experiment(self, target: Target) -> str:
        store, name = self._opened().store, target.experiment_name
        if name is None:
            found, stage = (
                target.experiment_id or "0",
                store.get_experiment(target.experiment_id or "0").lifecycle_stage,
            )
        elif (known := store.get_experiment_by_name(name)) is not None:
            found, stage = known.experiment_id, known.lifecycle_stage
        else:
            found, stage = _created(store, name), "active"
        if stage == "deleted":
            raise Unwelcome(f"the experiment {target.experiment} has been deleted", "deleted", RESTORE)
        return str(found)


def _there(folder: Path) -> None:
    """Return if a folder is there: one that has been deleted stays deleted, though MLflow would make it again."""
    if not folder.is_dir():
        raise Unwelcome(f"the folder {folder} is gone", "gone", "What waits for it is kept until it is there again.")


def _impatient() -> None:
    """Let MLflow try once to open a database, not for minutes: we try again ourselves, and say meanwhile why."""
    from mlflow.store.db import utils

    if hasattr(utils, "MAX_RETRY_COUNT"):
        utils.MAX_RETRY_COUNT = 1


def _created(store: Any, name: str) -> str:
    made, error = attempt(lambda: store.create_experiment(name, artifact_location=None, tags=[]))
    if error is None:
        return str(made)
    known = store.get_experiment_by_name(name)
    if known is None:
        raise error
    return str(known.experiment_id)


def meaning(error: Exception) -> Undelivered:
    """Return what an exception of MLflow's, SQLAlchemy's or a driver's means."""
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, ImportError) or type(error).__name__ == "NoSuchModuleError":
        remedy = INSTALL if "mlflow" in words or "sqlalchemy" in words else "Install the driver of the database."
        return Unwelcome(words, "mlflow missing", remedy)
    if "database schema" in words:
        remedy = "Use the MLflow version that made it, or bring it up to date: mlflow db upgrade <tracking URI>."
        return Unwelcome(words, "schema", remedy)
    if "readonly" in words or "unable to open database file" in words or isinstance(error, PermissionError):
        return Unwelcome(words, "read-only", "Make the database and its folder writable.")
    if "authentication failed" in words or "Access denied" in words:
        return Unwelcome(words, "unauthorized", "Set MLFLOW_TRACKING_URI with a user and password that it accepts.")
    status = getattr(error, "get_http_status_code", None)
    if callable(status):
        return _as_answered(int(str(status())), words)
    if type(error).__name__ in ("OperationalError", "InterfaceError", "TimeoutError") or isinstance(error, OSError):
        return Unreachable(words)
    return Failing(words)


def _as_answered(status: int, words: str) -> Undelivered:
    told = outcome(status, words)
    if isinstance(told, Refused) and "experiment" in words.lower() and "Invalid experiment ID" in words:
        return Unwelcome(words, "missing")
    return told


def reach(uri: str) -> None:
    """Return if something listens where a database server should: MLflow itself would try for minutes.

    Raises:
        Unreachable: nothing does.
    """
    parts = urlsplit(uri)
    default = _PORTS.get(parts.scheme.partition("+")[0])
    if parts.hostname is None or default is None:
        return
    port = ask(lambda: parts.port) or default
    try:
        socket.create_connection((parts.hostname, port), 5.0).close()
    except OSError as error:
        raise Unreachable(f"{parts.hostname}:{port}: {error}") from error


def _inode(file: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        found = file.stat()
        return found.st_dev, found.st_ino
    return None


@contextmanager
def _working_in(folder: str) -> Generator[None]:
    before = ask(os.getcwd)
    with suppress(OSError):
        os.chdir(folder)
    try:
        yield
    finally:
        with suppress(OSError, TypeError):
            os.chdir(before)

"""Traces of a tracking database, through MLflow itself, which the process imports for it."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sqlite3
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from dspy_trace.export.database import INSTALL, meaning, reach
from dspy_trace.export.outcomes import Undelivered
from dspy_trace.export.sinks import RESTORE
from dspy_trace.export.target import Credential, Target, without_secrets
from dspy_trace.guard import ask, attempt
from dspy_trace.settings.surroundings import READER_SETS
from dspy_trace.store import PAGE, Unknown, Unreadable, absent, reading
from dspy_trace.store.traces import Summary, Trace

T = TypeVar("T")


class DatabaseStore:
    """An experiment of a tracking database.

    Args:
        target: database and experiment.
        credential: what opens it.

    Raises:
        Unreadable: there is no such database, or MLflow cannot open it as it is.
    """

    def __init__(self, target: Target, credential: Credential | None) -> None:
        self._target = target
        uri = credential.uri if credential is not None and credential.uri is not None else target.uri
        file = database_file(uri)
        revision = None if file is None else _revision(file)
        if file is None:
            self._understood(lambda: reach(uri))
        if not all(ask(importlib.util.find_spec, package) for package in ("mlflow", "sqlalchemy")):
            raise Unreadable(f"MLflow is not installed, and {target.uri} is read through it. {INSTALL}")
        for name, value in READER_SETS.items():
            os.environ.setdefault(name, value)
        self.uri = uri
        """Tracking URI as MLflow takes it, with what opens it."""
        self._client = self._understood(lambda: self._opened(file, revision))

    def newest(self, most: int, condition: str | None = None) -> list[Summary]:
        return self._understood(lambda: self._search([self._experiment()], most, condition))

    def beginning(self, identifier: str, most: int) -> list[Summary]:
        def search() -> list[Summary]:
            ids = [one.experiment_id for one in self._experiments()]
            return self._search(ids, most, f"request_id LIKE '{identifier}%'")

        return self._understood(search)

    def trace(self, trace_id: str) -> Trace:
        def read() -> Trace:
            found, error = attempt(self._client.get_trace, trace_id)
            if error is not None:
                # One that is still being written is given to MLflow's own page, by a way that is not public.
                found = ask(lambda: self._client._tracing_client.store.get_trace(trace_id, allow_partial=True))
            if found is None:
                raise self._unknown(trace_id, error)
            spans = reading.spans(span.to_dict() for span in found.data.spans)
            return Trace(reading.summary(found.info.to_dict()), spans)

        return self._understood(read)

    def experiments(self) -> list[str]:
        return self._understood(lambda: [one.name for one in self._experiments()])

    def _opened(self, file: Path | None, revision: str | None) -> Any:
        from mlflow import MlflowClient

        if not self.uri.startswith("databricks"):
            from sqlalchemy.engine import make_url

            _check_revision(_revision_of_server(self.uri) if file is None else revision, self.uri)
            url = make_url(self.uri)
            if file is not None and not {"%", "?"} & set(str(file)) and not url.query:
                # MLflow would make a folder of the quoted name.
                self.uri = f"{url.drivername}:///{file}"
        return MlflowClient(self.uri)

    def _unknown(self, trace_id: str, error: Exception | None) -> Exception:
        """Return what it means that MLflow gives no trace."""
        status = ask(getattr(error, "get_http_status_code", int))
        if error is None or status == 404:
            return Unknown(f"there is no trace {trace_id} in {self._target.uri}")
        return error

    def _experiments(self) -> list[Any]:
        found = page = self._client.search_experiments(max_results=1_000)
        while page.token:
            page = self._client.search_experiments(max_results=1_000, page_token=page.token)
            found = [*found, *page]
        return list(found)

    def _experiment(self) -> str:
        target, client = self._target, self._client
        if target.experiment_name is not None:
            found = client.get_experiment_by_name(target.experiment_name)
        else:
            found, _ = attempt(client.get_experiment, target.experiment_id or "0")
        if found is None:
            raise absent(target, [one.name for one in self._experiments()])
        if found.lifecycle_stage == "deleted":
            raise Unreadable(f"the experiment {target.experiment} has been deleted. {RESTORE}")
        return str(found.experiment_id)

    def _search(self, experiments: Sequence[str], most: int, where: str | None = None) -> list[Summary]:
        search = self._client.search_traces
        # The older name is deprecated, and the only one that MLflow knew before 3.5.
        name = "locations" if "locations" in inspect.signature(search).parameters else "experiment_ids"
        asked = {name: list(experiments), "order_by": ["timestamp_ms DESC"], "include_spans": False}
        found: list[Any] = []
        token = None
        while len(found) < most and token != "":
            page = search(filter_string=where, max_results=min(most - len(found), PAGE), page_token=token, **asked)
            found += page
            token = page.token or ""
        return [reading.summary(one.info.to_dict()) for one in found]

    def _understood(self, work: Callable[[], T]) -> T:
        """Return what `work` returns; raise what it raises as something that can be said in a line."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result, error = attempt(work)
        if error is None:
            return result  # type: ignore[no-any-return]
        if isinstance(error, Unreadable):
            raise error
        told = error if isinstance(error, Undelivered) else meaning(error)
        raise Unreadable(f"{self._target.uri}: {told.words.rstrip('.')}. {told.remedy}") from error


def database_file(uri: str) -> Path | None:
    """Return the file of a SQLite database, ``None`` for any other."""
    if not uri.startswith("sqlite"):
        return None
    return Path(unquote(uri.partition("://")[2].removeprefix("/").partition("?")[0]))


def _revision(file: Path) -> str:
    """Return the version of MLflow's tables in a file, without MLflow, which would make them.

    Raises:
        Unreadable: there is no such file, or it is not MLflow's.
    """
    if not file.is_file():
        raise Unreadable(f"there is no database {file}. Look elsewhere with --tracking-uri or MLFLOW_TRACKING_URI")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=10.0)) as database:
            found = database.execute("SELECT version_num FROM alembic_version").fetchone()
            database.execute("SELECT 1 FROM trace_info LIMIT 1").fetchone()
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "no such table" not in str(error):
            raise Unreadable(f"{file}: {error}") from error
        raise Unreadable(f"{file} is no database of MLflow's, or a very old one ({error})") from error
    return str(found[0]) if found else ""


def _revision_of_server(uri: str) -> str:
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.connect() as connection:
            if not sqlalchemy.inspect(connection).has_table("trace_info"):
                raise Unreadable(f"the database at {engine.url.host} holds no tables of MLflow's, or very old ones")
            return str(connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version")).scalar())
    finally:
        engine.dispose()


def _check_revision(revision: str | None, uri: str) -> None:
    """Return if MLflow would leave the tables as they are: it brings some up to date just by opening them.

    Asked of a private function; where it is gone, MLflow has its way.

    Raises:
        Unreadable: it would not.
    """
    import mlflow

    latest = ask(_latest_revision)
    if latest is None or revision == latest:
        return
    migrations = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
    here = f"the MLflow {mlflow.__version__} that is installed here (schema {revision}, not {latest})"
    if any(migrations.glob(f"{revision}*.py")):
        remedy = f"Use that version, or bring the database up to date: mlflow db upgrade '{without_secrets(uri)}'"
        raise Unreadable(f"the database was made by an older MLflow than {here}. {remedy}")
    raise Unreadable(f"the database was made by a newer MLflow than {here}. Install that: pip install --upgrade mlflow")


def _latest_revision() -> str:
    from mlflow.store.db import utils

    # MLflow tells this by a private name only.
    return str(getattr(utils, "_get_latest_schema_revision")())  # noqa: B009

"""What can be wrong with where traces go: one warning with the remedy, the program unharmed, all kept that can be."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.parts import desk
from tests.parts.mlflow_server import MISSING, MlflowServer, Reader, is_installed
from tests.parts.project import Done, Project, share, tree, until
from tests.parts.scripted_mlflow import ScriptedMlflow

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

needs_mlflow = pytest.mark.skipif(not is_installed(), reason=MISSING)

PROGRAM = """
import dataclasses, json, sys
import desk, dspy_trace
dspy_trace.autolog()
for question in ("First?", "Second?", "Third?"):
    print(desk.ask(question))
print(dspy_trace.flush({patience}))  # however often it is tried
for question in ("Fourth?", "Fifth?"):
    print(desk.ask(question))
print(json.dumps(dataclasses.asdict(dspy_trace.stats())))
"""

LATER = "import dspy_trace, desk; dspy_trace.autolog(); desk.ask('Sixth?')"

ANSWER = "answer of Parcels arrive within two days"

SPANS = 5 * desk.SPANS
"""Spans that the program makes."""


def run(project: Project, *, patience: float = 3.0, through: tuple[str, ...] = (), **environ: str) -> Done:
    """Run the program. It waits `patience` seconds for delivery, and its end until something is known to be wrong."""
    environ = {"DSPY_TRACE_EXIT_WAIT": f"{60 * share():.0f}", **environ}
    return project.run(PROGRAM.format(patience=patience), through=through, **environ)


def check(done: Done, *remedy: str, flushed: bool = False) -> dict[str, Any]:
    """Check that the program is unharmed, and that one warning says all of `remedy`; return its accounts."""
    *printed, told = done.out.splitlines()
    assert printed == [ANSWER] * 3 + [str(flushed)] + [ANSWER] * 2, done.out + done.err
    assert len(done.warnings) == 1, done.err
    for words in remedy:
        assert words in done.warnings[0]
    assert all(line.startswith("dspy-trace:") for line in done.err.splitlines()), done.err
    stats: dict[str, Any] = json.loads(told)
    became = [stats[name] for name in ("queued", "spooled", "delivered", "dead", "filtered")]
    assert stats["observed"] == SPANS == sum(became) + sum(stats["dropped"].values())
    return stats


def check_kept(project: Project, done: Done, *remedy: str) -> None:
    """Check the same, and that all of it waits in the spool."""
    stats = check(done, *remedy)
    assert stats["queued"] + stats["spooled"] == SPANS
    assert "30 spans wait in the spool for" in done.err
    assert project.waits()


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        ("ftp://127.0.0.1/traces", "Use http(s)://, sqlite:///, postgresql://, mysql:// or mssql://"),
        ("file:///tmp/mlruns", "Use MLFLOW_TRACKING_URI=sqlite:///mlflow.db"),
        ("./mlruns", "Use MLFLOW_TRACKING_URI=sqlite:///mlflow.db"),
        ("sqlite://", "Use MLFLOW_TRACKING_URI=sqlite:///mlflow.db"),
    ],
)
def test_a_store_that_traces_cannot_be_kept_in(uri: str, remedy: str, project: Project) -> None:
    """Where a tracking URI is none that anything can be sent to, nothing can be kept; what is dropped is counted."""
    done = run(project, MLFLOW_TRACKING_URI=uri)
    stats = check(done, remedy, flushed=True)
    assert stats["dropped"]["tracking URI refused"] + stats["queued"] == SPANS
    assert {path.name for path in project.folder.iterdir()} <= {"__pycache__", "app.py", "desk.py"}


def test_a_server_that_is_not_there(project: Project, scripted_mlflow: ScriptedMlflow) -> None:
    """What is recorded while the server is down is there once it is up and another program traces to it."""
    scripted_mlflow.close()
    done = run(project, MLFLOW_TRACKING_URI=scripted_mlflow.url)
    check_kept(project, done, scripted_mlflow.url, "Start the server or check MLFLOW_TRACKING_URI")
    scripted_mlflow.restart()
    assert not project.run(LATER, MLFLOW_TRACKING_URI=scripted_mlflow.url, DSPY_TRACE_EXIT_WAIT="30").warnings
    project.arrived()
    assert len(scripted_mlflow.spans) == SPANS + desk.SPANS


def test_wrong_credentials(project: Project, scripted_mlflow: ScriptedMlflow) -> None:
    """What a server refuses to take from a stranger it gets from whoever knows the password; nobody else is told it."""
    scripted_mlflow.authorization = "Basic " + base64.b64encode(b"ada:right-password").decode()
    environ = {"MLFLOW_TRACKING_URI": scripted_mlflow.url, "MLFLOW_TRACKING_USERNAME": "ada"}
    done = run(project, MLFLOW_TRACKING_PASSWORD="wrong-password", **environ)
    check_kept(project, done, scripted_mlflow.url, "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
    assert not scripted_mlflow.spans
    environ["DSPY_TRACE_EXIT_WAIT"] = "30"
    assert not project.run(LATER, MLFLOW_TRACKING_PASSWORD="right-password", **environ).warnings
    project.arrived()
    assert len(scripted_mlflow.spans) == SPANS + desk.SPANS
    written = b"".join(path.read_bytes() for path in project.spool.iterdir())
    assert b"-password" not in written
    assert "-password" not in done.err


@needs_mlflow
def test_an_experiment_that_a_server_has_not(project: Project, mlflow_server: MlflowServer) -> None:
    """An experiment's id that is none is said, with what the server says."""
    done = run(project, MLFLOW_TRACKING_URI=mlflow_server.uri, MLFLOW_EXPERIMENT_ID="4711")
    check_kept(project, done, mlflow_server.uri, "4711", "MLFLOW_EXPERIMENT_ID")


@needs_mlflow
def test_an_experiment_that_a_database_has_not(project: Project, new_database: Path) -> None:
    """The same from a database, though another process finds it out, which does not stay for what it cannot deliver."""
    environ = {"MLFLOW_EXPERIMENT_ID": "4711", "DSPY_TRACE_WORKER_IDLE": "1"}
    done = run(project, patience=0, MLFLOW_TRACKING_URI=f"sqlite:///{new_database}", **environ)
    check_kept(project, done, str(new_database), "4711", "MLFLOW_EXPERIMENT_ID")
    until(lambda: not project.workers(), 30.0)


@needs_mlflow
def test_a_database_without_mlflow(project: Project, new_database: Path, mlflow_reader: Reader) -> None:
    """Where MLflow is not installed, what goes to a database waits until it is."""
    uri = f"sqlite:///{new_database}"
    done = run(project, MLFLOW_TRACKING_URI=uri, **project.without("mlflow", "sqlalchemy"))
    check_kept(project, done, uri, "MLflow is not installed", "pip install 'dspy-trace[mlflow]'")
    assert not project.log()
    assert not project.run(LATER, MLFLOW_TRACKING_URI=uri).warnings
    project.arrived()
    assert [tree(trace) for trace in mlflow_reader.traces(uri)] == [desk.TREE] * 6


@needs_mlflow
def test_a_database_of_a_newer_mlflow(project: Project, new_database: Path, mlflow_reader: Reader) -> None:
    """A schema that this MLflow does not know is left as it is, and what goes there waits."""
    uri = f"sqlite:///{new_database}"
    known = revision(new_database, "ffffffffffff")
    done = run(project, patience=0, MLFLOW_TRACKING_URI=uri)
    check_kept(project, done, uri, "schema", "mlflow db upgrade")
    assert revision(new_database, known) == "ffffffffffff"
    project.arrived()
    assert [tree(trace) for trace in mlflow_reader.traces(uri)] == [desk.TREE] * 5


def revision(database: Path, new: str) -> str:
    """Change which version of the schema a database says it has; return which it said before."""
    with closing(sqlite3.connect(database)) as db, db:
        ((known,),) = db.execute("SELECT version_num FROM alembic_version").fetchall()
        db.execute("UPDATE alembic_version SET version_num = ?", (new,))
    return str(known)


@needs_mlflow
def test_a_database_of_an_older_mlflow(project: Project, mlflow_reader: Reader) -> None:
    """A database whose schema is out of date is brought up to date by MLflow itself, as when it is used directly."""
    mlflow_reader.make(project.folder / "mlflow.db", "heads-3")
    assert not project.run(LATER).warnings
    project.arrived()
    assert [tree(trace) for trace in mlflow_reader.traces(project.database)] == [desk.TREE]


@pytest.fixture
def read_only(project: Project) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Give a folder that cannot be written, and the command through which a program is run that cannot either."""
    through: tuple[str, ...] = ()
    if os.geteuid() == 0:
        through = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
        allowed = shutil.which("setpriv") and subprocess.run([*through, "true"], capture_output=True, check=False)
        if not allowed or allowed.returncode != 0:
            pytest.skip("this user may write everywhere, and cannot be kept from it (setpriv)")
    folder = project.new_folder("read-only")
    folder.chmod(0o555)
    yield folder, through
    folder.chmod(0o755)


@needs_mlflow
def test_a_folder_that_cannot_be_written(
    project: Project, read_only: tuple[Path, tuple[str, ...]], made_database: Path, mlflow_reader: Reader
) -> None:
    """What goes to a database that cannot be made waits until it can."""
    folder, through = read_only
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    done = run(project, patience=0, through=through, MLFLOW_TRACKING_URI=uri)
    check_kept(project, done, uri, "Make the database and its folder writable")
    folder.chmod(0o755)
    shutil.copyfile(made_database, folder / "mlflow.db")
    project.arrived()
    assert [tree(trace) for trace in mlflow_reader.traces(uri)] == [desk.TREE] * 5

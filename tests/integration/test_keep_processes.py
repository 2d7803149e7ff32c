"""The processes around a program: the worker that writes for it, children of its own, and what is left of them."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from dspy_trace.export.places import spool_file
from tests.parts import desk
from tests.parts.mlflow_server import MISSING, MlflowServer, Reader, is_installed
from tests.parts.project import Project, commands, share, tree, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

needs_mlflow = pytest.mark.skipif(not is_installed(), reason=MISSING)

PROGRAM = "import dspy_trace; dspy_trace.autolog(); import desk; print(desk.ask())"

TWENTY_TESTS = """
import shutil
import desk, dspy_trace, pytest

@pytest.mark.parametrize("number", range(20))
def test_asks(number, tmp_path, monkeypatch):
    shutil.copyfile("{database}", tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    dspy_trace.autolog()
    assert desk.ask(f"Question {{number}}?")
"""

CHILDREN = """
import multiprocessing, os, sys
import desk, dspy_trace

dspy_trace.autolog()

def work(number):
    desk.ask(f"Question {{number}}?")

def fork(number):
    child = os.fork()
    if child == 0:
        work(number)
        sys.exit()
    os.waitpid(child, 0)

if __name__ == "__main__":
    how = "{how}"
    if how != "os.fork, before any call":  # else we have threads and an open spool when it forks
        work("of the parent")
    if how.startswith("os.fork"):
        for number in range(2):
            fork(number)
    elif how == "pool":
        pool = multiprocessing.get_context("fork").Pool(2)
        pool.map(work, range(2), chunksize=1)
        pool.close()
        pool.join()
    else:
        context = multiprocessing.get_context(how)
        processes = [context.Process(target=work, args=(number,)) for number in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
"""


@needs_mlflow
def test_twenty_tests_start_one_worker(project: Project, made_database: Path, mlflow_reader: Reader) -> None:
    """Twenty tests with a database each are served by one process; when they are over, nothing of it stays."""
    (project.folder / "test_desk.py").write_text(TWENTY_TESTS.format(database=made_database))
    script = (
        "import pytest, sys; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '--basetemp', 'databases', '.']))"
    )
    # The worker would go after a second, if pytest were not there.
    done = project.run(script, DSPY_TRACE_WORKER_IDLE="1")
    assert "20 passed" in done.out
    project.arrived()
    databases = sorted({path.resolve() for path in project.folder.glob("databases/*/mlflow.db")})
    assert len(databases) == 20
    for path in (databases[0], databases[-1]):
        (trace,) = mlflow_reader.traces(f"sqlite:///{path}")
        assert tree(trace) == desk.TREE
    until(lambda: not project.workers(), 30.0 * share(), project.log)
    assert project.log().count(" started, ") == 1
    assert "another worker" not in project.log()
    assert not [command for _, command in commands() if any(str(project.home) in word for word in command)]


@needs_mlflow
def test_a_container_that_ends_with_its_program(project: Project, new_database: Path, mlflow_reader: Reader) -> None:
    """Run by a shell script that is PID 1, whose end ends all: the program waits, and its trace is there."""
    through = ["unshare", "--pid", "--fork", "--mount-proc"]
    allowed = shutil.which("unshare") and subprocess.run([*through, "true"], capture_output=True, check=False)
    if not allowed or allowed.returncode != 0:
        pytest.skip("this system lets us make no PID namespace (unshare)")
    script = project.home / "run.sh"
    script.write_text('#!/bin/sh\n"$@"\necho "PID $$ ends"\n')
    uri = f"sqlite:///{new_database}"
    wait = str(30 * share())
    done = project.run(
        PROGRAM, through=[*through, "sh", str(script)], MLFLOW_TRACKING_URI=uri, DSPY_TRACE_EXIT_WAIT=wait
    )
    assert done.out.endswith("PID 1 ends\n")
    assert not project.waits()
    assert not project.workers()
    (trace,) = mlflow_reader.traces(uri)
    assert tree(trace) == desk.TREE


@needs_mlflow
def test_a_deleted_folder_stays_deleted(project: Project, new_database: Path, mlflow_reader: Reader) -> None:
    """A project that is deleted before its trace is written is not made again; when it is there again, the trace is."""
    project.run(f"{PROGRAM}; import os, shutil; shutil.rmtree(os.getcwd())")
    until(lambda: "gone" in problems(project), 60.0 * share(), project.log)
    assert not project.folder.exists()
    assert project.waits()
    project.folder.mkdir()
    shutil.copyfile(new_database, project.folder / "mlflow.db")
    project.arrived()
    (trace,) = mlflow_reader.traces(project.database)
    assert tree(trace) == desk.TREE
    assert not problems(project)


def problems(project: Project) -> list[str]:
    """Return why nothing can be delivered, as the spool has it."""
    with closing(sqlite3.connect(f"file:{spool_file(project.spool)}?mode=ro", uri=True, timeout=10)) as db:
        return [cause for (cause,) in db.execute("SELECT cause FROM problems")]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")
@pytest.mark.parametrize("how", ["os.fork", "os.fork, before any call", "fork", "spawn", "forkserver", "pool"])
def test_children_keep_their_own(how: str, project: Project) -> None:
    """A child process keeps what it has recorded, its last call included, and nothing of its parent's."""
    project.run(CHILDREN.format(how=how), DSPY_TRACE_WORKER="off")
    with closing(sqlite3.connect(spool_file(project.spool))) as db:
        kept = db.execute("SELECT sum(spans), count(DISTINCT trace_id) FROM batches GROUP BY owner").fetchall()
    processes = 2 if how == "os.fork, before any call" else 3
    assert kept == [(desk.SPANS, 1)] * processes


@needs_mlflow
def test_children_deliver_their_own(project: Project, mlflow_server: MlflowServer, mlflow_reader: Reader) -> None:
    """A child waits for a server as any program does when it ends, and what it has recorded is there once."""
    where = {"MLFLOW_TRACKING_URI": mlflow_server.uri, "MLFLOW_EXPERIMENT_NAME": "children"}
    project.run(CHILDREN.format(how="fork"), DSPY_TRACE_EXIT_WAIT="60", **where)
    assert not project.waits()
    traces = mlflow_reader.traces(mlflow_server.uri, "children")
    assert [tree(trace) for trace in traces] == [desk.TREE] * 3

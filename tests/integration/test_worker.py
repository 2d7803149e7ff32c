"""The real worker process and real databases of MLflow's: what is written, and what becomes of the process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from dspy_trace.export import records
from dspy_trace.export.sender import Delivery
from dspy_trace.export.target import Target
from tests.delivery import adds_up, delivering, eventually, lives, spans_of, trace
from tests.integration.worker_parts import SLOW, database, delivered, log, on, rows, spans, spool_folder, workers
from tests.parts.project import share

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(find_spec("sqlalchemy") is None or find_spec("mlflow") is None, reason="needs mlflow"),
    pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds processes by /proc"),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivery]:
    """A delivery whose worker serves several tests, each with a database of its own."""
    folder = tmp_path_factory.mktemp("running")
    with spool_folder(folder), delivering(on(folder)) as delivery:
        yield delivery


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that a program works in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_trace_is_written_with_all_that_is_said_of_it(running: Delivery, project: Path) -> None:
    """Spans, tags, what is said of the trace, feedback, and an experiment as MLflow makes them; and nothing else."""
    target = database(project, "support desk")
    put = trace(target, info={"user": "me", "metadata": {"k": "v"}, "source": {"mlflow.source.name": "app.py"}})
    told = {"name": "helpful", "value": True, "time": time.time_ns(), "source_type": "HUMAN", "source_id": "me"}
    running.feedback(target, put.trace_id, json.dumps(told).encode())
    running.put([put])
    delivered(running)
    assert spans(target) == spans_of(put)
    assert rows(target, "SELECT status, experiment_id FROM trace_info") == [("OK", 1)]
    assert rows(target, "SELECT name, artifact_location FROM experiments WHERE experiment_id = 1") == [
        ("support desk", f"{project}/mlruns/1")
    ]
    metadata = dict(rows(target, "SELECT key, value FROM trace_request_metadata"))
    assert {key: metadata[key] for key in ("mlflow.user", "k", "mlflow.source.name")} == {
        "mlflow.user": "me",
        "k": "v",
        "mlflow.source.name": "app.py",
    }
    assert rows(target, "SELECT name, value, source_id FROM assessments") == [("helpful", "true", "me")]
    assert [file.name for file in project.iterdir()] == ["mlflow.db"]
    assert not [name for name in sys.modules if name.partition(".")[0] in ("mlflow", "sqlalchemy")]


def test_one_worker_serves_them_all(running: Delivery, project: Path) -> None:
    """Several databases, and the same one again, have been written by one process, which makes no spans.

    What an earlier program has left for a database goes into that, though the target has changed since.
    """
    with delivering({**on(_folder(running).parent), "DSPY_TRACE_WORKER": "off"}) as earlier:
        earlier.put([left := trace(database(project, name="earlier.db"))])
    for name in ("a.db", "b.db"):
        running.put([trace(database(project, name=name))])
    delivered(running)
    eventually(lambda: spans(database(project, name="earlier.db")) == spans_of(left), SLOW)
    put = [trace(database(project, name="a.db")) for _ in range(150)]
    running.put(put)
    delivered(running)
    assert spans_of(*put) < spans(database(project, name="a.db"))
    assert len(workers(_folder(running))) == 1
    assert log(_folder(running)).count("started") == 1


def test_a_folder_that_is_deleted_stays_deleted(
    running: Delivery, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows for a folder that is gone wait, and are said; when it is there again, they are delivered."""
    target = database(project / "gone")
    running.put([put := trace(target)])
    eventually(lambda: [one for one in caplog.records if "is gone" in one.getMessage()], SLOW)
    assert not (project / "gone").exists()
    assert running.waiting().spans == 3
    (project / "gone").mkdir()
    delivered(running)
    assert spans(target) == spans_of(put)


def test_a_database_that_is_replaced_is_opened_anew(running: Delivery, project: Path) -> None:
    """Rows never go into a file that has been deleted while it was open."""
    target = database(project)
    running.put([trace(target)])
    delivered(running)
    for file in project.glob("mlflow.db*"):
        file.unlink()
    running.put([put := trace(target)])
    delivered(running)
    assert spans(target) == spans_of(put)


def test_an_experiment_that_is_deleted_meanwhile(
    running: Delivery, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows for it wait, and the warning says how to restore it; then they are written."""
    running.put([before := trace(database(project, "mine"))])
    delivered(running)
    _set_stage(project, "deleted")
    target = Target(database(project).uri, experiment_id="1")
    running.put([after := trace(target)])
    (warning,) = eventually(lambda: [one for one in caplog.records if "has been deleted" in one.getMessage()], SLOW)
    assert "mlflow experiments restore" in warning.getMessage()
    assert running.waiting().spans == 3
    assert spans(target) == spans_of(before)
    _set_stage(project, "active")
    delivered(running)
    assert spans(target) == spans_of(before, after)


def test_a_schema_of_another_version_is_left_alone(
    running: Delivery, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows for a database that another MLflow has made wait, and the warning says what to do."""
    target = database(project)
    running.put([trace(target)])
    delivered(running)
    version = rows(target, "SELECT version_num FROM alembic_version")[0][0]
    shutil.copy(project / "mlflow.db", project / "other.db")
    _set_version(project / "other.db", "0123456789ab")
    other = database(project, name="other.db")
    running.put([put := trace(other)])
    (warning,) = eventually(lambda: [one for one in caplog.records if "other.db" in one.getMessage()], SLOW)
    assert "mlflow db upgrade" in warning.getMessage()
    _set_version(project / "other.db", version)
    delivered(running)
    assert spans_of(put) < spans(other)


def test_what_the_database_refuses_is_kept(running: Delivery, project: Path) -> None:
    """A span that MLflow refuses is a dead letter with MLflow's words; what came with it is written."""
    target = database(project)
    put = [trace(target), trace(target, **{"session.id": "x" * 300}), trace(target)]
    running.put(put)
    delivered(running)
    assert len(spans(target)) == 8
    (letter,) = [one for one in records.dead_letters(running.file()) if one.uri == target.uri]
    assert letter.trace_id == put[1].trace_id
    assert "ession" in letter.reason


def test_a_script_ends_at_once_and_its_trace_is_written(project: Path) -> None:
    """The program does not wait, has not imported mlflow, and has no child; some time later nothing of it is left."""
    program = f"""
import os, sys, time
from dspy_trace.export.sender import Delivery
from tests.delivery import trace
from tests.integration.worker_parts import database
from pathlib import Path
delivery = Delivery()
delivery.put([trace(database(Path({str(project)!r})))])
begun = time.monotonic()
delivery.at_exit()
assert time.monotonic() - begun < {share()}, time.monotonic() - begun
assert "mlflow" not in sys.modules
"""
    with spool_folder(project) as folder:
        environ = on(project, PYTHONPATH=str(Path(__file__).parents[2]))
        ended = subprocess.run(
            [sys.executable, "-c", program], env=environ, capture_output=True, timeout=60, check=False
        )
        assert (ended.returncode, ended.stderr) == (0, b"")
        eventually(lambda: len(spans(database(project))) == 3, SLOW)
        eventually(lambda: not workers(folder), SLOW)
        assert "ended" in log(folder)


def test_a_worker_that_is_killed_loses_nothing(project: Path) -> None:
    """The next one begins where it was; what it had not acknowledged is stored again, and is there once."""
    target = database(project)
    with spool_folder(project) as folder, delivering(on(project)) as delivery:
        put = [trace(target) for _ in range(300)]
        for one in put[:100]:
            delivery.put([one])
        eventually(lambda: spans(target), SLOW)
        for one in put[100:]:
            delivery.put([one])
        (worker,) = workers(folder)
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: not lives(worker))
        delivered(delivery)
        assert adds_up(delivery, 900)
        assert delivery.counters.delivered == 900
    assert spans(target) == spans_of(*put)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="making a PID namespace takes root")
def test_a_container_that_ends_with_its_program_waits(project: Path) -> None:
    """As PID 1 of a namespace, a shell runs a program; when the program ends all dies: its trace has been written."""
    program = f"""
from pathlib import Path
from dspy_trace.export.sender import Delivery
from tests.delivery import trace
from tests.integration.worker_parts import database
delivery = Delivery()
delivery.put([trace(database(Path({str(project)!r})))])
delivery.at_exit()
"""
    environ = {**on(project, PYTHONPATH=str(Path(__file__).parents[2])), "DSPY_TRACE_EXIT_WAIT": str(SLOW)}
    (project / "run.sh").write_text(f'{sys.executable} -c "$PROGRAM"\n')
    with spool_folder(project):
        command = ["unshare", "--pid", "--fork", "sh", str(project / "run.sh")]
        subprocess.run(command, env={**environ, "PROGRAM": program}, timeout=SLOW, check=True)
        assert len(spans(database(project))) == 3


def _folder(delivery: Delivery) -> Path:
    path = delivery.file().path
    assert path is not None
    return path.parent


def _set_version(file: Path, version: str) -> None:
    _change(file, "UPDATE alembic_version SET version_num = ?", version)


def _set_stage(project: Path, stage: str) -> None:
    _change(project / "mlflow.db", "UPDATE experiments SET lifecycle_stage = ? WHERE name = 'mine'", stage)


def _change(file: Path, statement: str, *values: str) -> None:
    with sqlite3.connect(file, timeout=60.0) as db:
        assert db.execute(statement, values).rowcount == 1
    db.close()

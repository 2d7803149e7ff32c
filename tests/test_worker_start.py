"""How the worker process is started: what it gets of the program, when none is, and what is said of that."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from dspy_trace.export import launch, records
from dspy_trace.export.locks import ProcessLock
from dspy_trace.export.spawn import environment as worker_environment
from dspy_trace.export.spawn import hindrance, lock_file, slot_of
from dspy_trace.export.spool import Spool
from dspy_trace.export.target import Credential, Target
from dspy_trace.export.worker import Worker
from dspy_trace.runs import spooled
from tests.delivery import delivering, environment, eventually, spans_of, trace
from tests.parts.scripted_mlflow import ScriptedMlflow

SECRET = "postgresql://me:s3cret@127.0.0.1/mlflow"


class Started:
    """Stands in for the process, and remembers how it was to be started."""

    def __init__(self) -> None:
        self.calls: list[tuple[Path, str, Credential | None]] = []

    def __call__(self, folder: Path, slot: str, credential: Credential | None, environ: object) -> Started:
        self.calls.append((folder, slot, credential))
        return self

    returncode = 0

    def poll(self) -> int:
        return 0


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """Let no process be started, though mlflow is said to be installed."""
    stand_in = Started()
    monkeypatch.setattr(launch, "spawn", stand_in)
    monkeypatch.setattr(launch, "_is_installed", lambda package: True)
    return stand_in


def on(folder: Path) -> dict[str, str]:
    """Return an environment in which a worker may be started."""
    return environment(folder, DSPY_TRACE_WORKER="on")


def test_the_worker_gets_nothing_that_would_trace_measure_or_steer_it() -> None:
    """Its environment is the program's without telemetry, coverage and auto-instrumentation; it makes no spans."""
    auto = os.path.join("", "x", "opentelemetry", "instrumentation", "auto_instrumentation")
    told = worker_environment(
        None,
        {
            "PATH": "/bin",
            "OTEL_TRACES_EXPORTER": "mlflow",
            "COVERAGE_PROCESS_START": "x",
            "PYTHONWARNINGS": "error",
            "PYTHONPATH": os.pathsep.join([auto, "", ".", "/mine", auto + "/"]),
            "MLFLOW_TRACKING_TOKEN": "t",
            "DSPY_TRACE_WORKER_CREDENTIAL": SECRET,
        },
    )
    assert told["PATH"] == "/bin"
    assert told["OTEL_SDK_DISABLED"] == "true"
    assert told["PYTHONPATH"].split(os.pathsep)[0] == "/mine"
    assert auto not in told["PYTHONPATH"]
    assert not {"OTEL_TRACES_EXPORTER", "COVERAGE_PROCESS_START", "PYTHONWARNINGS"} & set(told)
    assert "DSPY_TRACE_WORKER_CREDENTIAL" not in told
    assert worker_environment(Credential(uri=SECRET), {})["DSPY_TRACE_WORKER_CREDENTIAL"] == SECRET


@pytest.mark.parametrize(
    ("credential", "told"),
    [
        (Credential("ada", "pass word"), {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "pass word"}),
        (Credential(token="t"), {"MLFLOW_TRACKING_TOKEN": "t"}),
    ],
    ids=["password", "token"],
)
def test_the_worker_of_a_server_gets_what_opens_it(credential: Credential, told: dict[str, str]) -> None:
    """In its environment, where MLflow's client looks, and nothing that the program has for another one."""
    given = worker_environment(credential, {"MLFLOW_TRACKING_USERNAME": "other", "MLFLOW_TRACKING_TOKEN": "other"})
    assert {name: value for name, value in given.items() if name.startswith("MLFLOW_TRACKING")} == told


@pytest.mark.parametrize(
    ("what", "expected"),
    [("off", "off"), ("frozen", "frozen"), ("embedded", "no Python interpreter"), ("none", "no Python interpreter")],
)
def test_where_no_worker_can_be_started(what: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Switched off, in a frozen program, or where the interpreter is part of another program."""
    if what == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    if what in ("embedded", "none"):
        monkeypatch.setattr(sys, "executable", "/usr/bin/uwsgi" if what == "embedded" else "")
    why = hindrance({"DSPY_TRACE_WORKER": "off"} if what == "off" else {})
    assert expected in (why or "")
    assert hindrance({}) is None or what != "off"


def test_one_worker_serves_all_databases_that_need_no_credential(tmp_path: Path, started: Started) -> None:
    """However many databases and processes there are, one worker is started, in the folder of the spool."""
    with delivering(on(tmp_path)) as delivery, delivering(on(tmp_path)) as other:
        for n in range(20):
            for one in (delivery, other):
                one.put([trace(Target(f"sqlite:///{tmp_path}/{n}.db"))])
        eventually(lambda: started.calls)
        assert not delivery.flush(0.6)
    assert started.calls == [(tmp_path / "spool", "shared", None)]


def test_a_database_with_a_password_has_a_worker_that_holds_it(tmp_path: Path, started: Started) -> None:
    """The password goes to that worker alone, never into the spool, and a worker without it never gets the rows."""
    target, credential = Target("postgresql://127.0.0.1/mlflow"), Credential(uri=SECRET)
    with delivering(on(tmp_path), credential) as delivery:
        delivery.put([trace(target)])
        eventually(lambda: started.calls)
        ((_, _, sealed, _),) = delivery.file().targets()
        written = b"".join(file.read_bytes() for file in (tmp_path / "spool").iterdir())
    assert started.calls == [(tmp_path / "spool", slot_of(target.uri, True), credential)]
    assert sealed
    assert b"s3cret" not in written
    with delivering(on(tmp_path)) as stranger:
        stranger.deliver_all(0.5)
    assert len(started.calls) == 1


def test_the_end_of_the_program_waits_for_a_start_that_is_under_way(
    tmp_path: Path, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written down before the process is there: a program that ended in between would leave nobody at work."""
    begun, go_on = threading.Event(), threading.Event()

    def spawn(*told: Any) -> Started:
        begun.set()
        assert go_on.wait(30.0)
        return started(*told)

    monkeypatch.setattr(launch, "spawn", spawn)
    with delivering({**on(tmp_path), "DSPY_TRACE_EXIT_WAIT": "0"}) as delivery:
        delivery.put([trace(Target(f"sqlite:///{tmp_path}/m.db"))])
        assert begun.wait(30.0)
        end = threading.Thread(target=delivery.at_exit)
        end.start()
        end.join(0.3)
        assert end.is_alive()
        go_on.set()
        end.join(30.0)
        assert len(started.calls) == 1


def test_a_worker_that_died_is_started_again(tmp_path: Path, started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that says it runs and holds no lock has been killed: the next is started. One that runs is left."""
    with delivering(on(tmp_path)) as delivery:
        delivery.put([trace(Target(f"sqlite:///{tmp_path}/m.db"))])
        eventually(lambda: started.calls)
        running = ProcessLock(lock_file(tmp_path / "spool", "shared"))
        assert running.acquire()
        with delivery.file().writing() as db:
            db.execute("UPDATE workers SET state = 'running'")
        assert not delivery.flush(0.6)
        assert len(started.calls) == 1
        running.release()
        eventually(lambda: len(started.calls) == 2)


def test_a_worker_that_was_asked_to_end_is_kept_if_something_comes(tmp_path: Path, started: Started) -> None:
    """Whoever has something for it takes the request back, instead of starting another beside it."""
    with delivering(on(tmp_path)) as delivery:
        running = ProcessLock(lock_file(tmp_path / "spool", "shared"))
        delivery.file()
        assert running.acquire()
        with delivery.file().writing() as db:
            db.execute("INSERT INTO workers VALUES ('shared', 'asked', 0)")
        delivery.put([trace(Target(f"sqlite:///{tmp_path}/m.db"))])
        eventually(lambda: delivery.file().read("SELECT state FROM workers") == [("running",)])
        assert not started.calls
        with delivery.file().writing() as db:
            db.execute("UPDATE workers SET state = 'asked'")
        running.release()
        eventually(lambda: len(started.calls) == 1)


def test_a_worker_too_many_leaves_the_first_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that finds another at work ends, and says in the spool that one runs: nobody waits for it to start."""
    with delivering(environment(tmp_path)) as delivery:
        monkeypatch.setattr("dspy_trace.export.worker.HANDOVER", 0.1)
        running = ProcessLock(lock_file(tmp_path / "spool", "shared"))
        with delivery.file().writing() as db:
            db.execute("INSERT INTO workers VALUES ('shared', 'running', 0)")
        assert running.acquire()
        second = Worker(tmp_path / "spool", "shared", {})
        with delivery.file().writing() as db:
            db.execute("UPDATE workers SET state = 'starting'")
        assert second.run() == 0
        assert delivery.file().read("SELECT state FROM workers") == [("running",)]


def test_an_upgrade_of_a_package_begins_the_worker_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the metadata of MLflow or of ours has gone another version is there: a fresh process takes the rows up."""
    begun: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, command: begun.append(command))
    monkeypatch.setenv("DSPY_TRACE_WORKER_CREDENTIAL", SECRET)
    metadata = tmp_path / "mlflow-3.0.dist-info"
    metadata.mkdir()
    worker = Worker(tmp_path / "spool", slot_of(SECRET, True), os.environ)
    assert "DSPY_TRACE_WORKER_CREDENTIAL" not in os.environ
    worker._packages = [metadata]
    metadata.rmdir()
    assert worker.run() == 0
    ((*_, module, folder, slot),) = begun
    assert (module, folder, slot) == ("dspy_trace.export.worker", str(tmp_path / "spool"), slot_of(SECRET, True))
    assert os.environ["DSPY_TRACE_WORKER_CREDENTIAL"] == SECRET


@pytest.mark.parametrize("missing", ["mlflow", "sqlalchemy"])
def test_without_mlflow_rows_wait_and_the_remedy_is_said_once(
    tmp_path: Path, started: Started, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, missing: str
) -> None:
    """No process is started for nothing; the warning says what to install."""
    monkeypatch.setattr(launch, "_is_installed", lambda package: package != missing)
    monkeypatch.setattr(launch, "AGAIN", 0.05)
    with delivering(on(tmp_path)) as delivery:
        delivery.put([trace(Target(f"sqlite:///{tmp_path}/m.db"))])
        assert not delivery.flush(1.0)
        assert delivery.waiting().spans == 3
        assert records.problems(delivery.file())[0].cause == "mlflow missing"
    assert not started.calls
    (warning,) = caplog.records
    assert "pip install 'dspy-trace[mlflow]'" in warning.getMessage()


def test_runs_wait_where_mlflow_is_missing_and_traces_go_on(
    tmp_path: Path,
    started: Started,
    monkeypatch: pytest.MonkeyPatch,
    scripted_mlflow: ScriptedMlflow,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A server takes spans without it; of runs one warning says what to install."""
    monkeypatch.setattr(launch, "_is_installed", lambda package: False)
    target = Target(scripted_mlflow.url)
    record = spooled.Record(target, "run", b'{"start": {"name": "compile"}}')
    with delivering(on(tmp_path)) as delivery:
        delivery.put([put := trace(target)])

        def write(spool: Spool, sealed: Collection[Target]) -> None:
            spooled.put(spool, [record], delivery.owner, sealed)

        delivery.write_runs([target], write)
        eventually(lambda: caplog.records and set(scripted_mlflow.spans) == spans_of(put))
        ((number, *_),) = delivery.file().targets()
        assert spooled.waiting_runs(delivery.file(), number) == ["run"]
    assert not started.calls
    (warning,) = caplog.records
    assert "pip install 'dspy-trace[mlflow]'" in warning.getMessage()


def test_a_system_that_lets_no_process_start_is_said_once(
    tmp_path: Path, started: Started, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows wait for `dspy-trace flush`, and one warning says so."""

    def refused(*arguments: Any) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(launch, "spawn", refused)
    monkeypatch.setattr(launch, "STARTING", 0.0)
    monkeypatch.setattr(launch, "AGAIN", 0.05)
    with delivering(on(tmp_path)) as delivery:
        delivery.put([trace(Target(f"sqlite:///{tmp_path}/m.db"))])
        assert not delivery.flush(1.0)
        assert delivery.waiting().spans == 3
    (warning,) = caplog.records
    assert "not permitted" in warning.getMessage()
    assert "dspy-trace flush" in warning.getMessage()


def test_switched_off_it_waits_in_silence(
    tmp_path: Path, started: Started, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """`DSPY_TRACE_WORKER=off` starts nothing, warns of nothing, and keeps the rows."""
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([trace(Target(f"sqlite:///{tmp_path}/m.db"))])
        assert not delivery.flush(0.5)
        delivery.at_exit()
        assert delivery.waiting().spans == 3
    assert not started.calls
    assert not caplog.records
    assert "m.db" not in capsys.readouterr().err

"""The command `dspy-trace`: arguments, environment, and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dspy_trace.cli import main
from dspy_trace.export.items import Batch
from dspy_trace.export.places import spool_file
from dspy_trace.export.spool import Spool
from dspy_trace.export.target import Credential, Target
from dspy_trace.store import database
from tests.delivery import delivering, environment, trace
from tests.parts.scripted_mlflow import Fault, ScriptedMlflow

Command = Callable[..., Result]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Give the command, run in an empty folder and an environment that says nothing of MLflow."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "DSPY_TRACE_", "COLUMNS"))]:
        monkeypatch.delenv(name)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setenv("DSPY_TRACE_SPOOL_DIR", str(tmp_path / "spool"))
    return lambda *words, **environ: CliRunner().invoke(main, words, env=environ)


def fails(result: Result) -> str:
    """Return the one line that a command says when it fails, which is no traceback and goes to stderr."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line.removeprefix("Error: ")


def put(folder: Path, *batches: Batch, credential: Credential | None = None) -> None:
    """Leave something in the spool, as a program does that has ended before anything could be delivered."""
    with delivering(environment(folder), credential) as delivery:
        delivery.file().put(batches, delivery.owner, {one.target for one in batches} if credential else ())


def test_help_is_quick(tmp_path: Path) -> None:
    """Asking what there is imports neither DSPy nor OpenTelemetry nor MLflow, nor what draws trees."""
    code = "import json, sys; from dspy_trace.cli import main; main(sys.argv[1:], standalone_mode=False)"
    code += "; print(json.dumps(sorted(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True).stdout
    assert all(f"\n  {name} " in told for name in ("demo", "flush", "ls", "show"))
    heavy = {"dspy", "opentelemetry", "mlflow", "rich", "orjson", "sqlite3", "ssl", "logging.handlers"}
    assert heavy & {name.partition(".")[0] for name in json.loads(told.splitlines()[-1])} == set()


@pytest.mark.parametrize("words", [["ls"], ["show"], ["show", "abc"]])
def test_looking_makes_no_database(command: Command, words: list[str]) -> None:
    """Where there is no store, that is said, with its full name; nothing is made in the folder."""
    assert fails(command(*words)).startswith(f"there is no database {Path.cwd()}/mlflow.db. Look elsewhere")
    assert list(Path.cwd().iterdir()) == []
    assert not spool_file(Path(os.environ["DSPY_TRACE_SPOOL_DIR"])).exists()


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("file:///tmp/mlruns", "is a folder"),
        ("sqlite://", "a database in memory"),
        ("ftp://host/x", "is no tracking URI"),
        ("http://", "names no host"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1: ConnectionRefusedError"),
        ("postgresql://me:hunter2@127.0.0.1:1/db", "postgresql://127.0.0.1:1/db: 127.0.0.1:1: "),
    ],
)
def test_a_tracking_uri_that_nothing_can_be_read_from(command: Command, uri: str, said: str) -> None:
    """As for `autolog()`: an option or a variable that names no store is refused with the remedy, without secrets."""
    for result in (command("ls", "--tracking-uri", uri), command("show", MLFLOW_TRACKING_URI=uri)):
        line = fails(result)
        assert said in line
        assert "hunter2" not in line
        assert "MLFLOW_TRACKING_URI" in line or "Use " in line


def a_database(path: Path, *statements: str) -> Path:
    """Make a SQLite database."""
    with sqlite3.connect(path) as made:
        for statement in statements:
            made.execute(statement)
    made.close()
    return path


MLFLOWS = ("CREATE TABLE alembic_version (version_num)", "CREATE TABLE trace_info (request_id)")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no database of MLflow's"),
        (b"some text, long enough", "is no database of MLflow's"),
        (None, "no database"),
    ],
)
def test_a_file_that_is_not_mlflows(command: Command, content: bytes | None, said: str) -> None:
    """A file that is empty, or something else, or a folder, is left as it is."""
    if content is None:
        Path("mlflow.db").mkdir()
    else:
        Path("mlflow.db").write_bytes(content)
    assert said in fails(command("ls"))
    assert content is None or Path("mlflow.db").read_bytes() == content


def test_a_database_of_another_program(command: Command) -> None:
    """MLflow would make its tables in it."""
    before = a_database(Path("mlflow.db"), "CREATE TABLE notes (text)").read_bytes()
    assert "is no database of MLflow's" in fails(command("ls"))
    assert Path("mlflow.db").read_bytes() == before


def test_mlflow_is_missing(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database is read through MLflow; where that is not installed, how to install it is said."""
    a_database(Path("mlflow.db"), *MLFLOWS)
    monkeypatch.setattr(database.importlib.util, "find_spec", lambda name: None)
    assert "MLflow is not installed" in (line := fails(command("ls")))
    assert "pip install 'dspy-trace[mlflow]'" in line


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(200, b"<html>hello</html>"), "is no MLflow server"),
        (Fault(200, b"{}"), "is no MLflow server"),
        (Fault(200, b'{"experiment": {"experiment_id": "0"}, "traces": [{}]}'), "is no MLflow server"),
        (Fault(401, b"no"), "401: no. Set MLFLOW_TRACKING_USERNAME"),
        (Fault(404, b"<html>nothing here"), "404. Check MLFLOW_TRACKING_URI"),
        (Fault(500, b"oops"), "500: oops. See the server's log."),
        (Fault(200, b'{"experiment": ', close=True), "IncompleteRead"),
    ],
)
def test_a_server_that_cannot_be_read(
    command: Command, scripted_mlflow: ScriptedMlflow, fault: Fault, said: str
) -> None:
    """What a server answers that is none of MLflow's, or no answer, is said with the remedy."""
    scripted_mlflow.fault = lambda request: fault
    assert said in fails(command("ls", "--tracking-uri", scripted_mlflow.url))


def test_the_credential_of_the_environment(command: Command, scripted_mlflow: ScriptedMlflow) -> None:
    """It is used as for `autolog()`; the server says 404 for the rest, which it does not know."""
    scripted_mlflow.authorization = "Bearer let-me-in"
    assert "401" in fails(command("ls", MLFLOW_TRACKING_URI=scripted_mlflow.url))
    told = fails(command("ls", MLFLOW_TRACKING_URI=scripted_mlflow.url, MLFLOW_TRACKING_TOKEN="let-me-in"))
    assert "404" in told
    assert "let-me-in" not in told


@pytest.mark.parametrize("text", ["zz", "tr-", "", "tr-123/../..", "0" * 33, "%", "_", "' OR 1=1 --"])
def test_what_is_no_id(command: Command, scripted_mlflow: ScriptedMlflow, text: str) -> None:
    """It is refused without asking anybody."""
    assert "is no id of a trace" in fails(command("show", "--tracking-uri", scripted_mlflow.url, "--", text))
    assert scripted_mlflow.requests == []


@pytest.mark.parametrize(
    "words",
    [
        ["ls", "-n", "0"],
        ["ls", "-n", "x"],
        ["show", "a", "b"],
        ["flush", "--timeout", "-1"],
        ["flush", "--timeout", "nan"],
    ],
)
def test_wrong_arguments(command: Command, words: list[str]) -> None:
    """Click says how the command is used; its code is 2."""
    result = command(*words)
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")


def test_what_waits_is_said_beside_what_is_missing(command: Command, tmp_path: Path) -> None:
    """Who looks for a trace that is still in the spool is told where it is."""
    put(tmp_path, trace(Target(f"sqlite:///{Path.cwd()}/mlflow.db")))
    said = fails(command("ls"))
    assert "MLFLOW_TRACKING_URI. 3 spans are on the way there: `" in said
    assert "dspy-trace flush` delivers what waits" in said
    assert "on the way" not in fails(command("ls", "--tracking-uri", "sqlite:///other.db"))


def test_a_spool_of_a_newer_version(command: Command, tmp_path: Path) -> None:
    """It is left alone: looking goes on without it, and `flush` does not say that nothing waits."""
    (tmp_path / "spool").mkdir()
    spool = Spool(spool_file(tmp_path / "spool"))
    spool.open()
    spool.read("PRAGMA user_version = 99")
    spool.close()
    assert fails(command("ls")).startswith("there is no database")
    assert "the spool cannot be used" in fails(command("flush"))

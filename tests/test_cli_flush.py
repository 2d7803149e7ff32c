"""`dspy-trace flush`: delivers what programs have left, to whom it may, and says why where it cannot."""

from __future__ import annotations

import threading
from pathlib import Path
from time import monotonic

import pytest

from dspy_trace.export import drain, launch
from dspy_trace.export.target import Credential, Target
from tests.delivery import eventually, trace
from tests.parts.scripted_mlflow import POISON, Fault, ScriptedMlflow
from tests.test_cli import Command, command, put

__all__ = ["command"]

TOKEN = Credential(token="let-me-in")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between tries."""
    monkeypatch.setattr(drain, "FIRST", 0.02)
    monkeypatch.setattr(drain, "LONGEST", 0.1)


def test_nothing_waits(command: Command) -> None:
    """Then that is said, and all is well."""
    result = command("flush")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Nothing waits.\n", "")


def test_what_programs_have_left_is_delivered(
    command: Command, scripted_mlflow: ScriptedMlflow, tmp_path: Path
) -> None:
    """Of several programs, for several experiments."""
    put(tmp_path, trace(Target(scripted_mlflow.url)))
    put(tmp_path, trace(Target(scripted_mlflow.url, experiment_name="new")), trace(Target(scripted_mlflow.url)))
    result = command("flush")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "9 spans delivered.\n", "")
    assert len(scripted_mlflow.spans) == 9
    assert command("flush").stdout == "Nothing waits.\n"


def test_a_server_that_is_down(command: Command, scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """It is tried until the time is over; why is said at once and in the end; nothing is lost."""
    put(tmp_path, trace(Target(scripted_mlflow.url)))
    scripted_mlflow.close()
    begun = monotonic()
    result = command("flush", "--timeout", "0.5")
    assert 0.5 <= monotonic() - begun < 5
    assert (result.exit_code, result.stdout) == (1, "")
    trying, left = result.stderr.splitlines()
    assert trying.startswith(f"{scripted_mlflow.url}: ConnectionRefusedError")
    assert trying.endswith("Trying again, for at most 0.5 s.")
    assert left.startswith(f"3 spans waiting for {scripted_mlflow.url}: ConnectionRefusedError")
    assert left.endswith("Start the server or check MLFLOW_TRACKING_URI.")
    scripted_mlflow.restart()
    assert command("flush").stdout == "3 spans delivered.\n"


def test_a_server_that_comes_back(command: Command, scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """What fails at first and then works has worked."""
    put(tmp_path, trace(Target(scripted_mlflow.url)))
    scripted_mlflow.fault = lambda request: Fault(503) if request.number < 5 else None
    result = command("flush")
    assert (result.exit_code, result.stdout) == (0, "3 spans delivered.\n")
    assert result.stderr.count("503") == 1


def test_what_somebody_has_to_mend_is_not_waited_for(
    command: Command, scripted_mlflow: ScriptedMlflow, tmp_path: Path
) -> None:
    """A refusal ends the command at once, also where something else has been delivered."""
    other = ScriptedMlflow()
    put(tmp_path, trace(Target(scripted_mlflow.url)), trace(Target(other.url)))
    scripted_mlflow.authorization = "Bearer other"
    begun = monotonic()
    result = command("flush", "--timeout", "60")
    other.close()
    assert monotonic() - begun < 20
    assert (result.exit_code, result.stdout) == (1, "3 spans delivered.\n")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"3 spans waiting for {scripted_mlflow.url}: 401: ")
    assert "MLFLOW_TRACKING_TOKEN" in line


def test_what_takes_a_credential(command: Command, scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """The spool holds none. It is the environment's where that names the server; else it is said that one is needed."""
    put(tmp_path, trace(Target(scripted_mlflow.url)), credential=TOKEN)
    scripted_mlflow.authorization = "Bearer let-me-in"
    result = command("flush")
    assert result.exit_code == 1
    assert "it takes a credential, which is never stored. Set MLFLOW_TRACKING_URI to it" in result.stderr
    assert scripted_mlflow.requests == []
    wrong = command("flush", MLFLOW_TRACKING_URI=scripted_mlflow.url, MLFLOW_TRACKING_TOKEN="guess")
    assert "401" in wrong.stderr
    right = command("flush", MLFLOW_TRACKING_URI=scripted_mlflow.url, MLFLOW_TRACKING_TOKEN="let-me-in")
    assert (right.exit_code, right.stdout) == (0, "3 spans delivered.\n")


def test_a_credential_reaches_nobody_else(command: Command, scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """Of servers that something waits for, only the one that the credential is for gets to see it."""
    open_one, locked = ScriptedMlflow(), ScriptedMlflow()
    put(tmp_path, trace(Target(open_one.url)))
    put(tmp_path, trace(Target(locked.url)), trace(Target(scripted_mlflow.url)), credential=TOKEN)
    ambiguous = command("flush", MLFLOW_TRACKING_TOKEN="let-me-in")
    named = command("flush", MLFLOW_TRACKING_TOKEN="let-me-in", MLFLOW_TRACKING_URI=scripted_mlflow.url)
    alone = command("flush", MLFLOW_TRACKING_TOKEN="let-me-in")
    seen = [
        [request.headers.get("authorization") for request in server.requests]
        for server in (open_one, scripted_mlflow, locked)
    ]
    open_one.close()
    locked.close()
    assert [one.exit_code for one in (ambiguous, named, alone)] == [1, 1, 0]
    assert ambiguous.stderr.count("it takes a credential") == 2
    assert [set(one) for one in seen] == [{None}, {"Bearer let-me-in"}, {"Bearer let-me-in"}]


def test_what_is_refused_for_good(command: Command, scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """It waits no longer, and is said."""
    put(tmp_path, trace(Target(scripted_mlflow.url), **{POISON: 422}))
    result = command("flush")
    assert result.exit_code == 0
    assert result.stdout == "2 spans delivered.\n"
    assert result.stderr == "1 span refused for good, and kept as dead letters.\n"


def test_a_database_without_mlflow(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting would not install it."""
    monkeypatch.setattr(launch, "_is_installed", lambda package: False)
    put(tmp_path, trace(Target(f"sqlite:///{tmp_path}/mlflow.db")))
    begun = monotonic()
    result = command("flush", "--timeout", "60", DSPY_TRACE_WORKER="off")
    assert monotonic() - begun < 20
    assert result.exit_code == 1
    assert result.stderr.startswith(f"3 spans waiting for sqlite:///{tmp_path}/mlflow.db: MLflow is not installed")
    assert "pip install 'dspy-trace[mlflow]'" in result.stderr


def test_no_thread_is_left(command: Command, scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """Nor does the command hold back what it has taken."""
    put(tmp_path, trace(Target(scripted_mlflow.url)))
    scripted_mlflow.close()
    assert command("flush", "--timeout", "0.1").exit_code == 1
    eventually(lambda: not [one for one in threading.enumerate() if one.name == "dspy-trace-delivery"])
    scripted_mlflow.restart()
    assert command("flush").stdout == "3 spans delivered.\n"

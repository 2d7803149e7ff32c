"""`dspy-trace demo`, with DSPy's scripted LM, in a process of its own as a new user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts.mlflow_server import environment
from tests.parts.project import until

NO_LM = (
    "import sys; from dspy_trace.demo import lm_server; lm_server.available = lambda: False; "
    "from dspy_trace.cli import main; sys.argv[0] = 'dspy-trace'; main()"
)


def started(folder: Path, *words: str, code: str = NO_LM, **environ: str) -> subprocess.Popen[str]:
    """Start the demo where the LM's packages are missing, with a spool of its own and no worker."""
    return subprocess.Popen(
        [sys.executable, "-c", code, "demo", *words],
        cwd=folder,
        env=environment(DSPY_TRACE_SPOOL_DIR=str(folder / "spool"), DSPY_TRACE_WORKER="off", **environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ran(folder: Path, *words: str, code: str = NO_LM, **environ: str) -> tuple[int, str, str]:
    """Run it to its end."""
    process = started(folder, *words, code=code, **environ)
    out, err = process.communicate(timeout=100)
    return process.returncode, out, err


def test_a_scripted_lm_says_that_it_is_one(tmp_path: Path) -> None:
    """Everything that the demo shows is there, where the trace goes, and what opens it, here under `uv run`."""
    status, out, err = ran(tmp_path, COLUMNS="100", UV_RUN_RECURSION_DEPTH="1")
    assert (status, err) == (0, "")
    assert out.startswith("LM DSPy's scripted one, whose answers are made up")
    lines = out.partition("\n\n")[2].splitlines()
    names = [line.lstrip("│├└─ ").partition("  ")[0] for line in lines]
    judged = ["Predict judge", "chat dummy"] * 2
    assert names[:8] == [
        "invoke_workflow HelpDesk",
        "OrderDesk orders",
        "Predict orders.extract",
        "chat dummy",
        "dspy.adapter.parse_error",
        "dspy.adapter.fallback",
        "chat dummy",
        "execute_tool find_order",
    ]
    assert names[8:10] == ["execute_tool track_parcel", "retrieval Handbook"]
    assert sorted(names[10:14]) == sorted(judged)
    assert names[14:16] == ["Predict triage", "chat dummy"]
    assert "20 spans, 7 LM calls" in out
    assert f"The trace goes to sqlite:///{tmp_path}/mlflow.db" in out
    assert "In the browser   uv run dspy-trace ui" in out


def test_a_program_that_fails(tmp_path: Path) -> None:
    """The trace of the failure is printed; the command says what failed, in a line, without a traceback."""
    status, out, err = ran(tmp_path, code="from dspy_trace.demo import program; program.SCRIPT.clear(); " + NO_LM)
    assert status == 1
    assert "invoke_workflow HelpDesk" in out
    assert err.splitlines()[-1].startswith("Error: the program failed, and so does its trace: ")
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [["--model", ""], ["--model"], ["extra"]])
def test_wrong_arguments(tmp_path: Path, words: list[str]) -> None:
    """One clear line."""
    code, _, err = ran(tmp_path, *words)
    assert code == 2
    assert err.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in err


def test_a_tracking_uri_that_is_none(tmp_path: Path) -> None:
    """It is said before anything is started."""
    status, out, err = ran(tmp_path, MLFLOW_TRACKING_URI="file:///tmp/x")
    assert (status, out) == (1, "")
    assert err.startswith("Error: 'file:///tmp/x' is a folder")


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_in_the_middle(tmp_path: Path) -> None:
    """It ends with a code that is not 0, no traceback, and no server left behind."""
    slow = (
        "import signal, sys, time; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from dspy_trace.demo import lm_server, program; lm_server.available = lambda: False; "
        "program.find_order = lambda number: (print('now', flush=True), time.sleep(60)); "
        "from dspy_trace.cli import main; sys.argv[0] = 'dspy-trace'; main()"
    )
    process = started(tmp_path, code=slow)
    assert process.stdout is not None
    while process.stdout.readline() != "now\n":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    until(lambda: process.poll() is not None, 20)
    assert (process.communicate()[1].strip(), process.returncode) == ("Aborted!", 130)

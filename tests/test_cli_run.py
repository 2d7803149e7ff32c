"""`dspy-trace run`: the zero-code form, with sensible defaults, and whatever is set already."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts.mlflow_server import environment

TELLS = (
    "import json, os; names = ('OTEL_TRACES_EXPORTER', 'OTEL_METRICS_EXPORTER', 'OTEL_LOGS_EXPORTER',"
    " 'MLFLOW_TRACKING_URI', 'MLFLOW_EXPERIMENT_ID', 'MLFLOW_EXPERIMENT_NAME');"
    " print(json.dumps({name: os.environ[name] for name in names if name in os.environ}))"
)


def ran(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own: it becomes the program."""
    (folder / "app.py").write_text(TELLS)
    told = environment(DSPY_TRACE_SPOOL_DIR=str(folder / "spool"), DSPY_TRACE_WORKER="off", **environ)
    return subprocess.run(
        [sys.executable, "-m", "dspy_trace.cli", "run", *words],
        cwd=folder,
        env={**told, "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "dspy,openai,httpx,httpx2"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


DEFAULTS = {"OTEL_TRACES_EXPORTER": "mlflow", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}


def test_defaults(tmp_path: Path) -> None:
    """Traces go to MLflow, metrics and logs nowhere, in the Python that has us; a Python file needs no `python`."""
    for words in (["--", "python", "app.py"], ["python", "app.py"], ["app.py"]):
        done = ran(tmp_path, *words)
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout) == DEFAULTS


def test_what_is_set_holds(tmp_path: Path) -> None:
    """Variables win over defaults, options over variables; with an OTLP endpoint, traces go there as well."""
    done = ran(tmp_path, "app.py", OTEL_TRACES_EXPORTER="console", OTEL_METRICS_EXPORTER="console")
    assert json.loads(done.stdout.splitlines()[0]) == {
        **DEFAULTS,
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_METRICS_EXPORTER": "console",
    }
    both = ran(tmp_path, "app.py", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    assert json.loads(both.stdout)["OTEL_TRACES_EXPORTER"] == "mlflow,otlp"
    words = ["--tracking-uri", "sqlite:///x.db", "--experiment"]
    named = ran(tmp_path, *words, "shop", "app.py", MLFLOW_EXPERIMENT_ID="7")
    assert json.loads(named.stdout) == {
        **DEFAULTS,
        "MLFLOW_TRACKING_URI": "sqlite:///x.db",
        "MLFLOW_EXPERIMENT_NAME": "shop",
    }
    assert json.loads(ran(tmp_path, *words, "7", "app.py").stdout)["MLFLOW_EXPERIMENT_ID"] == "7"


def test_options_of_the_program_are_the_programs(tmp_path: Path) -> None:
    """So is its exit code."""
    done = ran(tmp_path, "python", "-c", "import sys; print(sys.argv[1:]); sys.exit(7)", "--experiment", "x", "-h")
    assert (done.returncode, done.stdout) == (7, "['--experiment', 'x', '-h']\n")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "Error: Missing argument 'COMMAND...'."),
        (["nosuchprogram"], 1, "Error: there is no program nosuchprogram"),
        (["nosuch.py"], 1, "Error: there is no file nosuch.py"),
        (["--tracking-uri", "file:///tmp/x", "app.py"], 1, "Error: 'file:///tmp/x' is a folder"),
    ],
)
def test_what_cannot_be_run(tmp_path: Path, words: list[str], code: int, said: str) -> None:
    """One clear line."""
    done = ran(tmp_path, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.splitlines()[-1].startswith(said)


def test_opentelemetrys_command_is_missing(tmp_path: Path) -> None:
    """What to install is said."""
    code = (
        "import sys; from dspy_trace.commands import run; run.LAUNCHER = 'no-such-launcher';"
        "from dspy_trace.cli import main; main(['run', 'python', 'app.py'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert done.stderr == "Error: no-such-launcher is not installed: pip install opentelemetry-instrumentation\n"
    assert os.listdir(tmp_path) == []

"""Everything that the README shows is run here, as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts.scripted_lm import API_KEY, ScriptedLM

FILE = Path(__file__).parents[2] / "README.md"
if not FILE.exists():
    pytest.skip("there is no README beside an installed wheel", allow_module_level=True)
README = FILE.read_text()
SECONDS = 110

pytestmark = pytest.mark.integration


def blocks(language: str) -> list[str]:
    """Return the README's code blocks in a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


PROGRAMS = blocks("python")
COMMANDS = [line for block in blocks("bash") for line in block.splitlines()]


def run(command: list[str], folder: Path, **environ: str) -> str:
    """Run a command with this environment's scripts on the path and return what it printed."""
    scripts = str(Path(sys.executable).parent)
    path = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path, "DSPY_CACHEDIR": str(folder / "cache"), **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def openai(lm: ScriptedLM) -> dict[str, str]:
    """Return the environment in which ``openai/...`` is the scripted LM."""
    # Other instrumentations are installed for the tests of neighbours; a reader of the README has none.
    return {
        "OPENAI_API_BASE": lm.url,
        "OPENAI_API_KEY": API_KEY,
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "dspy,httpx,openai",
    }


def spool(folder: Path) -> dict[str, str]:
    """Return the environment in which what waits for delivery is the test's own, and the writer ends soon."""
    return {"DSPY_TRACE_SPOOL_DIR": str(folder / "spool"), "DSPY_TRACE_EXIT_WAIT": "0", "DSPY_TRACE_WORKER_IDLE": "1"}


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_programs_run(program: str, tmp_path: Path, scripted_lm: ScriptedLM) -> None:
    """Each program runs unchanged, with a scripted LM where it says OpenAI's."""
    (tmp_path / "program.py").write_text(program)
    run([sys.executable, "program.py"], tmp_path, **openai(scripted_lm), **spool(tmp_path))


def test_one_line_into_mlflow(tmp_path: Path, scripted_lm: ScriptedLM) -> None:
    """The trace of the one-line program is in a new ``mlflow.db``, and the command shows it."""
    program = next(program for program in PROGRAMS if "autolog()" in program)
    (tmp_path / "program.py").write_text(program)
    run([sys.executable, "program.py"], tmp_path, **openai(scripted_lm), **spool(tmp_path))
    run(["dspy-trace", "flush", "--timeout", "90"], tmp_path, **spool(tmp_path))
    assert "dspy-trace show" in COMMANDS
    printed = run(["dspy-trace", "show"], tmp_path, **spool(tmp_path), COLUMNS="120")
    assert shape(printed[printed.index("invoke_workflow") :])[:2] == [
        "invoke_workflow Predict",
        "└── chat gpt-4o-mini",
    ]


def test_zero_code(tmp_path: Path, scripted_lm: ScriptedLM) -> None:
    """The zero-code command prints the spans of ``app.py`` on the console."""
    app = next(program for program in PROGRAMS if "dspy_trace" not in program)
    (tmp_path / "app.py").write_text(app)
    command = next(line for line in COMMANDS if line.startswith("opentelemetry-instrument"))
    printed = run(command.split(), tmp_path, **openai(scripted_lm))
    assert '"name": "invoke_workflow Predict"' in printed
    assert '"name": "chat gpt-4o-mini"' in printed


def test_run(tmp_path: Path, scripted_lm: ScriptedLM) -> None:
    """The shorter zero-code command traces ``app.py`` into a new ``mlflow.db``, where it is shown once written."""
    app = next(program for program in PROGRAMS if "dspy_trace" not in program)
    (tmp_path / "app.py").write_text(app)
    command = next(line for line in COMMANDS if line.startswith("dspy-trace run"))
    run(command.split(), tmp_path, **openai(scripted_lm), **spool(tmp_path))
    printed = run(["dspy-trace", "show"], tmp_path, **spool(tmp_path), COLUMNS="60")
    assert shape(printed[printed.index("invoke_workflow") :]) == ["invoke_workflow Predict", "└── chat gpt-4o-mini"]


def test_the_demo_prints_the_tree_that_the_readme_shows(tmp_path: Path, real_lm: object) -> None:
    """The demo's tree has the shape of the README's; times and tokens are the machine's and the model's own.

    The same is in the new ``mlflow.db``, and `dspy-trace show` waits until it is.
    """
    assert "pip install uv && uv run dspy-trace demo" in COMMANDS
    printed = run(["dspy-trace", "demo"], tmp_path, **spool(tmp_path), COLUMNS="120")
    tree = printed[printed.index("invoke_workflow") :].partition("\n\n")[0]
    assert shape(blocks("text")[0]) == shape(tree)
    assert "20 spans, 7 LM calls, 1 of them answered by the cache" in printed
    shown = run(["dspy-trace", "show"], tmp_path, **spool(tmp_path), COLUMNS="120")
    message = "  the carrier did not answer for order 1042"  # content, which MLflow has and the terminal was not given
    assert shape(shown[shown.index("invoke_workflow") :].replace(message, "")) == shape(tree)


NUMBERS = re.compile(r"\s+[\d.]+ m?s\b|\s+\d+ > \d+ tokens|\s+\$[\d.]+")


def shape(tree: str) -> list[str]:
    """Return the lines of a tree without its numbers and bars."""
    lines = [NUMBERS.sub("", line) for line in tree.strip().splitlines()]
    return [re.sub(r"\s+[━╸╺·]+$", "", line).rstrip() for line in lines]

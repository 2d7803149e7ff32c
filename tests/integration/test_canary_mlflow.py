"""The canary test to its end: MLflow's database, the spool, the worker's log and its command line hold no secret."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dspy_trace.secrets import REPLACEMENT
from tests import planted
from tests.parts.mlflow_server import MISSING, is_installed
from tests.parts.project import Project, commands

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not is_installed(), reason=MISSING),
]

ROOT = Path(__file__).parents[2]

PROGRAM = """
import json
import dspy_trace
from tests import planted, secret_program
from tests.parts.scripted_lm import ScriptedLM

dspy_trace.autolog(detail="full", log_traces_from_compile=True)
with ScriptedLM() as server:
    secret_program.run(server)
print(json.dumps({**planted.PLANTED, **planted.PASSING}))
"""


def test_no_secret_reaches_mlflow(project: Project) -> None:
    """Whatever is told by every kind of call arrives, without any of the secrets in it."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environ: dict[str, Any] = {**planted.ENVIRONMENT, "LITELLM_LOCAL_MODEL_COST_MAP": "true", "PYTHONPATH": path}
    done = project.run(PROGRAM, **environ)
    secrets = json.loads(done.out.splitlines()[-1])
    workers = [" ".join(command) for _, command in commands() if str(project.spool) in command]
    assert workers
    project.arrived()
    stored = (project.folder / "mlflow.db").read_bytes().decode("utf-8", "replace")
    files = [file for folder in (project.folder, project.spool) for file in folder.rglob("*") if file.is_file()]
    left = {file.name: file.read_bytes().decode("utf-8", "replace") for file in files}
    left["command lines"] = "\n".join(workers)
    left["said"] = "\n".join(line for line in done.err.splitlines() if line.startswith("dspy-trace"))
    assert len(secrets) > 40
    assert stored.count(REPLACEMENT) > 500
    assert "mlflow.db" in left
    assert any(name.endswith("-worker.log") for name in left)
    found = {
        name: [place for place, value in secrets.items() if any(form in text for form in planted.forms(value))]
        for name, text in left.items()
    }
    assert {name: places for name, places in found.items() if places} == {}

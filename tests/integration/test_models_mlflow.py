"""What comes of a compile as a model in MLflow itself: logged by the worker process, whole, and once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.test_runs_mlflow import PROGRAM, ROOT
from tests.parts.project import Project
from tests.parts.scripted_lm import ScriptedLM

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

COMPILE = PROGRAM.replace("log_compiles=True", "log_compiles=True, log_models=True") + "of.copro(lm)\n"

READ = """
import json
import mlflow, dspy_trace_flavor
client = mlflow.MlflowClient("sqlite:///mlflow.db")
(run,) = [one for one in client.search_runs(["0"]) if one.info.run_name == "compile COPRO"]
(model,) = client.search_logged_models(["0"])
final = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/programs/final.json")["ask"]
loaded = dspy_trace_flavor.load_model(model.model_uri, lm_kwargs={"api_key": "another"}).dump_state()["ask"]
told = {"name": model.name, "status": str(model.status), "of the run": model.source_run_id == run.info.run_id}
told["linked"] = [one.model_id for one in run.outputs.model_outputs] == [model.model_id]
told["as the final program"] = all(loaded[key] == final[key] for key in ("signature", "demos"))
print("\\n" + json.dumps(told))
"""

ONE_MODEL = """
import mlflow
from dspy_trace.runs.writer import Writer
from dspy_trace_flavor.packing import Parcel
from tests.runs import QA

client = mlflow.MlflowClient("sqlite:///mlflow.db")
writer = Writer(client, None, lambda: "0")
run_id = client.create_run("0").info.run_id
told = {"name": "QA", **Parcel(QA()).told()}

def models():
    outputs = client.get_run(run_id).outputs
    linked = [one.model_id for one in outputs.model_outputs] if outputs else []
    return [(str(one.status), one.model_id in linked) for one in client.search_logged_models(["0"])], len(linked)

def refuses(*args):
    raise mlflow.MlflowException("the disk is full", error_code=mlflow.protos.databricks_pb2.INVALID_PARAMETER_VALUE)

client.log_model_artifacts = refuses
writer._model("r", run_id, told)
print(models(), writer.refused)
del client.log_model_artifacts
client.create_logged_model("0", "QA", run_id, {"dspy_trace.run": "r"})
for _ in range(2):
    writer._model("r", run_id, told)
print(models())
"""


def test_a_compiled_program_is_a_model(project: Project, scripted_lm: ScriptedLM, made_database: Path) -> None:
    """It is an output of its run and the program as the compile left it; the program has not imported mlflow."""
    import tests.optimizers as of

    scripted_lm.answer = of.answer
    Path(project.database.removeprefix("sqlite:///")).write_bytes(made_database.read_bytes())
    assert not project.run(COMPILE).mlflow
    project.arrived()
    told = json.loads(project.run(READ, PYTHONPATH=str(ROOT)).out.splitlines()[-1])
    whole = dict.fromkeys(("of the run", "linked", "as the final program"), True)
    assert told == {"name": "QA", "status": "READY", **whole}


def test_a_model_is_there_once_or_not_at_all(project: Project, made_database: Path) -> None:
    """What cannot be stored leaves no model; where a worker died before it was whole, the next one finishes it."""
    Path(project.database.removeprefix("sqlite:///")).write_bytes(made_database.read_bytes())
    refused, done = project.run(ONE_MODEL, PYTHONPATH=str(ROOT)).out.splitlines()[-2:]
    assert refused.startswith("([], 0) [") and "the disk is full" in refused
    assert done == "([('READY', True)], 1)"

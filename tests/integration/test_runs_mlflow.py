"""Runs in MLflow itself: what the worker process makes of the records, in a database and on a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.parts.mlflow_server import MlflowServer
from tests.parts.project import Project
from tests.parts.scripted_lm import ScriptedLM

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
import dspy, dspy_trace, tests.optimizers as of
from tests.runs import QA, example, exact
dspy_trace.autolog(log_evals=True, log_compiles=True, log_models=True, log_traces_from_compile=True)
lm = dspy.LM("openai/gpt-4o-mini", api_base=os.environ["DESK_LM"], api_key="sk-scripted-0123456789abc", cache=False)
dspy.configure(lm=lm)
"""

READ = """
import json, sys
import mlflow, dspy_trace_flavor
uri, experiment = sys.argv[1:]
client = mlflow.MlflowClient(uri)
ids = [one.experiment_id for one in client.search_experiments() if one.name == experiment]
told = []
def files(run, path=None):
    for one in client.list_artifacts(run, path):
        yield from files(run, one.path) if one.is_dir else [one.path]
def model(model_id):
    made = client.get_logged_model(model_id)
    final = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/programs/final.json")["ask"]
    loaded = dspy_trace_flavor.load_model(made.model_uri, lm_kwargs={"api_key": "another"}).dump_state()["ask"]
    same = all(loaded[key] == final[key] for key in ("signature", "demos"))
    return {"name": made.name, "status": str(made.status), "run": made.source_run_id, "as the final program": same}
for run in client.search_runs(ids, order_by=["attributes.start_time"]):
    run_id, names = run.info.run_id, list(files(run.info.run_id))
    tables = json.loads(run.data.tags.get("mlflow.loggedArtifacts", "[]"))
    told.append({
        "id": run_id, "name": run.info.run_name, "status": run.info.status, "files": sorted(names),
        "start": run.info.start_time, "end": run.info.end_time, "params": run.data.params, "tags": run.data.tags,
        "metrics": {name: [[m.step, m.value] for m in client.get_metric_history(run_id, name)]
                    for name in run.data.metrics},
        "data": [[one.dataset.name, one.dataset.profile, one.tags[0].value] for one in run.inputs.dataset_inputs],
        "tables": {one["path"]: mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/{one['path']}") for one in tables},
        "models": [model(one.model_id) for one in (run.outputs.model_outputs if run.outputs else ())],
        "traces": len(client.search_traces(ids, filter_string=f"attributes.run_id = '{run_id}'", include_spans=False)),
    })
print("\\n" + json.dumps(told))
"""


def read(uri: str, experiment: str = "Default") -> list[dict[str, Any]]:
    """Return the runs of an experiment as MLflow has them, the first to start first."""
    environ = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_TRACKING_URI": uri}
    command = [sys.executable, "-c", READ, uri, experiment]
    ran = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=200, check=False)
    assert ran.returncode == 0, ran.stderr[-2_000:]
    told: list[dict[str, Any]] = json.loads(ran.stdout.splitlines()[-1])
    return told


ALL_KINDS = (
    PROGRAM
    + """
import mlflow
mlflow.set_experiment("mine")
with mlflow.start_run(run_name="my study") as mine:
    dspy.Evaluate(devset=[example("one", "yes"), example("broken")], metric=exact, num_threads=2)(QA())
of.mipro_minibatch(lm)
of.gepa(lm)
of.random_search(lm)
try:
    dspy.Evaluate(devset=[example("broken")] * 3, metric=exact, num_threads=1, max_errors=1)(of.Refuses())
except Exception:
    pass
"""
)


def names(told: list[dict[str, Any]]) -> list[str]:
    """Return the names of runs, those of children behind their parent's."""
    of = {one["id"]: one for one in told}
    found = []
    for one in told:
        above = of.get(one["tags"].get("mlflow.parentRunId"))
        found.append(f"{above['name']} > {one['name']}" if above else one["name"])
    return found


def test_in_a_database(project: Project, scripted_lm: ScriptedLM, made_database: Path) -> None:
    """One program with evaluations and compiles of several kinds: trees, states, numbers, data, tables and traces."""
    import tests.optimizers as of

    scripted_lm.answer = of.answer
    Path(project.database.removeprefix("sqlite:///")).write_bytes(made_database.read_bytes())
    project.run(ALL_KINDS)
    project.arrived()
    told = read(project.database, "mine")
    found = names(told)
    assert found.count("my study > evaluate QA") == 1
    assert found.count("compile MIPROv2 > evaluate QA") == 6
    assert found.count("compile BootstrapFewShotWithRandomSearch > evaluate QA") == 4
    assert {one["status"] for one in told if one["name"] != "evaluate Refuses"} == {"FINISHED"}
    (failed,) = [one for one in told if one["name"] == "evaluate Refuses"]
    assert failed["status"] == "FAILED"
    mine = next(one for one in told if one["name"] == "my study")
    assert mine["metrics"]["eval"] == [[0, 50.0]]
    evaluation = told[found.index("my study > evaluate QA")]
    assert evaluation["metrics"]["eval"] == [[0, 50.0]]
    assert evaluation["data"] == [["devset", '{"num_rows":2}', "eval"]]
    assert evaluation["files"] == ["examples.json", "program.json"]
    table = evaluation["tables"]["examples.json"]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [(row["inputs.question"], row["score"]) for row in rows] == [("one", 1.0), ("broken", None)]
    assert evaluation["traces"] == 3
    mipro = told[found.index("compile MIPROv2")]
    assert mipro["metrics"]["best"] == [[0, 66.67], [1, 100.0], [2, 100.0]]
    assert mipro["metrics"]["eval_minibatch"] == [[0, 100.0], [1, 100.0], [2, 100.0]]
    assert {"candidates.json", "trials.json", "programs/final.json"} <= set(mipro["files"])
    assert sorted(data[0] for data in mipro["data"]) == ["trainset", "valset"]
    assert "not_written" not in str(told)
    assert "sk-scripted" not in str(told)
    (model,) = mipro["models"]
    assert model == {"name": "QA", "status": "READY", "run": mipro["id"], "as the final program": True}


ONE_MODEL = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import mlflow
from dspy_trace.runs.writer import Writer
from dspy_trace_flavor.packing import Parcel
from tests.runs import QA

client = mlflow.MlflowClient("sqlite:///mlflow.db")
writer = Writer(client, None, lambda: "0")
run_id = client.create_run("0").info.run_id
told = {{"name": "QA", **Parcel(QA()).told()}}

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
client.create_logged_model("0", "QA", run_id, {{"dspy_trace.run": "r"}})
for _ in range(2):
    writer._model("r", run_id, told)
print(models())
"""


def test_a_model_is_there_once_or_not_at_all(project: Project, made_database: Path) -> None:
    """What cannot be stored leaves no model; where a worker died before it was whole, the next one finishes it."""
    Path(project.database.removeprefix("sqlite:///")).write_bytes(made_database.read_bytes())
    refused, done = project.run(ONE_MODEL).out.splitlines()[-2:]
    assert refused.startswith("([], 0) [") and "the disk is full" in refused
    assert done == "([('READY', True)], 1)"


def test_on_a_server(project: Project, scripted_lm: ScriptedLM, mlflow_server: MlflowServer) -> None:
    """The same worker writes runs to a server, where traces come from the program itself."""
    import tests.optimizers as of

    scripted_lm.answer = of.answer
    text = PROGRAM + "of.copro(lm)\n"
    more = {"MLFLOW_TRACKING_URI": mlflow_server.uri, "MLFLOW_EXPERIMENT_NAME": "runs on a server"}
    more["DSPY_TRACE_EXIT_WAIT"] = "60"
    done = project.run(text, **more)
    assert not done.mlflow
    assert done.warnings == []
    project.arrived()
    told = read(mlflow_server.uri, "runs on a server")
    assert names(told) == ["compile COPRO", *["compile COPRO > evaluate QA"] * 2]
    assert told[0]["metrics"]["best"] == [[0, 100.0], [1, 100.0]]
    assert told[0]["files"][0] == "candidates.json"
    assert [one["status"] for one in told[0]["models"]] == ["READY"]
    assert [one["traces"] for one in told[1:]] == [2, 2]


def test_a_compile_that_is_killed(project: Project, scripted_lm: ScriptedLM, made_database: Path) -> None:
    """What was known by then is there, in a run that has not ended: baseline, best, programs, candidates."""
    import tests.optimizers as of

    scripted_lm.answer = of.answer
    Path(project.database.removeprefix("sqlite:///")).write_bytes(made_database.read_bytes())
    ending = """
import signal, time
class Killed(of.Own):
    def compile(self, student, **kwargs):
        super().compile(student, **kwargs)
        dspy_trace.flush(1)
        os.kill(os.getpid(), signal.SIGKILL)
Killed(exact).compile(QA(), trainset=of.TRAINSET)
"""
    project.run(PROGRAM + ending, check=False)
    project.arrived()
    whole, *children = read(project.database)
    assert (whole["status"], whole["end"]) == ("RUNNING", None)
    assert [one["status"] for one in children] == ["FINISHED"] * 2
    assert (whole["metrics"]["baseline"], whole["metrics"]["best"][-1]) == ([[0, 50.0]], [0, 100.0])
    assert {"programs/best.json", "programs/initial.json", "candidates.json"} <= set(whole["files"])
    assert "best **100**" in whole["tags"]["mlflow.note.content"]

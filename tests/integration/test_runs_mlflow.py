"""Runs in MLflow itself: what the worker process makes of the records, in a database and on a server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from base64 import b64encode
from collections import Counter
from pathlib import Path
from time import time
from typing import Any

import pytest

from tests.delivery import delivering, lives
from tests.parts.faulty_proxy import FaultyProxy
from tests.parts.mlflow_server import MlflowServer, Reader, end
from tests.parts.project import Project, share, until
from tests.parts.scripted_answers import output_fields
from tests.parts.scripted_lm import ScriptedLM

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
import dspy, dspy_trace, tests.optimizers as of
from tests.runs import QA, example, exact
dspy_trace.autolog(log_evals=True, log_compiles=True, log_traces_from_compile=True)
lm = dspy.LM("openai/gpt-4o-mini", api_base=os.environ["DESK_LM"], api_key="sk-scripted-0123456789abc", cache=False)
dspy.configure(lm=lm)
"""

ALL_KINDS = (
    PROGRAM
    + """
import mlflow
mlflow.set_experiment("mine")
with mlflow.start_run(run_name="my study") as mine:
    dspy.Evaluate(devset=[example("one", "yes"), example("broken")], metric=exact, num_threads=2)(QA())
of.mipro_minibatch(lm)
of.gepa(lm, use_mlflow=True)
with mlflow.start_run(run_name="my GEPA") as mine:
    of.gepa(lm, use_mlflow=True)
    assert mlflow.active_run().info.run_id == mine.info.run_id
    assert mlflow.get_run(mine.info.run_id).info.status == "RUNNING"
    mlflow.log_metric("after", 1.0)
assert mlflow.active_run() is None
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


@pytest.fixture
def database(project: Project, made_database: Path) -> str:
    """Give the database of the project, which has been made."""
    shutil.copyfile(made_database, project.database.removeprefix("sqlite:///"))
    return project.database


def test_in_a_database(project: Project, scripted_lm: ScriptedLM, database: str, mlflow_reader: Reader) -> None:
    """One program with evaluations and compiles of several kinds: trees, states, numbers, data, tables and traces."""
    import tests.optimizers as of

    scripted_lm.answer = of.answer
    project.run(ALL_KINDS)
    project.arrived()
    told = mlflow_reader.runs(database, "mine")
    found = names(told)
    assert found.count("my study > evaluate QA") == 1
    inner = Counter(name.partition(" > evaluate candidate")[0] for name in found if "candidate" in name)
    assert inner == {"compile MIPROv2": 6, "compile GEPA": 2, "compile BootstrapFewShotWithRandomSearch": 4}
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
    rows = rows_of(table)
    assert [(row["inputs.question"], row["score"]) for row in rows] == [("one", 1.0), ("broken", None)]
    assert evaluation["traces"] == 3
    mipro = told[found.index("compile MIPROv2")]
    assert mipro["metrics"]["best"] == [[0, 66.67], [1, 100.0], [2, 100.0]]
    assert mipro["metrics"]["eval_minibatch"] == [[0, 100.0], [1, 100.0], [2, 100.0]]
    assert {"candidates.json", "trials.json", "programs/final.json"} <= set(mipro["files"])
    assert sorted(data[0] for data in mipro["data"]) == ["trainset", "valset"]
    check_gepa_beside_its_own_run(told)
    assert "not_written" not in str(told)
    assert "sk-scripted" not in str(told)


def check_gepa_beside_its_own_run(told: list[dict[str, Any]]) -> None:
    """With ``use_mlflow=True`` GEPA logs a run of its own, or into the program's if one is active, which stays open.

    Ours is a child of that, and nothing doubles.
    """
    of = {one["id"]: one for one in told}
    found = [(of[one["tags"]["mlflow.parentRunId"]], one) for one in told if one["name"] == "compile GEPA"]
    for own, gepa in found:
        assert own["metrics"]["val_program_average"][0][1] == pytest.approx(2 / 3)
        assert own["metrics"]["eval"] == [[0, gepa["metrics"]["final"][0][1]]]
        assert own["metrics"].keys() & gepa["metrics"].keys() == {"eval"} & gepa["metrics"].keys()
        assert own["params"].keys().isdisjoint(gepa["params"])
        assert (own["status"], gepa["status"]) == ("FINISHED", "FINISHED")
        assert "mlflow.parentRunId" not in own["tags"]
    (mine,) = [own for own, _ in found if own["name"] == "my GEPA"]
    (gepa,) = [gepa for own, gepa in found if own is mine]
    assert mine["metrics"]["after"] == [[0, 1.0]]
    assert mine["start"] <= gepa["start"] <= gepa["end"] <= mine["end"]
    assert sum("val_program_average" in one["metrics"] for one in told) == len(found) == 2


AWAY = """
import json, time
def timed():
    begun = time.time() * 1000
    of.copro(lm)
    return begun, time.time() * 1000
away = timed()
lm("The server is back.")
timed()
print(json.dumps(away))
"""


class Away:
    """A server that takes a password, is away at first, and comes back when the LM is told of it.

    In the middle of the first compile after that, `dspy-trace watch` is begun, and the LM waits until it has said more.
    """

    def __init__(self, project: Project, server: MlflowServer, reader: Reader) -> None:
        self.proxy = FaultyProxy(server.uri)
        self.proxy.authorization = f"Basic {b64encode(b'ada:pass word').decode()}"
        self.proxy.close()
        self.back = 0.0
        """When it was back, in milliseconds since 1970."""
        self.seen: list[str] = []
        """What has been seen of the compile while it went on."""
        self._server, self._reader = server, reader
        self.environ = {"MLFLOW_TRACKING_URI": self.proxy.url, "MLFLOW_EXPERIMENT_NAME": "away at first"}
        self.environ |= {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "pass word"}
        self._environ = project.environment(**self.environ, COLUMNS="200")
        self._watching: subprocess.Popen[str] | None = None

    def answer(self, body: Any) -> Any:
        """Answer as the LM."""
        import tests.optimizers as of

        if "The server is back." in str(body):
            self.back = time() * 1000
            self.proxy.open()
            return "Good."
        if self.back and self._watching is None and "answer" in output_fields(body) and "proposed" not in str(body):
            self._watch()
        return of.answer(body)

    def runs(self) -> list[dict[str, Any]]:
        """Return the runs on the server."""
        return self._reader.runs(self._server.uri, "away at first")

    def _watch(self) -> None:
        until(
            lambda: [run for run in self.runs() if (run["status"], len(run["metrics"].get("best", []))) == GOES_ON], 60
        )
        command = [sys.executable, "-m", "dspy_trace.cli", "watch", "--every", "0.2"]
        self._watching = subprocess.Popen(command, env=self._environ, stdout=subprocess.PIPE, text=True)
        assert self._watching.stdout is not None
        self.seen.append(self._watching.stdout.readline())

    def watched(self) -> list[str]:
        """Return what `dspy-trace watch` has said, which ends by itself."""
        assert self._watching is not None
        try:
            said, _ = self._watching.communicate(timeout=60)
        finally:
            end(self._watching)
        return [*self.seen, *said.splitlines(keepends=True)]


GOES_ON = ("RUNNING", 1)


def test_a_server_that_is_away_at_first(
    project: Project, scripted_lm: ScriptedLM, mlflow_server: MlflowServer, mlflow_reader: Reader
) -> None:
    """A compile does not wait for it; when it is back, the run is there with its true times, as of any other.

    What is told of runs is written by the worker, traces come from the program itself, which imports no mlflow.
    """
    away = Away(project, mlflow_server, mlflow_reader)
    scripted_lm.answer = away.answer
    done = project.run(PROGRAM + AWAY, **away.environ, DSPY_TRACE_EXIT_WAIT="60")
    assert not done.mlflow
    project.arrived()
    first, *later = away.watched()
    away.proxy.close()
    assert first.startswith("compile COPRO  eval 100  best 100  ")
    assert later[-1].startswith("compile COPRO: finished  eval 50  baseline 50  best 100  final 100  5 LM calls")
    told = away.runs()
    assert names(told) == ["compile COPRO", *(f"compile COPRO > evaluate candidate {number}" for number in (1, 0))] * 2
    begun, ended = json.loads(done.out.splitlines()[-1])
    assert begun - 1 <= told[0]["start"] <= told[2]["start"] <= told[2]["end"] <= told[0]["end"] <= ended < away.back
    assert told[0]["metrics"]["best"] == [[0, 100.0], [1, 100.0]]
    assert told[0]["files"][0] == "candidates.json"
    assert [one["traces"] for one in told] == [2, 2, 2] * 2
    assert list(map(timeless, told[:3])) == list(map(timeless, told[3:]))
    assert "pass word" not in project.log() + done.err


def timeless(run: dict[str, Any]) -> dict[str, Any]:
    """Return what is the same of a run whenever it is made."""
    kept = {name: run[name] for name in ("name", "status", "params", "data", "files", "traces")}
    kept["metrics"] = {name: points for name, points in run["metrics"].items() if name != "seconds"}
    changing = ("trace_id", "seconds")
    kept["tables"] = {path: rows_of(table, *changing) for path, table in run["tables"].items()}
    return kept


def rows_of(table: dict[str, Any], *without: str) -> list[dict[str, Any]]:
    """Return the rows of a table."""
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    return [{name: value for name, value in row.items() if name not in without} for row in rows]


def test_a_compile_that_is_killed_and_told_twice(
    project: Project, scripted_lm: ScriptedLM, database: str, mlflow_reader: Reader
) -> None:
    """What was known by then is there, in a run that has not ended: baseline, best, programs, candidates.

    The worker is killed, too, after it has written all and before it has noted that: all is there once.
    """
    import tests.optimizers as of

    scripted_lm.answer = of.answer
    ending = """
import signal
class Killed(of.Own):
    def compile(self, student, **kwargs):
        super().compile(student, **kwargs)
        dspy_trace.flush(0)
        os.kill(os.getpid(), signal.SIGKILL)
Killed(exact).compile(QA(), trainset=of.TRAINSET)
"""
    project.run(PROGRAM + ending, check=False, DSPY_TRACE_WORKER="off")
    shutil.copytree(project.spool, project.home / "before")
    once = written(project, database, mlflow_reader)
    whole, *children = once
    assert (whole["status"], whole["end"]) == ("RUNNING", None)
    assert [one["status"] for one in children] == ["FINISHED"] * 2
    assert (whole["metrics"]["baseline"], whole["metrics"]["best"]) == ([[0, 50.0]], [[0, 50.0], [1, 100.0]])
    assert {"programs/best.json", "programs/initial.json", "candidates.json"} <= set(whole["files"])
    assert "best **100**" in whole["tags"]["mlflow.note.content"]
    shutil.rmtree(project.spool)
    shutil.copytree(project.home / "before", project.spool)
    assert project.waits()["runs"] > 0
    assert written(project, database, mlflow_reader) == once


def written(project: Project, database: str, reader: Reader) -> list[dict[str, Any]]:
    """Return the runs once all that waits has been written, and the worker has been killed."""
    with delivering({**os.environ, **project.environment()}) as delivery:
        assert delivery.deliver_all(60.0 * share()), project.log()
        (worker,) = project.workers()
        project.end_workers()
        until(lambda: not lives(worker), 10.0)
    return reader.runs(database)

"""``log_compiles``: each outermost compile is a run, with every evaluation in it a child or a step."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import dspy
import pytest

import dspy_trace
from tests.optimizers import (
    TRAINSET,
    Optimize,
    Own,
    compiled,
    gepa,
    knn,
    lm,
    logged,
    mipro_minibatch,
    random_search,
)
from tests.outlets import Kept, kept
from tests.runs import QA, exact, runs, tree

__all__ = ["kept", "lm", "logged"]


def test_a_users_own_optimizer(logged: Kept, lm: Any) -> None:
    """Defined before ``autolog()`` or after: settings without secrets, candidates, best and final."""

    class Later(Own):
        def compile(self, student: Any, **kwargs: Any) -> Any:
            return super().compile(student, **kwargs)

    for cls in (Own, Later):
        optimize = cls(exact, api_key="sk-verysecret-0123456789", depth=3)
        told = compiled(logged, lm, lambda lm, it=optimize: it.compile(QA(), trainset=TRAINSET, x={"y": [1, print]}))
    assert [run.name for run in told if run.parent is None] == ["compile Own", "compile Later"]
    assert "verysecret" not in str(told)
    whole = told[0]
    assert whole.metrics["eval"] == [(0, 50.0)]
    assert whole.metrics["best"] == [(0, 50.0), (1, 100.0)]
    assert (whole.last("baseline"), whole.last("final")) == (50.0, 100.0)
    assert whole.params["optimizer.metric"] == "exact"
    assert whole.params["compile.x"] == '{"y":[1,"print"]}'
    assert [row["instructions"] for row in whole.table("candidates")][1] == "proposed by hand"
    assert [child.parent for child in told[1:3]] == [whole.id] * 2


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (RuntimeError("too much to learn"), "FAILED", "RuntimeError: too much to learn"),
        (KeyboardInterrupt(), "KILLED", "KeyboardInterrupt"),
    ],
)
def test_a_compile_that_ends_early(logged: Kept, lm: Any, error: BaseException, status: str, reason: str) -> None:
    """It says why, and what was known by then is there; the error is the program's own."""
    with pytest.raises(type(error)) as raised:
        compiled(logged, lm, lambda lm: Own(exact).compile(QA(), trainset=TRAINSET, error=error))
    assert raised.value is error
    whole, child = runs(logged)
    assert (whole.status, whole.tags["dspy_trace.reason"], child.status) == (status, reason, "FINISHED")
    assert (whole.last("baseline"), whole.last("best"), whole.last("final")) == (50.0, 50.0, None)
    assert "failed" in whole.tags["mlflow.note.content"]


def test_compiles_at_once(kept: Kept, lm: Any) -> None:
    """Four of three kinds in four threads, live calls in a fifth: four correct trees, and all live traces."""
    dspy_trace.autolog(log_compiles=True, log_traces_from_compile=True)
    go = threading.Barrier(5)

    def run(optimize: Optimize) -> None:
        go.wait(30)
        with dspy.context(lm=lm):
            optimize(lm)

    def live(lm: Any) -> None:
        for index in range(10):
            QA()(question=f"live {index}")

    kinds = [gepa, mipro_minibatch, random_search, random_search, live]
    threads = [threading.Thread(target=run, args=(one,)) for one in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = runs(kept)
    dspy_trace.autolog(disable=True)
    whole = {run.id: run for run in told if run.parent is None}
    assert Counter(run.params["optimizer"] for run in whole.values()) == Counter(
        ["GEPA", "MIPROv2", "BootstrapFewShotWithRandomSearch", "BootstrapFewShotWithRandomSearch"]
    )
    for run in whole.values():
        children = [one for one in told if one.parent == run.id]
        scores = [score for name in ("eval", "eval_full") for _, score in run.metrics.get(name, ())]
        full = [one.last("eval") for one in children if one.params["metric_key"] != "eval_minibatch"]
        assert sorted(scores) == sorted(full)
    linked = Counter(trace for run in told for trace in run.traces)
    assert set(linked.values()) == {1}
    roots = {f"tr-{row['trace_id']}": row for row in kept.rows() if row["root"]}
    lives = {name for name, row in roots.items() if "live" in str(row["attributes"].get("mlflow.spanInputs"))}
    assert len(lives) == 10
    assert lives.isdisjoint(linked)
    assert roots.keys() - lives == linked.keys()


def test_an_inference_is_no_compile(logged: Kept, lm: Any) -> None:
    """KNNFewShot compiles at each call of its program: that makes no run."""
    with dspy.context(lm=lm):
        program = knn(lm)
        program(question="six")
        program(question="seven")
    assert tree(runs(logged)) == "\ncompile KNNFewShot\n"

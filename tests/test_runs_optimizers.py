"""Each optimizer of DSPy's under ``log_compiles``: that it finds what it finds unlogged, and what its run says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import dspy
import pytest

import dspy_trace
from tests.optimizers import (
    ALL,
    Optimize,
    answer,
    better_together,
    better_together_weights,
    bootstrap,
    compiled,
    copro,
    ensemble,
    finetune,
    gepa,
    grpo,
    infer_rules,
    knn,
    labeled,
    lm,
    logged,
    mipro_minibatch,
    random_search,
    reanchor,
    simba,
    with_optuna,
)
from tests.outlets import Kept, kept
from tests.parts.scripted_answers import fill, output_fields
from tests.parts.scripted_lm import ScriptedLM
from tests.runs import exact, tree

__all__ = ["kept", "lm", "logged"]


def bodies(server: ScriptedLM, since: int) -> Counter[str]:
    return Counter(json.dumps(request.body, sort_keys=True) for request in server.requests[since:])


SEEDED = [optimize for optimize in ALL if optimize is not with_optuna]
"""Optuna's own sampler cannot be given a seed through DSPy."""


@pytest.mark.parametrize("optimize", SEEDED, ids=lambda one: one.__name__)
def test_logging_changes_nothing(scripted_lm: ScriptedLM, lm: Any, kept: Kept, optimize: Optimize) -> None:
    """The compiled program, and the multiset of LM requests, are those of a compile that is not logged."""
    with dspy.context(lm=lm):
        plain = optimize(lm)
        before = len(scripted_lm.requests)
        dspy_trace.autolog(log_compiles=True, log_evals=True)
        logged = optimize(lm)
        dspy_trace.autolog(disable=True)
    wanted = Counter(json.dumps(request.body, sort_keys=True) for request in scripted_lm.requests[:before])
    assert bodies(scripted_lm, before) == wanted
    assert type(logged).__qualname__ == type(plain).__qualname__
    assert json.dumps(logged.dump_state(), default=str) == json.dumps(plain.dump_state(), default=str)


SERIES = ("eval", "eval_full", "eval_minibatch", "eval_val")


@pytest.mark.parametrize("optimize", ALL, ids=lambda one: one.__name__)
def test_every_optimizer_is_a_run(logged: Kept, lm: Any, scripted_lm: ScriptedLM, optimize: Optimize) -> None:
    """One run with its settings, data, programs and costs; each evaluation with a score is its child."""
    told = compiled(logged, lm, optimize)
    (whole,) = [run for run in told if run.parent is None]
    assert {run.parent for run in told} == {None, whole.id} or len(told) == 1
    assert (whole.kind, whole.status, whole.name) == ("compile", "FINISHED", f"compile {whole.params['optimizer']}")
    assert whole.last("usage_lm_calls") == scripted_lm.reported.requests
    assert whole.last("usage_input_tokens") == scripted_lm.reported.input_tokens
    if optimize is not ensemble:
        assert whole.params["program"] == ("Triage" if optimize is reanchor else "QA")
        assert {"programs/initial.json", "programs/final.json"} <= whole.files.keys()
    assert {one["name"] for one in whole.data} == {name for name in ("trainset", "valset") if name in whole.params}
    children = [run for run in told if run.parent]
    series = {name: values for name, values in whole.metrics.items() if name in SERIES}
    scores = [score for values in series.values() for _, score in values]
    if optimize not in (gepa, simba, reanchor):
        assert sorted(scores) == sorted(run.last("eval") for run in children)
    assert whole.last("evaluations") == len(scores)
    assert all([step for step, _ in values] == list(range(len(values))) for values in series.values())


@dataclass
class Found:
    """What the run of a compile says.

    Attributes:
        params: some of its parameters, those of the optimizer and of the call.
        series: scores of each series, in the order of its steps from 0.
        best: best score so far, whenever one was compared.
        ends: baseline, best and final score.
        candidates: of each, what it was made from, its score and demos, and the model that it has itself.
        children: scores of the child runs, where those are not the series.
    """

    params: dict[str, str]
    series: dict[str, Sequence[float]] = field(default_factory=dict)
    best: Sequence[float] = field(default_factory=list)
    ends: tuple[float | None, float | None, float | None] = (None, None, None)
    candidates: list[tuple[Any, ...]] = field(default_factory=list)
    children: Sequence[float] | None = None


MINI, TUNED = "openai/gpt-4o-mini", "openai/gpt-4o-mini-proposed"

FOUND: dict[Optimize, Found] = {
    labeled: Found({"optimizer.k": "1", "compile.sample": "True"}, candidates=[(None, None, 0), ("0", None, 1)]),
    bootstrap: Found({"optimizer.max_rounds": "1"}, candidates=[(None, None, 0), ("0", None, 2)]),
    copro: Found(
        {"optimizer.breadth": "2", "compile.eval_kwargs": '{"num_threads":1,"display_progress":false}'},
        {"eval": [100, 50]}, [100, 100], (50, 100, 100), [(None, 50, 0), ("0", 100, 0)],
    ),
    infer_rules: Found(
        {"optimizer.num_rules": "1"}, {"eval": [66.67]}, [66.67], (None, 66.67, 66.67),
        [(None, None, 0), ("0", 66.67, 2)],
    ),
    better_together: Found(
        {"compile.strategy": "p", "compile.seed": "1"}, {"eval_full": [66.67] * 2}, [66.67] * 2, (66.67, 66.67, 66.67),
        [(None, 66.67, 0, MINI), (None, 66.67, 2, MINI)],
    ),
    better_together_weights: Found(
        {"compile.strategy": "p -> w"}, {"eval_full": [66.67, 66.67, 100], "eval": [50]}, [66.67, 66.67, 100],
        (66.67, 100, 100), [(None, 66.67, 0, MINI), (None, 66.67, 2, MINI), (None, 100, 2, TUNED)],
    ),
    finetune: Found(
        {"optimizer.multitask": "True"}, {"eval": [50]}, [50], (50, 50, None),
        [(None, 50, 0, MINI), ("0", None, 0, TUNED)],
    ),
    grpo: Found(
        {"optimizer.num_train_steps": "2"}, {"eval": [66.67, 100, 100, 100, 100]}, [66.67, 100, 100], (66.67, 100, 100),
        [(None, 66.67, 0, MINI), ("0", 100, 0, TUNED)],
    ),
    reanchor: Found(
        {"optimizer.require_cache": "False"}, {"eval_full": [50] * 5 + [100, 50, 100], "eval_val": [50, 100]},
        [50] * 5 + [100] * 3, (50, 100, 100),
        [(None, 50, 0), ("0", 50, 0), ("0", 50, 0), ("0", 100, 0), ("0", 50, 0)], [],
    ),
    knn: Found({}, candidates=[(None, None, 0)]),
    ensemble: Found({"compile.programs": '["QA","QA"]'}, candidates=[(None, None, 0)]),
}  # fmt: skip
"""Optimizers of which there is no test of their own below."""


@pytest.mark.parametrize("optimize", FOUND, ids=lambda one: one.__name__)
def test_what_a_run_says(logged: Kept, lm: Any, optimize: Optimize) -> None:
    """Tree, settings, scores with their steps, best so far, candidates, programs: all that there was, and no more."""
    wanted = FOUND[optimize]
    whole, *children = compiled(logged, lm, optimize)
    assert wanted.params.items() <= whole.params.items()
    assert {name: whole.metrics[name] for name in wanted.series} == {
        name: list(enumerate(scores)) for name, scores in wanted.series.items()
    }
    assert whole.metrics.get("best", []) == list(enumerate(wanted.best))
    assert (whole.last("baseline"), whole.last("best"), whole.last("final")) == wanted.ends
    scores = [score for series in wanted.series.values() for score in series]
    assert sorted(run.last("eval") for run in children) == sorted(
        scores if wanted.children is None else wanted.children
    )
    rows = [(row["parents"], row["score"], row["demos"], row["model"]) for row in whole.table("candidates")]
    assert rows == [(*one, None) if len(one) == 3 else one for one in wanted.candidates]
    bettered = {score: number for number, score in reversed(list(enumerate(wanted.best)))}
    assert len([name for name in whole.files if name.startswith("programs/candidate_")]) == len(bettered)
    assert ("programs/best.json" in whole.files) == bool(bettered)


def test_optuna(logged: Kept, lm: Any) -> None:
    """Its sampler may choose the same demos twice: the trials are all there, each program once."""
    whole, *children = compiled(logged, lm, with_optuna)
    assert whole.params["compile.max_demos"] == "1"
    assert whole.metrics["eval"] == whole.metrics["best"] == [(0, 66.67), (1, 66.67)]
    assert (whole.last("baseline"), whole.last("final"), len(children)) == (None, 66.67, 2)
    first, *tried = whole.table("candidates")
    assert (first["score"], sum(row["evaluations"] for row in tried)) == (None, 2)
    assert [(row["parents"], row["score"], row["demos"]) for row in tried] == [("0", 66.67, 1)] * len(tried)


def test_decisions_that_were_fitted(logged: Kept, lm: Any) -> None:
    """Of each candidate of ReAnchor's, how it reads the probabilities, which is all that is new of it."""
    whole = compiled(logged, lm, reanchor)[0]
    fitted = [row["decisions"] for row in whole.table("candidates")]
    assert fitted[0] is None
    assert len(set(fitted)) == 5
    assert json.loads(fitted[3]) == {"ask": {"urgent": {"threshold": 0.2}}}
    assert len(whole.table("rollouts")) == whole.last("usage_lm_calls")
    assert {row["candidate"] for row in whole.table("rollouts")} == set(range(5))


def test_an_optimizer_that_dspy_cannot_make() -> None:
    """``AvatarOptimizer`` asks for ``dspy.TypedPredictor``, which DSPy 3 has no more: nobody can compile with it."""
    with pytest.raises(AttributeError, match="TypedPredictor"):
        dspy.AvatarOptimizer(metric=exact)


def test_a_random_search(logged: Kept, lm: Any) -> None:
    """Baseline, best so far and final; each candidate once, with what it was made from."""
    told = compiled(logged, lm, random_search)
    assert tree(told) == "\ncompile BootstrapFewShotWithRandomSearch 66.67\n" + "".join(
        f"  evaluate candidate {number} 66.67\n" for number in (0, 1, 2, 2)
    )
    whole = told[0]
    assert whole.metrics["eval"] == [(step, 66.67) for step in range(4)]
    assert (whole.last("baseline"), whole.last("best"), whole.last("final")) == (66.67, 66.67, 66.67)
    rows = whole.table("candidates")
    assert [row["parents"] for row in rows] == [None, *["0"] * (len(rows) - 1)]
    assert sum(row["evaluations"] for row in rows) == 4
    assert {row["score"] for row in rows} == {66.67}
    assert whole.params["optimizer.max_labeled_demos"] == "1"


def test_mipro_with_minibatches(logged: Kept, lm: Any) -> None:
    """Steps are per series; the best is of full evaluations; trials tell what was chosen."""
    told = compiled(logged, lm, mipro_minibatch)
    whole = told[0]
    assert whole.metrics["eval_full"] == [(0, 66.67), (1, 100.0), (2, 100.0)]
    assert whole.metrics["eval_minibatch"] == [(0, 100.0), (1, 100.0), (2, 100.0)]
    assert (whole.metrics["baseline"], whole.metrics["final"]) == ([(0, 66.67)], [(0, 100.0)])
    assert whole.metrics["best"] == [(0, 66.67), (1, 100.0), (2, 100.0)]
    assert Counter(run.params["metric_key"] for run in told[1:]) == {"eval_full": 3, "eval_minibatch": 3}
    rows = whole.table("candidates")
    assert [(row["id"], row["parents"], row["score"]) for row in rows][:2] == [(0, None, 66.67), (1, "0", 100.0)]
    assert rows[1]["instructions"].startswith("proposed_instruction")
    assert [row["trial"] for row in whole.table("trials")] == [1, 2, 3, 4, 5, 6]
    note = whole.tags["mlflow.note.content"]
    head, ranking, cost = note.split("\n\n")
    found, _, best = head.partition("\n")
    assert found == (
        "**MIPROv2** on `QA`: baseline **66.67** → best **100** → final **100** (metric `exact`, finished). "
        "Best: candidate 1, 0 demos:"
    )
    assert best.startswith("> proposed_instruction")
    assert ranking.splitlines()[2].startswith("| 1 | 100 | 100 |")
    assert cost.startswith("6 evaluations of ")
    note = told[1].tags["mlflow.note.content"]
    assert note.startswith(
        "**66.67** on 3 examples by metric `exact`, 0 failed: candidate 0 of `QA`, 0 demos:\n> Given"
    )
    assert (
        whole.files["programs/best.json"] == whole.files["programs/final.json"] != whole.files["programs/initial.json"]
    )


def test_gepa(logged: Kept, lm: Any, scripted_lm: ScriptedLM) -> None:
    """Candidates with their parents and how many examples they are best on; minibatches are rows, with feedback."""
    scripted_lm.answer = lambda body: (
        answer(body) if "answer" in output_fields(body) else fill(body, new_instruction="proposed by GEPA")
    )
    told = compiled(logged, lm, gepa)
    whole = told[0]
    assert tree(told) == "\ncompile GEPA 100\n  evaluate candidate 0 66.67\n  evaluate candidate 1 100\n"
    assert whole.metrics["eval_full"] == whole.metrics["best"] == [(0, 66.67), (1, 100.0)]
    first, second = whole.table("candidates")
    assert (first["parents"], first["score"], first["best_on_examples"]) == (None, 66.67, 2)
    assert (second["parents"], second["score"], second["best_on_examples"]) == ("0", 100.0, 3)
    assert second["instructions"] == "proposed by GEPA"
    assert second["minibatch_score"] == 100.0
    rows = whole.table("minibatches")
    assert len(rows) == 2 * len(whole.metrics["eval_minibatch"])
    assert {row["feedback"] for row in rows} == {"wanted yes", "wanted no"}
    assert {row["candidate"] for row in rows} == {0, 1}


def test_what_gepa_gives_up(logged: Kept, lm: Any, scripted_lm: ScriptedLM) -> None:
    """A candidate that is no better on its minibatch has its parents, too, and its texts; it gets no further."""
    scripted_lm.answer = lambda body: (
        answer(body) if "answer" in output_fields(body) else fill(body, new_instruction="worse than before")
    )
    whole = compiled(logged, lm, gepa)[0]
    first, *others = whole.table("candidates")
    assert (first["score"], whole.last("best")) == (66.67, 66.67)
    assert [(one["parents"], one["score"], one["instructions"]) for one in others] == [("0", None, "worse than before")]
    assert (others[0]["minibatch_score"], others[0]["evaluations"]) == (50.0, 3)


def test_simba(logged: Kept, lm: Any) -> None:
    """Rollouts that it runs itself are rows, and score the candidates in them, a round at a time."""
    told = compiled(logged, lm, simba)
    assert tree(told) == "\ncompile SIMBA 50\n"
    assert len(told[0].table("rollouts")) == told[0].last("usage_lm_calls")
    assert told[0].metrics["eval_full"][0] == (0, 50.0)

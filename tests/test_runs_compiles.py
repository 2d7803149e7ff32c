"""``log_compiles``: each optimizer's compile is a run, with every evaluation in it a child or a step."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import dspy
import pytest
from dspy.teleprompt import InferRules

import dspy_trace
from tests.outlets import Kept, kept
from tests.parts.scripted_answers import fill, input_words, output_fields
from tests.parts.scripted_lm import ScriptedLM
from tests.runs import QA, Told, exact, example, runs, tree

__all__ = ["kept"]

TRAINSET = [example("one", "yes"), example("two", "no")]
VALSET = [example("three", "yes"), example("four", "no"), example("five", "yes")]
QUIET = {"num_threads": 1, "display_progress": False}

Optimize = Callable[[Any], Any]


def answer(body: Any) -> str:
    """Say yes; where an instruction that an optimizer has proposed asks for it, the right thing."""
    fields = output_fields(body)
    if "answer" not in fields:
        return fill(body)
    words = input_words(body)
    return fill(body, answer="no" if ("two" in words or "four" in words) and "proposed" in str(body) else "yes")


def with_feedback(gold: Any, predicted: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
    return dspy.Prediction(score=float(gold.answer == predicted.answer), feedback=f"wanted {gold.answer}")


def labeled(lm: Any) -> Any:
    return dspy.LabeledFewShot(k=1).compile(QA(), trainset=TRAINSET)


def bootstrap(lm: Any) -> Any:
    return dspy.BootstrapFewShot(metric=exact, max_bootstrapped_demos=1).compile(QA(), trainset=TRAINSET)


def random_search(lm: Any) -> Any:
    options: dict[str, Any] = {"max_bootstrapped_demos": 1, "max_labeled_demos": 1, "num_threads": 1}
    optimizer = dspy.BootstrapFewShotWithRandomSearch(metric=exact, num_candidate_programs=1, **options)
    return optimizer.compile(QA(), trainset=TRAINSET, valset=VALSET)


def with_optuna(lm: Any) -> Any:
    optimizer = dspy.teleprompt.BootstrapFewShotWithOptuna(
        metric=exact, max_bootstrapped_demos=1, num_candidate_programs=2, num_threads=1
    )
    return optimizer.compile(QA(), max_demos=1, trainset=TRAINSET, valset=VALSET)


def copro(lm: Any) -> Any:
    return dspy.COPRO(metric=exact, breadth=2, depth=1).compile(QA(), trainset=TRAINSET, eval_kwargs=QUIET)


def mipro(lm: Any, minibatch: bool = False) -> Any:
    optimizer = dspy.MIPROv2(
        metric=exact, auto=None, num_candidates=2, num_threads=1, max_bootstrapped_demos=1, max_labeled_demos=1
    )
    return optimizer.compile(
        QA(), trainset=TRAINSET, valset=VALSET, num_trials=3, minibatch=minibatch, minibatch_size=2,
        minibatch_full_eval_steps=2,
    )  # fmt: skip


def mipro_minibatch(lm: Any) -> Any:
    return mipro(lm, minibatch=True)


def gepa(lm: Any) -> Any:
    optimizer = dspy.GEPA(
        metric=with_feedback, max_metric_calls=14, reflection_lm=lm, num_threads=1, reflection_minibatch_size=2
    )
    return optimizer.compile(QA(), trainset=TRAINSET, valset=VALSET)


def simba(lm: Any) -> Any:
    optimizer = dspy.SIMBA(metric=exact, bsize=2, num_candidates=2, max_steps=1, max_demos=1, num_threads=1)
    return optimizer.compile(QA(), trainset=TRAINSET, seed=1)


def infer_rules(lm: Any) -> Any:
    optimizer = InferRules(metric=exact, num_candidates=1, num_rules=1, num_threads=1, max_bootstrapped_demos=1)
    return optimizer.compile(QA(), trainset=TRAINSET, valset=VALSET)


def better_together(lm: Any) -> Any:
    both = dspy.BetterTogether(metric=exact, p=dspy.BootstrapFewShot(metric=exact, max_bootstrapped_demos=1))
    student = QA()
    student.set_lm(lm)
    return both.compile(student, trainset=TRAINSET, valset=VALSET, strategy="p", seed=1)


def knn(lm: Any) -> Any:
    def embed(texts: Any) -> Any:
        import numpy

        return numpy.array([[float(len(text)), 1.0] for text in texts])

    return dspy.KNNFewShot(k=1, trainset=TRAINSET, vectorizer=dspy.Embedder(embed)).compile(QA())


def ensemble(lm: Any) -> Any:
    return dspy.teleprompt.Ensemble(reduce_fn=dspy.majority).compile([QA(), QA()])


ALL = (
    [labeled, bootstrap, random_search, with_optuna, copro, mipro, mipro_minibatch, gepa, simba, infer_rules]
    + [better_together, knn, ensemble]
)  # fmt: skip


@pytest.fixture
def lm(scripted_lm: ScriptedLM) -> Any:
    scripted_lm.answer = answer
    return scripted_lm.lm(cache=False)


@pytest.fixture
def logged(kept: Kept) -> Iterator[Kept]:
    """Log compiles, and stop at the end."""
    dspy_trace.autolog(log_compiles=True)
    yield kept
    dspy_trace.autolog(disable=True)


def compiled(kept: Kept, lm: Any, optimize: Optimize) -> list[Told]:
    with dspy.context(lm=lm):
        optimize(lm)
    return runs(kept)


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


@pytest.mark.parametrize("optimize", ALL, ids=lambda one: one.__name__)
def test_every_optimizer_is_a_run(logged: Kept, lm: Any, scripted_lm: ScriptedLM, optimize: Optimize) -> None:
    """One run with its settings, data, programs and costs; each evaluation with a score is its child."""
    told = compiled(logged, lm, optimize)
    (whole,) = [run for run in told if run.parent is None]
    assert {run.parent for run in told} == {None, whole.id} or len(told) == 1
    assert (whole.kind, whole.status, whole.name) == ("compile", "FINISHED", f"compile {whole.params['optimizer']}")
    assert whole.last("lm_calls") == scripted_lm.reported.requests
    assert whole.last("input_tokens") == scripted_lm.reported.input_tokens
    if optimize is not ensemble:
        assert whole.params["program"] == "QA"
        assert {"programs/initial.json", "programs/final.json"} <= whole.files.keys()
    assert {one["name"] for one in whole.data} == {name for name in ("trainset", "valset") if name in whole.params}
    children = [run for run in told if run.parent]
    series = {name: values for name, values in whole.metrics.items() if name in ("eval", "eval_full", "eval_minibatch")}
    scores = [score for values in series.values() for _, score in values]
    if optimize is not gepa and optimize is not simba:
        assert sorted(scores) == sorted(run.last("eval") for run in children)
    assert whole.last("evaluations") == len(scores)
    assert all([step for step, _ in values] == list(range(len(values))) for values in series.values())


def test_a_random_search(logged: Kept, lm: Any) -> None:
    """Baseline, best so far and final; each candidate once, with what it was made from."""
    told = compiled(logged, lm, random_search)
    assert tree(told) == ("\ncompile BootstrapFewShotWithRandomSearch 66.67\n" + "  evaluate QA 66.67\n" * 4)
    whole = told[0]
    assert whole.metrics["eval"] == [(step, 66.67) for step in range(4)]
    assert (whole.last("baseline"), whole.last("best"), whole.last("final")) == (66.67, 66.67, 66.67)
    rows = whole.table("candidates")
    assert [(row["id"], row["parents"], row["score"], row["demos"]) for row in rows][0] == (0, None, 66.67, 0)
    assert {row["parents"] for row in rows[1:]} == {"0"}
    assert sum(row["evaluations"] for row in rows) == 4
    assert (
        whole.params["optimizer.max_bootstrapped_demos"] == "1"
        if "optimizer.max_bootstrapped_demos" in whole.params
        else True
    )

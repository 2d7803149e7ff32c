"""Optimizers, each on the same program and sets, and the LM that they ask: what tests of compiles share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import dspy
import pytest
from dspy.adapters.types.decision import Noul
from dspy.clients.provider import Provider, ReinforceJob
from dspy.teleprompt import InferRules, Teleprompter
from dspy.teleprompt.grpo import GRPO
from dspy.teleprompt.reanchor import ReAnchor

import dspy_trace
from tests.outlets import Kept
from tests.parts.scripted_answers import fill, input_words, output_fields
from tests.parts.scripted_lm import ScriptedLM
from tests.runs import QA, Told, exact, example, runs

TRAINSET = [example("one", "yes"), example("two", "no")]
VALSET = [example("three", "yes"), example("four", "no"), example("five", "yes")]
QUIET = {"num_threads": 1, "display_progress": False}

Optimize = Callable[[Any], Any]


def answer(body: Any) -> str:
    """Say yes; where an instruction that an optimizer has proposed asks for it, the right thing."""
    fields = output_fields(body)
    if "urgent" in fields:
        return fill(body, urgent={"noul": 0.4 if "fire" in input_words(body) else 0.1})
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


def gepa(lm: Any, **more: Any) -> Any:
    optimizer = dspy.GEPA(
        metric=with_feedback, max_metric_calls=14, reflection_lm=lm, num_threads=1, reflection_minibatch_size=2, **more
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


class LocalProvider(Provider):
    """Trains on this machine, by DSPy's own interface: the model that comes out is the same under another name."""

    def __init__(self) -> None:
        super().__init__()
        self.finetunable = self.reinforceable = True
        self.ReinforceJob = LocalJob

    @staticmethod
    def finetune(job: Any, model: str, train_data: Any, train_data_format: Any, train_kwargs: Any = None) -> str:
        assert train_data
        return f"{model}-proposed"


class LocalJob(ReinforceJob):
    """Has a batch done at each step, after which the LM is another."""

    def initialize(self) -> None:
        self.batch = 0

    def get_status(self) -> Any:
        return {"pending_batch_ids": [self.batch]}

    def step(self, train_data: Any, train_data_format: Any = None) -> None:
        self.batch += 1
        self.lm.model = f"{self.lm.model.removesuffix('-proposed')}-proposed"

    def terminate(self) -> None:
        self.batch = 0


def trainable(lm: Any) -> Any:
    """Return the program with an LM of its own that can be trained."""
    student, own = QA(), lm.copy()
    own.provider = LocalProvider()
    student.set_lm(own)
    return student


def finetune(lm: Any) -> Any:
    return dspy.BootstrapFinetune(metric=exact, num_threads=1).compile(trainable(lm), trainset=TRAINSET)


def better_together_weights(lm: Any) -> Any:
    weights = dspy.BootstrapFinetune(metric=exact, num_threads=1)
    both = dspy.BetterTogether(metric=exact, p=dspy.BootstrapFewShot(metric=exact, max_bootstrapped_demos=1), w=weights)
    return both.compile(trainable(lm), trainset=TRAINSET, valset=VALSET, strategy="p -> w", seed=1)


def grpo(lm: Any) -> Any:
    optimizer = GRPO(
        metric=exact, adapter=dspy.ChatAdapter(), exclude_demos=True, num_threads=1, num_train_steps=2,
        num_rollouts_per_grpo_step=2, num_steps_for_val=1,
    )  # fmt: skip
    return optimizer.compile(trainable(lm), trainset=TRAINSET, valset=VALSET)


class Urgent(dspy.Signature):
    """Say whether it is urgent."""

    question: str = dspy.InputField()
    urgent: Noul = dspy.OutputField(desc="whether it is urgent")


class Triage(dspy.Module):
    """A program with a decision in it."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict(Urgent)

    def forward(self, question: str) -> Any:
        return self.ask(question=question)


def agrees(gold: Any, predicted: Any, trace: Any = None) -> bool:
    return bool(gold.answer == predicted.urgent.value)


def reanchor(lm: Any) -> Any:
    trainset = [example(f"{word} {number}", word == "fire") for number in range(5) for word in ("fire", "chat")]
    valset = [example("fire now", True), example("chat now", False)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = ReAnchor(agrees, num_threads=1, require_cache=False)
        return optimizer.compile(Triage(), trainset=trainset, valset=valset)


def knn(lm: Any) -> Any:
    def embed(texts: Any) -> Any:
        import numpy

        return numpy.array([[float(len(text)), 1.0] for text in texts])

    return dspy.KNNFewShot(k=1, trainset=TRAINSET, vectorizer=dspy.Embedder(embed)).compile(QA())


def ensemble(lm: Any) -> Any:
    return dspy.teleprompt.Ensemble(reduce_fn=dspy.majority).compile([QA(), QA()])


class Own(Teleprompter):
    """A user's own optimizer."""

    def __init__(self, metric: Any, api_key: str = "", **more: Any) -> None:
        super().__init__()
        self.metric, self.api_key, self.more = metric, api_key, more
        self.odd = object()

    def compile(self, student: Any, *, trainset: Any, **kwargs: Any) -> Any:
        evaluate = dspy.Evaluate(devset=trainset, metric=self.metric, **QUIET)
        evaluate(student)
        if kwargs.get("error") is not None:
            raise kwargs["error"]
        better = student.deepcopy()
        better.ask.signature = better.ask.signature.with_instructions("proposed by hand")
        evaluate(better, callback_metadata={"metric_key": "hand made/é"})
        return better


class Refuses(QA):
    def forward(self, question: str) -> Any:
        raise ValueError("cannot answer")


ALL = [
    *(labeled, bootstrap, random_search, with_optuna, copro, mipro, mipro_minibatch, gepa, simba, infer_rules),
    *(better_together, better_together_weights, finetune, grpo, reanchor, knn, ensemble),
]


@pytest.fixture
def lm(scripted_lm: ScriptedLM) -> Any:
    scripted_lm.answer = answer
    return scripted_lm.lm(cache=False)


@pytest.fixture
def logged(kept: Kept) -> Iterator[Kept]:
    """Log compiles, and what comes of them, and stop at the end."""
    dspy_trace.autolog(log_compiles=True, log_models=True)
    yield kept
    dspy_trace.autolog(disable=True)


def compiled(kept: Kept, lm: Any, optimize: Optimize, models: int = 1) -> list[Told]:
    """Return the runs of a compile, which has the model that came of it."""
    with dspy.context(lm=lm):
        optimize(lm)
    told = runs(kept)
    assert [len(run.models) for run in told] == [models * (run.kind == "compile") for run in told]
    return told

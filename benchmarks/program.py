"""The program that is measured: a module that holds a ``ChainOfThought``, on DSPy's scripted LM."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import dspy
from dspy.utils import DummyLM

QUESTION = "Which of the two towers was finished first, and by how many years?"
ANSWER = {"reasoning": "The northern tower is the older one. " * 4, "answer": "The northern one, by 12 years."}


class QA(dspy.Module):
    """Answers a question."""

    def __init__(self) -> None:
        super().__init__()
        self.generate = dspy.ChainOfThought("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.generate(question=question)


def scripted(lm: DummyLM) -> DummyLM:
    """Return `lm` with an endless script."""
    lm.answers = itertools.repeat(ANSWER)
    return lm


def make() -> Callable[[], object]:
    """Return the call to measure."""
    qa, lm = QA(), scripted(DummyLM([]))

    def call() -> object:
        with dspy.context(lm=lm, disable_history=True):
            return qa(question=QUESTION)

    return call

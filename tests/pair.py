"""A program of five spans, which can do something of a test's in the middle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dspy

from tests.outlets import dummy

SECRET = "canary-of-the-prompt"

PAIR = ["invoke_workflow Pair", "Predict first", "chat dummy", "Predict second", "chat dummy"]

TREE = """
> invoke_workflow Pair
  Predict first
    chat dummy
  Predict second
    chat dummy
"""


class Pair(dspy.Module):
    """Asks twice, and does something of the test's in between."""

    def __init__(self, between: Callable[[], Any] = lambda: None) -> None:
        super().__init__()
        self.first = dspy.Predict("question -> answer")
        self.second = dspy.Predict("question -> answer")
        self.between = between

    def forward(self, question: str) -> dspy.Prediction:
        self.first(question=question)
        self.between()
        return self.second(question=question)


def call(between: Callable[[], Any] = lambda: None) -> None:
    """Make one call of five spans."""
    with dspy.context(lm=dummy([SECRET])):
        assert Pair(between)(question=SECRET).answer == SECRET

"""A small application with no line of tracing in it. Tests copy it beside a script that imports it as ``desk``.

It looks a question up, calls a tool and answers. Its LM is the scripted one that ``DESK_LM`` names.
"""

from __future__ import annotations

import os
from typing import Any

import dspy

QUESTION = "When is my parcel here?"

TREE = """
invoke_workflow Desk
  retrieval Handbook
  execute_tool opening_hours
  ChainOfThought reply
    Predict reply.predict
      chat gpt-4o-mini
"""

PASSAGES = ["Parcels arrive within two days.", "A lamp can be returned."]

HOURS = "Monday: nine to five"

SPANS = 6
"""Spans of one question."""


class Handbook(dspy.Retrieve):
    """Find what the handbook says."""

    def forward(self, query: str, k: int | None = None, **_: Any) -> dspy.Prediction:
        """Return the same sentences, whatever is asked."""
        return dspy.Prediction(passages=PASSAGES[: k or self.k])


def opening_hours(day: str) -> str:
    """Return when the desk is open."""
    return f"{day}: nine to five"


class Desk(dspy.Module):
    """Answer a question."""

    def __init__(self) -> None:
        super().__init__()
        self.handbook = Handbook(k=2)
        self.hours = dspy.Tool(opening_hours)
        self.reply = dspy.ChainOfThought("context: list[str], hours, question -> answer")

    def forward(self, question: str) -> Any:
        """Return the `answer`."""
        found: Any = self.handbook(question)
        return self.reply(context=found.passages, hours=self.hours(day="Monday"), question=question)


def lm() -> dspy.LM:
    """Make the LM, uncached."""
    return dspy.LM("openai/gpt-4o-mini", api_base=os.environ["DESK_LM"], api_key="scripted-key", cache=False)


def ask(question: str = QUESTION) -> str:
    """Ask the desk a question."""
    with dspy.context(lm=lm()):
        return str(Desk()(question=question).answer)

"""Programs as users write them, which the tests save: types of their own, tools, several predictors, demos."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Literal, Optional

import dspy
import pydantic


class Urgency(enum.Enum):
    """How soon."""

    LOW = "low"
    HIGH = "high"


class Person(pydantic.BaseModel):
    """Who asks."""

    name: str
    age: Optional[int] = None  # noqa: UP045  # as people write it


class Triage(dspy.Signature):
    """Sort a letter."""

    letter: str = dspy.InputField(desc="what was written")
    sender: Person = dspy.InputField()
    kind: Literal["praise", "complaint"] = dspy.OutputField(desc="praise or complaint")
    urgency: Urgency = dspy.OutputField()
    tags: list[str] = dspy.OutputField()


def look_up(name: str, limit: int = 3) -> str:
    """Return what is known of somebody."""
    return f"{name}: {limit} letters"


def adder(amount: int) -> Callable[[int], int]:
    """Return a function that closes over a value."""

    def add(number: int) -> int:
        return number + amount

    return add


class Bureau(dspy.Module):
    """Sort a letter, then answer it."""

    def __init__(self, tone: str = "kind", rounds: int = 1) -> None:
        super().__init__()
        self.tone = tone
        self.rounds = rounds
        self.add = adder(rounds)
        self.sizes = {1: (1, 2), "two": {3}}
        self.triage = dspy.Predict(Triage, temperature=0.5)
        self.answers = [dspy.ChainOfThought("letter, kind, tone -> answer")]
        self.again = self.triage

    def forward(self, letter: str, sender: Person) -> Any:
        """Return the `answer`."""
        sorted_ = self.triage(letter=letter, sender=sender)
        return self.answers[0](letter=letter, kind=sorted_.kind, tone=f"{self.tone} {self.add(0)}")


def compiled() -> Bureau:
    """Return a program as an optimizer leaves it: other instructions, demos."""
    program = Bureau("stern", 2)
    program.triage.signature = program.triage.signature.with_instructions("Sort the letter with care.")
    program.triage.demos = [
        dspy.Example(
            letter="Thank you!", sender=Person(name="Ada"), kind="praise", urgency=Urgency.LOW, tags=["thanks"]
        )
    ]
    program.answers[0].predict.demos = [
        {"letter": "Oh", "kind": "praise", "tone": "kind", "answer": "Dear", "reasoning": "so"}
    ]
    return program


LETTER = {"letter": "My lamp is broken.", "sender": Person(name="Bo", age=40)}


class Echo(dspy.Module):
    """Answer without an LM, fail where it is told to."""

    def forward(self, text: str, times: int = 1) -> Any:
        """Return the text, or raise."""
        if text == "fail":
            raise RuntimeError("told to fail")
        return dspy.Prediction(echo=text * times, length=len(text))


class Later(dspy.Module):
    """Answer, but only asynchronously."""

    async def aforward(self, text: str) -> Any:
        """Return the text."""
        return dspy.Prediction(echo=text)


class Talk(dspy.Module):
    """Go on with a conversation."""

    def __init__(self) -> None:
        super().__init__()
        self.reply = dspy.Predict("history: dspy.History, question -> mood, answer")

    def forward(self, question: str, history: dspy.History) -> Any:
        """Return the `answer`."""
        return self.reply(question=question, history=history)


class Messages(dspy.Module):
    """Take a conversation as it is."""

    def forward(self, messages: list[dict[str, Any]]) -> Any:
        """Return how long it is."""
        return {"role": "assistant", "content": f"{len(messages)} messages"}

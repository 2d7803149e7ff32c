"""The version of a program: the same for equal programs in every process, another one after every change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.utils import DummyLM

from tests.balanced import balanced


def lm() -> DummyLM:
    return DummyLM([{"answer": str(index), "reasoning": "so"} for index in range(100)])


class QA(dspy.Signature):
    """Answer shortly."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="one word")


def version(program: dspy.Module, calls: int = 1) -> str:
    """Return the version that the trace of a call tells, which is the same for several calls."""
    with balanced() as trace, dspy.context(lm=lm()):
        for _ in range(calls):
            program()
    (told,) = {span.attributes["dspy.program.version"] for span in trace.spans if span.parent is None}
    assert len(told) == 16
    assert int(told, 16) >= 0
    return told


class Answers(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.think = dspy.ChainOfThought(QA)
        self.ask = dspy.Predict(QA)

    def forward(self) -> Any:
        return self.ask(question=self.think(question="?").answer)


def test_the_version_stands_on_the_outermost_module_alone() -> None:
    """Of what version a program is, is said once."""
    with balanced() as trace, dspy.context(lm=lm()):
        Answers()()
    told = [span.name for span in trace.spans if "dspy.program.version" in span.attributes]
    assert told == ["invoke_workflow Answers"]


def test_equal_programs_are_of_one_version() -> None:
    """Made twice, copied, or saved and loaded, called once or often: history is no part of it, nor is the LM."""
    program = Answers()
    first = version(program)
    assert version(program, calls=3) == first == version(Answers()) == version(program.deepcopy())
    loaded = Answers()
    loaded.load_state(program.dump_state())
    assert version(loaded) == first
    program.set_lm(lm())
    assert version(program) == first


PROCESS = """
import sys
sys.path.insert(0, {root!r})
from tests.test_program_versions import Answers, version
print(version(Answers()))
"""


@pytest.mark.integration
def test_the_version_is_the_same_in_every_process() -> None:
    """It depends on nothing that is random in a process, such as hashes and addresses."""
    command = [sys.executable, "-c", PROCESS.format(root=str(Path(__file__).parent.parent))]
    env = {**os.environ, "PYTHONHASHSEED": "12345"}
    found = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True, env=env)
    assert found.stdout.split() == [version(Answers())]


def new_demo(program: Any) -> None:
    program.ask.demos.append(dspy.Example(question="1 + 1", answer="2"))


def other_demos(program: Any) -> None:
    program.ask.demos = [dspy.Example(question="1 + 1", answer="3")]


def new_instructions(program: Any) -> None:
    program.ask.signature = program.ask.signature.with_instructions("Answer at length.")


def new_field(program: Any) -> None:
    program.ask.signature = program.ask.signature.append("reason", dspy.OutputField(), str)


def other_type(program: Any) -> None:
    program.ask.signature = program.ask.signature.with_updated_fields("answer", type_=list[str])


def other_description(program: Any) -> None:
    program.ask.signature = program.ask.signature.with_updated_fields("answer", desc="two words")


def other_predictor(program: Any) -> None:
    program.extra = dspy.Predict(QA)


CHANGES = [new_demo, other_demos, new_instructions, new_field, other_type, other_description, other_predictor]


def test_every_change_of_a_predictor_is_another_version() -> None:
    """Demos, instructions, fields, their types and descriptions, and which predictors there are: no two look alike."""
    found = set()
    for change in (lambda program: None, *CHANGES):
        program = Answers()
        program.forward = lambda program=program: program.think(question="?")
        change(program)
        found.add(version(program))
    assert len(found) == len(CHANGES) + 1


def test_a_change_that_is_taken_back_is_the_old_version() -> None:
    """A version says what the program is, not what it went through."""
    program = Answers()
    first = version(program)
    new_demo(program)
    assert version(program) != first
    program.ask.demos.pop()
    assert version(program) == first


@pytest.mark.parametrize("change", [change for change in CHANGES if change is not other_predictor])
def test_a_program_that_changed_tells_its_new_version(change: Any) -> None:
    """What is kept of a program is not kept too long; what was changed need not be called to be seen."""
    program = Answers()
    program.forward = lambda: program.think(question="?")
    first = version(program, calls=2)
    change(program)
    assert version(program, calls=2) != first


def test_a_predictor_that_is_added_is_in_the_version_once_it_was_called() -> None:
    """A module that nobody has called yet is not looked for at every call: the first call finds it."""
    program = Answers()
    first = version(program)
    program.extra = dspy.Predict(QA)
    program.forward = lambda: program.extra(question="?")
    with balanced(), dspy.context(lm=lm()):
        program()
    assert version(program, calls=2) != first

"""Where the modules of a program stand in it; and a program is not kept alive by what is known of it."""

from __future__ import annotations

import gc
import json
import weakref
from textwrap import dedent
from typing import Any

import dspy
import pytest
from dspy.utils import DummyLM

from dspy_trace.points import programs
from dspy_trace.testing import record
from tests.balanced import balanced


def lm() -> DummyLM:
    return DummyLM([{"answer": str(index), "reasoning": "so"} for index in range(100)])


class Leaf(dspy.Module):
    def __init__(self, signature: Any = "question -> answer") -> None:
        super().__init__()
        self.ask = dspy.Predict(signature)

    def forward(self) -> Any:
        return self.ask(question="?")


class Program(dspy.Module):
    """Holds modules in every way that a program may."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = Leaf()
        self.several = [Leaf(), (Leaf(), {"deep": Leaf()})]
        self.by_name = {"first": Leaf(), 2: Leaf(), "it's": Leaf()}
        self.parent = self.plain

    def forward(self) -> None:
        self.plain()
        self.several[0]()
        self.several[1][0]()
        self.several[1][1]["deep"]()
        for leaf in self.by_name.values():
            leaf()


def test_paths_are_those_of_the_attributes() -> None:
    """Attributes, lists, tuples and dictionaries, in one another; a module with two names has the first."""
    program = Program()
    with balanced() as trace, dspy.context(lm=lm()):
        program()
    paths = [
        "plain",
        "several[0]",
        "several[1][0]",
        "several[1][1]['deep']",
        "by_name['first']",
        "by_name[2]",
        'by_name["it\'s"]',
    ]
    leaves = "".join(f"  Leaf {path}\n    Predict {path}.ask\n      chat dummy\n" for path in paths)
    assert trace.tree() == f"\ninvoke_workflow Program\n{leaves}"
    assert trace.named("Leaf plain")[0].attributes["dspy.module.path"] == "plain"


def test_paths_are_those_in_the_outermost_module() -> None:
    """The same module called by itself is outermost, and has no path."""
    program = Program()
    with balanced() as trace, dspy.context(lm=lm()):
        program.several[0]()
    assert trace.tree("dspy.module.path") == dedent("""
        invoke_workflow Leaf
          Predict ask dspy.module.path='ask'
            chat dummy
    """)


def test_a_module_that_is_added_later_is_found() -> None:
    """Added between calls, or in the middle of one; a module that the program does not hold has no path."""

    class Grows(dspy.Module):
        def forward(self) -> None:
            self.new = Leaf()
            self.new()
            Leaf()()

    program = Grows()
    with balanced() as trace, dspy.context(lm=lm()):
        program()
        program.other = Leaf()
        program.forward = program.other
        program()
    assert trace.tree() == dedent("""
        invoke_workflow Grows
          Leaf new
            Predict new.ask
              chat dummy
          Leaf
            Predict
              chat dummy
        invoke_workflow Grows
          Leaf other
            Predict other.ask
              chat dummy
    """)


def test_a_program_that_holds_itself_or_hides_modules_is_walked_once() -> None:
    """Cycles end; what stands in ``history`` or in objects that are no modules is not looked at."""

    class Odd(Leaf):
        def __init__(self) -> None:
            super().__init__()
            self.me = [self, {"me": self}]
            self.history = [{"module": Leaf()}]
            self.store = type("Store", (), {"module": Leaf()})()

    program = Odd()
    assert [path for path, _ in programs.modules_in(program)] == ["", "ask"]
    with balanced() as trace, dspy.context(lm=lm()):
        program()
    assert trace.tree().startswith("\ninvoke_workflow Odd\n  Predict ask\n")


def test_programs_are_not_kept_alive() -> None:
    """A program that the host drops is gone, with all that is known of it."""
    gc.collect()
    known = len(programs._programs)
    with balanced(), dspy.context(lm=lm()):
        held = [Program() for _ in range(5)]
        for program in held:
            program()
        gone = [weakref.ref(program) for program in held]
        assert len(programs._programs) == known + 5
        del held, program
        gc.collect()
        assert [ref() for ref in gone] == [None] * 5
    assert len(programs._programs) == known


def test_programs_that_take_over_an_address_are_told_apart() -> None:
    """Python gives the place of one dead program to the next: nothing of the first is told of the second."""

    class Named(dspy.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            setattr(self, name, dspy.Predict("question -> answer"))
            self.name = name

        def forward(self) -> Any:
            return getattr(self, self.name)(question="?")

    with balanced() as trace, dspy.context(lm=lm()):
        for index in range(40):
            Named(f"ask_{index}")()
    assert [span.name for span in trace.spans if span.name.startswith("Predict")] == [
        f"Predict ask_{index}" for index in range(40)
    ]


STEP = (dspy.Predict("question -> answer"), {"question": "?"}, dspy.Prediction(answer="Oslo"))


class Gives(dspy.Module):
    """Returns what it is told."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result

    def forward(self, question: str) -> Any:
        return self.result


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (("Oslo", ["a passage"]), ["Oslo", ["a passage"]]),
        (("Oslo", []), ["Oslo", []]),
        ((0.5, [("a", "b")]), [0.5, [["a", "b"]]]),
        ((dspy.Prediction(answer="Oslo"), []), {"answer": "Oslo"}),
        ((dspy.Prediction(answer="Oslo"), [STEP]), {"answer": "Oslo"}),
        (("Oslo", [STEP]), "Oslo"),
    ],
    ids=str,
)
def test_a_program_may_return_a_pair(result: Any, told: Any) -> None:
    """What optimizers make a module return beside its prediction, a trace, is left out; a program's own pair is not."""
    example = dspy.Example(question="?").with_inputs("question")
    evaluate = dspy.Evaluate(devset=[example], metric=lambda example, prediction: 1.0, display_progress=False)
    with record(capture_content=True) as trace:
        Gives(result)(question="?")
        evaluate(Gives(result))
    outputs = [(span.attributes or {}).get("output.value") for span in trace.spans]
    assert [json.loads(str(one)) for one in outputs if one is not None] == [told] * 3

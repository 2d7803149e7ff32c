"""Programs with odd attributes, names, metrics and documents: they run as untraced, and their spans are sound."""

from __future__ import annotations

import decimal
import fractions
import functools
import itertools
import threading
import time
from collections import OrderedDict, UserList, defaultdict, deque
from collections.abc import Callable
from typing import Any

import dspy
import pytest

from dspy_trace.points.programs import modules_in
from tests.hostile import OddLM, alike, hostile, response
from tests.parts.scripted_lm import ScriptedLM

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Program(dspy.Module):
    """Holds a predictor, and whatever a test puts beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.Predict("question -> answer")

    def forward(self, question: str) -> str:
        return str(self.answer(question=question).answer)


def _cycle(program: Program) -> None:
    program.me = program  # type: ignore[attr-defined]
    program.parts = [program, {"again": (program,)}]  # type: ignore[attr-defined]


def _dict(program: Program, **entries: Any) -> None:
    vars(program).update(entries)


class Unhashable(dspy.Module):
    __hash__ = None  # type: ignore[assignment]
    __eq__ = hostile("__eq__").__eq__

    def forward(self) -> None: ...


class Everywhere(dspy.Module):
    """Has every attribute that it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: name

    def forward(self) -> None: ...


CIRCULAR: list[Any] = [dspy.Predict("a -> b")]
CIRCULAR.append(CIRCULAR)

ATTRIBUTES: dict[str, Callable[[Program], Any]] = {
    "number as a name": lambda p: vars(p).update({1: dspy.Predict("a -> b")}),
    "None as a name": lambda p: vars(p).update({None: [dspy.Predict("a -> b")]}),
    "surrogate as a name": lambda p: _dict(p, **{"\ud800": dspy.Predict("a -> b")}),
    "a name with a line break": lambda p: _dict(p, **{"a\nb": dspy.Predict("a -> b")}),
    "a name without end": lambda p: _dict(p, **{"x" * 1_000_000: dspy.Predict("a -> b")}),
    "itself": _cycle,
    "hostile objects": lambda p: _dict(
        p, a=hostile("__eq__", "__hash__", "__iter__", "__len__", "__bool__", "__getattr__")()
    ),
    "a list that holds itself": lambda p: _dict(p, a=CIRCULAR),
    "hostile list": lambda p: _dict(p, a=hostile("__iter__", "__len__", base=list)([dspy.Predict("a -> b")])),
    "hostile dict": lambda p: _dict(p, a=hostile("items", "__iter__", base=dict)(x=dspy.Predict("a -> b"))),
    "dict with keys of all kinds": lambda p: _dict(
        p, a={1: dspy.Predict("a -> b"), (1, 2): dspy.Predict("a -> b"), hostile("__str__")(): dspy.Predict("a -> b")}
    ),
    "surrogate as a key": lambda p: _dict(p, a={"\ud800": dspy.Predict("a -> b")}),
    "other containers": lambda p: _dict(
        p, a=deque([p]), b=UserList([p]), c=defaultdict(list, x=[p]), d=OrderedDict(x=p)
    ),
    "iterators": lambda p: _dict(p, a=itertools.count(), b=(part for part in [p])),
    "unhashable module": lambda p: _dict(p, a=Unhashable(), b=[Unhashable(), Unhashable()]),
    "module that has everything": lambda p: _dict(p, a=Everywhere()),
    "classes": lambda p: _dict(p, a=dspy.Predict, b=Program, c=type),
    "lock and thread": lambda p: _dict(p, a=threading.Lock(), b=threading.current_thread()),
    "no demos": lambda p: _dict(p.answer, demos=[]),
    "demos as a tuple": lambda p: _dict(p.answer, demos=()),
    "hostile demo": lambda p: _dict(
        p.answer, demos=[dspy.Example(question="q", answer="a", extra=hostile("__repr__")())]
    ),
    "no history": lambda p: _dict(p, history=None),
    "callbacks": lambda p: _dict(p, callbacks=[]),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_module_may_hold_anything(name: str) -> None:
    """Whatever stands in a module's attributes: the program runs, and its predictor is known by its path."""

    def ask(server: ScriptedLM) -> Any:
        program = Program()
        ATTRIBUTES[name](program)
        return program(question="why?")

    trace = alike(ask)
    assert "Predict answer" in trace.tree()
    assert trace.one("invoke_workflow Program").attributes["dspy.program.version"]
    assert trace.one("Predict answer").attributes["dspy.module.path"] == "answer"


def test_what_is_huge_is_not_walked_through() -> None:
    """A program may hold its data: looking for modules ends in lists and dicts of a million items."""
    program = Program()
    _dict(program, data=[None] * 3_000_000, rows=[{"a": 1}] * 300_000, index=dict.fromkeys(range(1_000_000)))
    started = time.perf_counter()
    assert [path for path, _ in modules_in(program)] == ["", "answer"]
    assert time.perf_counter() - started < 2


class Numb:
    """A score of a user's own, that adds up and is no number."""

    def __init__(self, value: float, **more: Any) -> None:
        self.value = value
        vars(self).update(more)

    def __radd__(self, other: float) -> float:
        return other + self.value

    def __add__(self, other: float) -> float:
        return other + self.value


class Metric:
    """A callable object with nothing else that a function has."""

    __slots__ = ()

    def __call__(self, example: Any, prediction: Any, trace: Any = None) -> float:
        return 0.5

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("hostile")


def scoring(value: Any) -> Any:
    return lambda example, prediction, trace=None: value


METRICS: dict[str, tuple[Any, Any, Any]] = {
    "bool": (scoring(True), 1.0, "<lambda>"),
    "int": (scoring(1), 1.0, "<lambda>"),
    "huge": (scoring(10**400), None, "<lambda>"),
    "decimal": (scoring(decimal.Decimal("0.5")), 0.5, "<lambda>"),
    "fraction": (scoring(fractions.Fraction(1, 2)), 0.5, "<lambda>"),
    "a float of its own": (scoring(hostile("__float__", "__str__", base=float)(0.5)), 0.5, "<lambda>"),
    "an object that adds up": (scoring(Numb(0.5)), None, "<lambda>"),
    "an object with a score": (scoring(Numb(0.5, score=0.25)), 0.25, "<lambda>"),
    "an object with a text as score": (scoring(Numb(0.5, score="good")), None, "<lambda>"),
    "prediction with a score": (scoring(dspy.Prediction(score=0.75, feedback="f")), 0.75, "<lambda>"),
    "object": (Metric(), 0.5, "Metric"),
    "partial": (functools.partial(scoring(0.5)), 0.5, "partial"),
    "none": (scoring(None), None, "<lambda>"),
    "text": (scoring("good"), None, "<lambda>"),
    "hostile": (scoring(hostile("__float__", "__add__", "__radd__", "__bool__")()), None, "<lambda>"),
}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_may_be_and_give_anything(name: str) -> None:
    """Evaluations give the same result, or the same failure; a score that is a number is told."""
    metric, score, metric_name = METRICS[name]
    devset = [dspy.Example(question=str(number)).with_inputs("question") for number in range(2)]

    def evaluate(server: ScriptedLM) -> Any:
        return dspy.Evaluate(devset=devset, metric=metric, num_threads=1)(Program()).score

    trace = alike(evaluate)
    assert trace.one("evaluate Program").attributes["dspy.evaluate.metric"] == metric_name
    for span in trace.named("evaluate_example Program"):
        told = [event.attributes["gen_ai.evaluation.score.value"] for event in span.events if event.name != "exception"]
        assert told == ([score] if score is not None else [])


MODELS: dict[str, tuple[Any, str]] = {
    "number": (7, "OddLM"),
    "none": (None, "OddLM"),
    "object": (object(), "OddLM"),
    "tuple": (("openai", "gpt"), "OddLM"),
    "empty": ("", "OddLM"),
    "surrogate": ("\ud800", "?"),
    "slashes": ("///", "///"),
    "hostile text": (hostile("__eq__", "__hash__", "partition", "__str__", base=str)("odd"), "odd"),
    "unhashable": ([], "OddLM"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_may_have_any_name(name: str) -> None:
    """A model whose name is no text is told by the LM's class."""
    model, told = MODELS[name]
    span = alike(lambda server: OddLM(response(), model)("hi")).spans[0]
    assert span.attributes["gen_ai.request.model"] == told.removeprefix("/")
    assert span.attributes["gen_ai.usage.input_tokens"] == 5


def test_a_model_name_without_end() -> None:
    """It is cut, in the span's name as well."""
    span = alike(lambda server: OddLM(response(), "m" * 1_000_000)("hi")).spans[0]
    assert span.name.startswith("chat mmm")


class Surrogates(dspy.Signature):
    """Placeholder."""

    question: str = dspy.InputField(desc="\ud800")
    answer: str = dspy.OutputField(desc="\udfff")


def test_text_that_no_utf8_can_hold() -> None:
    """In instructions, descriptions, demos, names of tools, errors: it costs that character and nothing else."""
    Surrogates.instructions = "\ud800 instructions"
    predict = dspy.Predict(Surrogates)
    predict.demos = [dspy.Example(question="\ud800", answer="a")]

    def broken(**kwargs: Any) -> None:
        raise ValueError("\ud800 error")

    def ask(server: ScriptedLM) -> Any:
        tool = dspy.Tool(broken, name="\ud800 tool", desc="\ud800")
        results = []
        for call in (lambda: predict(question="\ud800"), lambda: tool(a="\ud800"), lambda: OddLM(response())("\ud800")):
            try:
                results.append(str(call()))
            except Exception as error:  # noqa: BLE001  # both runs must raise the same
                results.append(str(error))
        return results

    trace = alike(ask)
    root = trace.one("invoke_workflow Predict")
    assert len(root.attributes["dspy.program.version"]) == 16
    assert trace.one("execute_tool ? tool").attributes["gen_ai.tool.description"] == "?"


class Shelf(dspy.Retrieve):
    """Returns what a test has put on it."""

    on_it: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.on_it


DOCUMENTS: dict[str, tuple[Callable[[], Any], int | None]] = {
    "texts": (lambda: ["a", "b"], 2),
    "none": (lambda: None, 0),
    "columns of different length": (
        lambda: dspy.Prediction(passages=["a", "b"], indices=[1], scores=[0.5, float("nan")]),
        2,
    ),
    "odd columns": (
        lambda: dspy.Prediction(passages=["a"], indices="7", scores=hostile("__len__", "__getitem__")()),
        1,
    ),
    "odd scores": (lambda: [{"text": "a", "score": "high", "pid": 10**5_000}, {"long_text": 3, "score": None}], 2),
    "hostile passages": (lambda: [hostile("__getattr__", "__str__")(), hostile("get", "__getitem__", base=dict)()], 2),
    "hostile list": (lambda: hostile("__iter__", "__len__", base=list)(["a"]), None),
    "a generator": (lambda: (text for text in "ab"), None),
    "surrogates": (lambda: [{"text": "\ud800", "pid": "\ud800"}], 1),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_retriever_may_return_anything(name: str) -> None:
    """The result is the program's own object, unread where it can be read once; documents are told as far as can be."""
    make, count = DOCUMENTS[name]

    def search(server: ScriptedLM) -> Any:
        shelf = Shelf()
        shelf.on_it = made = make()
        result = shelf("query")
        # A generator is another one with the same items: the span ends with it.
        return list(result) if name == "a generator" else result is made

    trace = alike(search)
    span = trace.one("retrieval Shelf")
    assert span.attributes["gen_ai.retrieval.query.text"] == "query"
    if count is not None:
        assert span.attributes["dspy.retrieval.document.count"] == count

"""Subclasses of what we patch: each call is observed once, however the class came about and whoever calls whom."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import dspy
import pytest

from dspy_trace.testing import record
from tests.host import same
from tests.parts.scripted_lm import ScriptedLM


async def _aforward(self: Any, n: int = 1) -> Any:
    return dspy.Prediction(n=n)


class Leaf(dspy.Module):
    """A program without an LM."""

    def forward(self, n: int = 1) -> Any:
        return dspy.Prediction(n=n)

    aforward = _aforward


def with_super() -> type[Leaf]:
    class WithSuper(Leaf):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

        async def acall(self, *args: Any, **kwargs: Any) -> Any:
            return await super().acall(*args, **kwargs)

    return WithSuper


def with_three_supers() -> type[Leaf]:
    class Third(with_super()):  # type: ignore[misc]  # a class all the same
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

        async def acall(self, *args: Any, **kwargs: Any) -> Any:
            return await super().acall(*args, **kwargs)

    return type("WithSuper", (Third,), {"__call__": lambda self, *a, **k: super(type(self), self).__call__(*a, **k)})


def without_super() -> type[Leaf]:
    class WithSuper(Leaf):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return dspy.Prediction(n=1)

        async def acall(self, *args: Any, **kwargs: Any) -> Any:
            return dspy.Prediction(n=1)

    return WithSuper


def by_base_class() -> type[Leaf]:
    class WithSuper(Leaf):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return dspy.Module.__call__(self, *args, **kwargs)

        async def acall(self, *args: Any, **kwargs: Any) -> Any:
            return await dspy.Module.acall(self, *args, **kwargs)

    return WithSuper


def by_mixin() -> type[Leaf]:
    class Mixin:
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)  # type: ignore[misc]  # a mixin's

        async def acall(self, *args: Any, **kwargs: Any) -> Any:
            return await super().acall(*args, **kwargs)  # type: ignore[misc]  # a mixin's

    return type("WithSuper", (Mixin, Leaf), {})


def by_alias() -> type[Leaf]:
    """The class body takes `Module.__call__` as it stands: traced, that is our wrapper."""

    class WithSuper(Leaf):
        __call__ = dspy.Module.__call__
        acall = dspy.Module.acall

    return WithSuper


def by_decorator() -> type[Leaf]:
    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def around(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return around

    class WithSuper(Leaf):
        __call__ = decorated(Leaf.__call__)
        acall = decorated(Leaf.acall)

    return WithSuper


def by_partialmethod() -> type[Leaf]:
    class WithSuper(Leaf):
        def run(self, how: str, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs) if how == "sync" else super().acall(*args, **kwargs)

        __call__ = functools.partialmethod(run, "sync")
        acall = functools.partialmethod(run, "async")

    return WithSuper


def with_metaclass_arguments() -> type[Leaf]:
    class Base(Leaf):
        registry: ClassVar[dict[str, type]] = {}

        def __init_subclass__(cls, register: str = "", **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            cls.registry[register] = cls

    class WithSuper(Base, register="x"):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

    assert Base.registry == {"x": WithSuper}
    return WithSuper


KINDS = [with_super, with_three_supers, without_super, by_base_class, by_mixin, by_alias, by_decorator]
KINDS += [by_partialmethod, with_metaclass_arguments]


def calls(cls: type[Leaf]) -> Any:
    return cls()(), asyncio.run(cls().acall(n=2)), isinstance(cls(), dspy.Module)


@pytest.mark.parametrize("when", ["before", "while"])
@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_an_override_is_observed_once(make: Callable[[], type[Leaf]], when: str) -> None:
    """Of a chain of `super()` calls the nearest to the instance is told, be the class older than tracing or younger."""
    cls = make()
    trace = same(lambda server: calls(cls if when == "before" else make()), detail="standard")
    assert trace.tree() == "\n" + 2 * "invoke_workflow WithSuper\n"


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_subclass_of_predict(when: str, scripted_lm: ScriptedLM) -> None:
    """Predict overrides and calls `super()`, a user's subclass of it does too: one span."""

    def make() -> type[dspy.Predict]:
        class Own(dspy.Predict):
            def __call__(self, **kwargs: Any) -> Any:
                return super().__call__(**kwargs)

            def forward(self, **kwargs: Any) -> Any:
                return super().forward(**kwargs)

        return Own

    cls = make()
    with record() as trace, dspy.context(lm=scripted_lm.lm()):
        (cls if when == "before" else make())("question -> answer")(question="?")
    assert trace.tree() == "\ninvoke_workflow Own\n  chat gpt-4o-mini\n"


def test_recursion_is_told() -> None:
    """A module that calls itself, or another of its class, is not taken for a `super()` call."""

    class Countdown(with_super()):  # type: ignore[misc]  # a class all the same
        def forward(self, n: int) -> Any:
            return self(n - 1) if n else dspy.Prediction(n=n)

    trace = same(lambda server: Countdown()(2))
    assert (
        trace.tree(events=False)
        == """
invoke_workflow Countdown
  Countdown
    Countdown
"""
    )


def test_a_call_method_that_has_no_instance_is_passed_through() -> None:
    """Static, of the class, or called with something else: there is nothing to tell of, and nothing to trip over."""

    class Static(dspy.Module):
        @staticmethod
        def __call__() -> int:
            return 1

    class OfClass(dspy.Module):
        @classmethod
        def __call__(cls) -> type:
            return cls

    class Duck:
        callbacks: ClassVar[list[Any]] = []

        def forward(self) -> str:
            return "quack"

    trace = same(lambda server: (Static()(), OfClass()(), dspy.Module.__call__(Duck()), Leaf()()))
    assert trace.tree() == "\ninvoke_workflow Leaf\n"


def test_a_module_that_inherits_from_a_retriever_too() -> None:
    """A class beneath two of ours is observed by the one whose method it uses."""

    class Search(dspy.Retrieve, Leaf):
        def forward(self, query: str, k: int | None = None) -> Any:
            return [query]

    assert same(lambda server: Search(k=2)("Oslo")).tree() == "\nretrieval Search\n"


# Every class that has rows of its own, with a way to call a subclass of it that overrides the method.
class _Embedder(dspy.Embedder):
    def __init__(self) -> None:
        self.model, self.callbacks = "own/model", []

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        return [[1.0]]


class _LM(dspy.BaseLM):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return ["[[ ## answer ## ]]\nfine\n[[ ## completed ## ]]"]


class _Tool(dspy.Tool):
    def __call__(self, **kwargs: Any) -> Any:
        return super().__call__(**kwargs)


class _Adapter(dspy.ChatAdapter):
    def format(self, *args: Any, **kwargs: Any) -> Any:
        return super().format(*args, **kwargs)

    def parse(self, *args: Any, **kwargs: Any) -> Any:
        return super().parse(*args, **kwargs)


class _Evaluate(dspy.Evaluate):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


class _Optimizer(dspy.LabeledFewShot):
    def compile(self, *args: Any, **kwargs: Any) -> Any:
        return super().compile(*args, **kwargs)


def _ask(server: ScriptedLM, **context: Any) -> Any:
    with dspy.context(**context):
        return dspy.Predict("question -> answer")(question="?")


EXAMPLES = [dspy.Example(question="q", answer="a").with_inputs("question")]
OTHERS: dict[str, tuple[Callable[[ScriptedLM], Any], str]] = {
    "Embedder": (lambda server: _Embedder()(["x"]), "\nembeddings model\n"),
    "LM": (lambda server: _LM("own")("hi"), "\nchat own\n"),
    "Tool": (lambda server: _Tool(lambda: 1, name="f")(), "\nexecute_tool f\n"),
    "Adapter": (
        lambda server: _ask(server, adapter=_Adapter(), lm=_LM("own")),
        "\ninvoke_workflow Predict\n  _Adapter.format\n  chat own\n  _Adapter.parse\n",
    ),
    "Evaluate": (
        lambda server: _Evaluate(devset=EXAMPLES, metric=lambda e, p: 1, num_threads=1)(Leaf_()),
        "\nevaluate Leaf_\nevaluate_example Leaf_ (linked)\n  invoke_workflow Leaf_\n",
    ),
    "Optimizer": (lambda server: _Optimizer(k=1).compile(Leaf(), trainset=EXAMPLES), "\ncompile _Optimizer\n"),
}


class Leaf_(dspy.Module):
    def forward(self, question: str) -> Any:
        return dspy.Prediction(answer=question)


@pytest.mark.parametrize("name", OTHERS)
def test_overrides_of_other_classes_are_observed_once(name: str) -> None:
    """A user's LM, tool, adapter, embedder, evaluation or optimizer that overrides DSPy's method."""
    program, tree = OTHERS[name]
    assert same(program).tree(events=False) == tree

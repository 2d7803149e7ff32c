"""Patched methods behave as methods: looked at, compared, referenced, kept in tools, copied and pickled."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import pickle
import typing
import weakref
from collections.abc import Callable
from typing import Any

import cloudpickle
import dspy
import pytest

from dspy_trace.testing import record
from tests.host import told


class Helper(dspy.Module):
    """Helps."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = 2

    def forward(self, n: int) -> Any:
        return dspy.Prediction(n=n * self.factor)

    async def aforward(self, n: int) -> Any:
        return self.forward_of(n)

    def forward_of(self, n: int) -> Any:
        return dspy.Prediction(n=n * self.factor)


class Calling(Helper):
    """Overrides what we patch."""

    def __call__(self, n: int, *, more: int = 0) -> Any:
        """Say it twice."""
        return super().__call__(n + more)


METHODS: dict[str, Callable[[], Any]] = {
    "module": lambda: Helper().__call__,
    "module, async": lambda: Helper().acall,
    "override": lambda: Calling().__call__,
    "predict": lambda: dspy.Predict("q -> a").__call__,
    "predict, async": lambda: dspy.Predict("q -> a").acall,
    "lm": lambda: dspy.LM("openai/x").__call__,
    "lm, async": lambda: dspy.LM("openai/x").acall,
    "tool": lambda: dspy.Tool(len, name="len", args={}, arg_types={}).__call__,
    "retrieve": lambda: dspy.Retrieve(k=1).__call__,
    "adapter": lambda: dspy.JSONAdapter().format,
    "evaluate": lambda: dspy.Evaluate(devset=[]).__call__,
    "optimizer": lambda: dspy.BootstrapFewShot().compile,
    "of the class": lambda: Helper.__call__,
    "of the class, async": lambda: dspy.Predict.acall,
    "of the class, override": lambda: Calling.__call__,
}

VIEWS: dict[str, Callable[[Any], Any]] = {
    "signature": lambda m: str(inspect.signature(m)),
    "names": lambda m: (m.__name__, m.__qualname__, m.__module__, m.__doc__),
    "kind": lambda m: (inspect.ismethod(m), inspect.isfunction(m), inspect.isroutine(m), callable(m)),
    "coroutine function": lambda m: (inspect.iscoroutinefunction(m), asyncio.iscoroutinefunction(m)),
    "generator function": lambda m: (inspect.isgeneratorfunction(m), inspect.isasyncgenfunction(m)),
    "types": lambda m: str(typing.get_type_hints(m)),
    "source": inspect.getsource,
    "repr": lambda m: repr(m).partition(" at 0x")[0].partition(" of <")[0],
    "equality": lambda m: (m == m, m != m, hash(m) == hash(m), m in [m], len({m, m})),  # noqa: PLR0124
    "wrapped": lambda m: inspect.signature(functools.wraps(m)(lambda: None)) == inspect.signature(m),
    "partial": lambda m: str(inspect.signature(functools.partial(m))),
    "class": lambda m: m.__class__.__name__,
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_looks_as_it_does_untraced(method: str) -> None:
    """Whatever inspects it, such as `dspy.Tool`, FastAPI or an agent framework, sees the same."""

    def views() -> dict[str, Any]:
        found = METHODS[method]()
        return {name: told(view(found)) for name, view in VIEWS.items()}

    bare = views()
    with record(detail="full"):
        assert views() == bare


@pytest.mark.parametrize("method", [name for name in METHODS if "of the class" not in name])
def test_two_reads_of_a_method_are_equal(method: str) -> None:
    """`program.acall == program.acall`, as for any method: callbacks are removed from lists by it."""

    def compared() -> tuple[bool, ...]:
        owner = METHODS[method]().__self__
        name = METHODS[method]().__name__
        one, two = getattr(owner, name), getattr(owner, name)
        other = getattr(copy.copy(owner), name)
        return one == two, hash(one) == hash(two), one != two, len({one, two}), one == other, one in [two]

    bare = compared()
    with record(detail="full"):
        assert compared() == bare


def test_a_method_can_be_referenced_weakly() -> None:
    """Signal libraries keep receivers by `weakref.WeakMethod`: it gives the method while its owner lives."""
    with record() as trace:
        program = Helper()
        sync, later = weakref.WeakMethod(program.__call__), weakref.WeakMethod(program.acall)
        assert sync()(n=2).n == 4  # type: ignore[misc]  # it lives
        assert asyncio.run(later()(n=2)).n == 4  # type: ignore[misc]  # it lives
        assert sync() == program.__call__
        del program
        assert sync() is None
    assert [span.name for span in trace.spans] == ["invoke_workflow Helper"] * 2


class Keeping(dspy.Module):
    """Keeps methods of its parts: in a tool, in an attribute, in a list."""

    def __init__(self, helper: Any = None) -> None:
        super().__init__()
        self.helper = helper or Helper()
        self.call = self.helper.__call__
        self.calls = [self.helper.acall, self.helper.__call__]
        self.tool = dspy.Tool(self.helper.__call__, name="help", args={"n": {"type": "integer"}}, arg_types={"n": int})

    def forward(self, n: int) -> Any:
        return self.call(n=n), self.calls[1](n=n), self.tool(n=n)


COPIES: dict[str, Callable[[Any], Any]] = {
    "deep copy": copy.deepcopy,
    "DSPy's deep copy": lambda program: program.deepcopy(),
    "reset copy": lambda program: program.reset_copy(),
    "pickle": lambda program: pickle.loads(pickle.dumps(program)),
    "pickle, protocol 2": lambda program: pickle.loads(pickle.dumps(program, protocol=2)),
    "cloudpickle": lambda program: cloudpickle.loads(cloudpickle.dumps(program)),
}


@pytest.mark.parametrize("helper", [Helper, Calling], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("way", COPIES)
def test_a_method_that_is_kept_is_copied_with_its_owner(way: str, helper: type[Helper]) -> None:
    """The copy calls the copy's own part, as plain methods do, and is traced like the original."""

    def copied() -> list[Any]:
        original = Keeping(helper())
        program = COPIES[way](original)
        program.helper.factor = 5
        held = [program.call, *program.calls, program.tool.func]
        assert all(method.__self__ is program.helper for method in held)
        return told([program(n=1), original(n=1), [type(method.__self__).__name__ for method in held]])

    bare = copied()
    with record() as trace:
        assert copied() == bare
    assert (
        trace.tree(events=False)
        == "\n"
        + 2
        * f"""\
invoke_workflow Keeping
  {helper.__name__} helper
  {helper.__name__} helper
  execute_tool help
    {helper.__name__} helper
"""
    )


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy], ids=lambda way: way.__name__)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_itself_can_be_copied(way: Callable[[Any], Any], method: str) -> None:
    """A shallow copy is bound to the same object, a deep one to a copy of it."""

    def copied() -> Any:
        original = METHODS[method]()
        try:
            made = way(original)
        except TypeError as error:  # an optimizer that has a lock
            return str(error)
        owner = getattr(original, "__self__", None)
        return (
            made.__qualname__,
            type(getattr(made, "__self__", None)).__name__,
            getattr(made, "__self__", None) is owner,
        )

    bare = copied()
    with record(detail="full"):
        assert copied() == bare

"""What users put on DSPy's methods, or on their own, while they are traced: it works, and a call is observed once."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import Any
from unittest import mock

import cloudpickle
import dspy
import pytest
import wrapt

from dspy_trace import DSPyInstrumentor
from dspy_trace.observing.wrapping import leftovers
from dspy_trace.testing import record
from tests.parts.scripted_lm import ScriptedLM

ONCE = "\ninvoke_workflow Own\n"


def make() -> type[dspy.Module]:
    """Return a new class that overrides `__call__`."""

    class Own(dspy.Module):
        def __call__(self, **kwargs: Any) -> Any:
            return super().__call__(**kwargs)

        def forward(self, n: int) -> Any:
            return dspy.Prediction(n=n)

    return Own


Put = Callable[[Any, str, list[str]], None]
"""Puts something on an attribute of a class; what it puts there writes into the list when it is called."""


def closure(owner: Any, name: str, seen: list[str]) -> None:
    original = getattr(owner, name)

    def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append("closure")
        return original(self, *args, **kwargs)

    setattr(owner, name, patched)


def decorator(owner: Any, name: str, seen: list[str]) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append("decorator")
        return original(self, *args, **kwargs)

    setattr(owner, name, patched)


def wrapper(owner: Any, name: str, seen: list[str]) -> None:
    def patched(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        seen.append("wrapper")
        return wrapped(*args, **kwargs)

    wrapt.wrap_function_wrapper(owner, name, patched)


def replacement(owner: Any, name: str, seen: list[str]) -> None:
    """Does not call what was there, but the class above."""

    def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append("replacement")
        return getattr(super(owner, self), name)(*args, **kwargs)

    setattr(owner, name, patched)


PUTS = [closure, decorator, wrapper, replacement]


@pytest.mark.parametrize("put", PUTS, ids=lambda put: put.__name__)
def test_on_a_method_of_the_users_own(put: Put) -> None:
    """On top of ours, or in place of ours: called once, observed once; so it is in the next cycle, and none after."""
    cls, seen = make(), list[str]()
    with record() as trace:
        put(cls, "__call__", seen)
        assert cls()(n=1).n == 1
    assert trace.tree() == ONCE
    assert cls()(n=1).n == 1
    with record() as trace:
        assert cls()(n=1).n == 1
    assert trace.tree() == ONCE
    assert seen == [put.__name__] * 3


@pytest.mark.parametrize("put", PUTS[:3], ids=lambda put: put.__name__)
@pytest.mark.parametrize("name", ["__call__", "forward"])
def test_on_a_method_of_dspys(put: Put, name: str, scripted_lm: ScriptedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's patch of `Predict.__call__` or `Predict.forward`, which is not one of ours."""
    monkeypatch.setattr(dspy.Predict, name, vars(dspy.Predict)[name])  # restored at the end
    seen: list[str] = []
    for cycle in (1, 2):
        with record() as trace, dspy.context(lm=scripted_lm.lm()):
            if cycle == 1:
                put(dspy.Predict, name, seen)
            dspy.Predict("question -> answer")(question="?")
        assert trace.tree() == "\ninvoke_workflow Predict\n  chat gpt-4o-mini\n"
    assert seen == [put.__name__] * 2


@pytest.mark.parametrize("put", PUTS[:3], ids=lambda put: put.__name__)
def test_on_module_while_subclasses_come_and_go(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch on `Module.__call__` outlives a cycle: classes old and new are observed once in the next."""
    monkeypatch.setattr(dspy.Module, "__call__", vars(dspy.Module)["__call__"])
    old, seen = make(), list[str]()
    with record() as trace:
        put(dspy.Module, "__call__", seen)
        old()(n=1)
    assert trace.tree() == ONCE
    between = make()
    for _ in range(2):
        with record() as trace:
            for cls in (old, between, make()):
                cls()(n=1)
        assert trace.tree() == "\n" + 3 * "invoke_workflow Own\n"
    assert len(seen) == 7


def test_a_call_method_that_is_set_later() -> None:
    """A class that gets its `__call__` after it was defined is observed by the one above."""
    with record() as trace:
        cls = type("Own", (dspy.Module,), {"forward": lambda self, n: n})
        cls.__call__ = lambda self, n: dspy.Module.__call__(self, n=n)
        assert cls()(n=1) == 1
    assert trace.tree() == ONCE
    assert cls()(n=1) == 1


def test_a_class_that_is_loaded_again_while_traced() -> None:
    """Unpickling a class by value sets its methods anew, plain, on the class that is there: it is still observed."""
    gc.collect()  # earlier classes of that name
    cls = make()
    cls.__module__ = "__main__"
    with record() as trace:
        program = cloudpickle.loads(cloudpickle.dumps(cls()))
        assert program(n=1).n == 1
        assert cls()(n=1).n == 1
    assert trace.tree() == "\n" + 2 * "invoke_workflow Own\n"
    assert not [name for name in leftovers() if name.endswith("Own.__call__")]


def test_a_mock_on_top_that_is_taken_off_while_traced() -> None:
    """Ours is back where the mock found it."""
    cls = make()
    with record() as trace:
        with mock.patch.object(cls, "__call__", return_value="mocked"):
            assert cls()(n=1) == "mocked"
        assert cls()(n=1).n == 1
    assert trace.tree() == ONCE


def test_a_mock_on_top_that_is_taken_off_after_tracing() -> None:
    """It puts ours back, which is asleep: nothing is observed, and in the next cycle once."""
    cls = make()
    patcher = mock.patch.object(cls, "__call__", return_value="mocked")
    with record() as first:
        patcher.start()
        DSPyInstrumentor().uninstrument()
    patcher.stop()
    assert cls()(n=1).n == 1
    assert first.tree() == "\n"
    with record() as second:
        assert cls()(n=1).n == 1
    assert second.tree() == ONCE

"""Values, modules, LMs and errors whose own methods raise: the program runs as untraced, and the rest is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dspy
import pydantic
import pytest

from dspy_trace.testing import record
from tests.host import same
from tests.parts.scripted_lm import ScriptedLM


def refuse(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("hostile")


def hostile(*names: str, base: type = object) -> Any:
    """Return an object whose methods of these names raise."""
    return type("Hostile", (base,), dict.fromkeys(names, refuse))()


class EndlessMapping(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        index = 0
        while True:
            index += 1
            yield f"key{index}"

    def __len__(self) -> int:
        raise OverflowError


class Model(pydantic.BaseModel):
    text: str = "model"

    @pydantic.computed_field  # type: ignore[prop-decorator]  # as pydantic's manual has it
    @property
    def computed(self) -> str:
        raise RuntimeError("hostile")


class LyingClass:
    @property
    def __class__(self) -> type:  # type: ignore[override]  # legal
        raise RuntimeError("hostile")


def _deep() -> Any:
    value: Any = []
    for _ in range(5_000):
        value = [value]
    return value


VALUES: dict[str, Callable[[], Any]] = {
    "repr and str": lambda: hostile("__repr__", "__str__", "__format__"),
    "eq, ne and hash": lambda: hostile("__eq__", "__ne__", "__hash__"),
    "len, bool and iter": lambda: hostile("__len__", "__bool__", "__iter__", "__contains__"),
    "attributes": lambda: hostile("__getattr__"),
    "all attributes": lambda: hostile("__getattribute__"),
    "its class": LyingClass,
    "list": lambda: hostile("__iter__", "__len__", "__getitem__", base=list),
    "dict": lambda: hostile("items", "keys", "values", "__iter__", "__len__", base=dict),
    "str": lambda: hostile("__str__", "__len__", "startswith", "encode", base=str),
    "int": lambda: hostile("__int__", "__index__", "__str__", "__lt__", "__le__", "__ge__", base=int),
    "endless mapping": EndlessMapping,
    "computed field": Model,
    "example": lambda: dspy.Example(inner=hostile("__repr__"), text="t"),
    "lock": threading.Lock,
    "deep": _deep,
    "huge int": lambda: 10**6_000,
    "not a number": lambda: float("nan"),
    "lone surrogate": lambda: "\ud800 text",
    "class": lambda: Model,
    "error": lambda: hostile("__str__", "__repr__", base=ValueError),
    "bytes": lambda: b"\x00\xff" * 100,
}


@pytest.mark.parametrize("name", VALUES)
def test_a_hostile_value_costs_that_value_only(name: str) -> None:
    """It goes in and comes out as the same object; the values beside it, and the call itself, are told."""
    value = VALUES[name]()

    class Passing(dspy.Module):
        def forward(self, plain: str, value: Any) -> Any:
            return {"plain": plain, "value": value}

    trace = same(lambda server: Passing()(plain="kept", value=value)["value"] is value)
    assert trace.tree() == "\ninvoke_workflow Passing\n"
    attributes = trace.one("invoke_workflow Passing").attributes
    assert '"plain":"kept"' in attributes["input.value"]
    assert '"plain":"kept"' in attributes["output.value"]


@pytest.mark.parametrize("name", sorted(VALUES.keys() - {"its class", "all attributes"}))  # of these DSPy asks too much
def test_a_tool_may_return_a_hostile_value(name: str) -> None:
    """The tool's caller gets the very object."""
    value = VALUES[name]()
    trace = same(lambda server: dspy.Tool(lambda: value, name="f", desc="gives")() is value)
    assert trace.one("execute_tool f").attributes["gen_ai.tool.description"] == "gives"


def test_what_can_be_read_once_is_not_read() -> None:
    """Iterators, generators and files are the program's to read."""

    class Draining(dspy.Module):
        def forward(self, items: Any, numbers: Any, text: Any) -> Any:
            return list(items), list(numbers), text.readline()

    def program(server: ScriptedLM) -> Any:
        with open(__file__, encoding="utf-8") as text:
            return Draining()(items=iter([1, 2]), numbers=(n for n in range(3)), text=text)

    assert same(program).tree() == "\ninvoke_workflow Draining\n"


def _module(*names: str, **attributes: Any) -> dspy.Module:
    def forward(self: Any, n: int) -> Any:
        return dspy.Prediction(n=n)

    return type("Module_", (dspy.Module,), {**dict.fromkeys(names, refuse), "forward": forward, **attributes})()


MODULES: dict[str, Callable[[], dspy.Module]] = {
    "repr and str": lambda: _module("__repr__", "__str__"),
    "eq and hash": lambda: _module("__eq__", "__hash__"),
    "len and bool": lambda: _module("__len__", "__bool__"),
    "iter and contains": lambda: _module("__iter__", "__contains__", "__getitem__"),
    "property": lambda: _module(signature=property(refuse), demos=property(refuse), name=property(refuse)),
    "length zero": lambda: _module(__len__=lambda self: 0),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("nested", [False, True], ids=["outermost", "inner"])
def test_a_module_may_have_hostile_methods(name: str, nested: bool) -> None:
    """Nothing but its state is read of a module, at the top of a program and inside one."""

    class Holding(dspy.Module):
        def __init__(self, part: Any) -> None:
            super().__init__()
            self.parts = {"one": part}

        def forward(self, n: int) -> Any:
            return self.parts["one"](n=n)

    def program(server: ScriptedLM) -> Any:
        module = MODULES[name]()
        return (Holding(module) if nested else module)(n=1)

    inner = "invoke_workflow Holding\n  Module_ parts['one']" if nested else "invoke_workflow Module_"
    assert same(program).tree() == f"\n{inner}\n"


def test_a_module_may_have_a_hostile_signature_and_demos() -> None:
    """`signature` and `demos` of a user's module are whatever the user takes them for."""
    module = _module()
    module.signature, module.demos = hostile("__getattr__", "__eq__", "__bool__"), hostile("__len__", "__iter__")
    assert same(lambda server: module(n=1)).tree() == "\ninvoke_workflow Module_\n"


def test_a_module_that_answers_for_every_attribute() -> None:
    """`__getattr__` that invents a value for any name, or raises something else than `AttributeError`."""

    class Inventing(dspy.Module):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__") or name in ("callbacks", "history", "_compiled"):
                raise AttributeError(name)
            return refuse() if name == "lm" else self

        def forward(self, n: int) -> Any:
            return self.anything.at.all is self

    assert same(lambda server: Inventing()(n=1)).tree() == "\ninvoke_workflow Inventing\n"


def test_an_lm_may_have_hostile_attributes() -> None:
    """A user's LM need not have a model, parameters or a history that can be read."""

    class Hostile(dspy.BaseLM):
        def __init__(self) -> None:
            self.callbacks: list[Any] = []

        model = kwargs = model_type = history = property(refuse)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return ["said"]

    assert same(lambda server: Hostile()("hello")).tree() == "\nchat Hostile\n"


def test_a_tool_may_be_a_hostile_callable() -> None:
    """Nothing is asked of a tool's function but its result."""

    class Function:
        def __call__(self, n: int) -> int:
            return n + 1

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(name) if name.startswith("__") and name != "__module__" else RuntimeError("hostile")

        __eq__ = __bool__ = __hash__ = refuse

    tool = dspy.Tool(Function(), name="plus", desc="adds", args={"n": {"type": "integer"}}, arg_types={"n": int})
    assert same(lambda server: tool(n=1)).tree() == "\nexecute_tool plus\n"


class Mute(Exception):
    """An error that cannot be written."""

    __str__ = __repr__ = refuse
    args = property(refuse)


def _circular() -> Exception:
    error = ValueError("circular")
    error.__cause__ = KeyError("cause")
    error.__cause__.__cause__ = error
    return error


ERRORS: dict[str, Callable[[], BaseException]] = {
    "mute": Mute,
    "circular": _circular,
    "huge": lambda: ValueError("x" * 1_000_000),
    "surrogate": lambda: ValueError("\ud800"),
    "not text": lambda: ValueError(hostile("__repr__", "__str__")),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_hostile_error_comes_out_itself(name: str) -> None:
    """The very error is raised, and the spans on its way say its type."""
    error = ERRORS[name]()

    class Raising(dspy.Module):
        def forward(self) -> Any:
            raise error

    class Outer(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Raising()

        def forward(self) -> Any:
            return self.inner()

    with record(detail="full", capture_content=True) as trace:
        try:
            Outer()()
        except type(error) as raised:
            assert raised is error
    kind = type(error).__qualname__
    assert trace.tree() == f"\ninvoke_workflow Outer !{kind}\n  Raising inner !{kind}\n"

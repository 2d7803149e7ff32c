"""Programs that are legal DSPy and that instrumentation has broken: each runs as it does untraced, and is traced."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any

import dspy
import pytest
from dspy.primitives.base_module import BaseModule
from dspy.utils.callback import BaseCallback

from dspy_trace.testing import record
from tests.host import same
from tests.parts.scripted_answers import fill, in_turn
from tests.parts.scripted_lm import ScriptedLM

QA = "question -> answer"


class Doubling(dspy.Module):
    """A program without an LM."""

    def forward(self, n: int) -> dspy.Prediction:
        return dspy.Prediction(double=2 * n)


def _static(n: int) -> Any:
    return dspy.Prediction(double=2 * n)


class Callable_:
    def __call__(self, n: int) -> Any:
        return _static(n)


def _bound(self: Any, n: int) -> Any:
    return _static(n)


FORWARDS: dict[str, Callable[[dspy.Module], Any]] = {
    "function": lambda module: _static,
    "method": lambda module: types.MethodType(_bound, module),
    "lambda": lambda module: lambda n: _static(n=n),
    "partial": lambda module: functools.partial(_bound, module),
    "callable object": lambda module: Callable_(),
    "another module": lambda module: Doubling(),
}


@pytest.mark.parametrize("kind", FORWARDS)
def test_forward_set_on_the_instance(kind: str) -> None:
    """GEPA and users set `forward` on an instance: it is called, with positional or keyword arguments."""

    def program(server: ScriptedLM) -> Any:
        module = Doubling()
        module.forward = FORWARDS[kind](module)
        return module(3), module(n=3)

    trace = same(program)
    inputs = [span.attributes["input.value"] for span in trace.named("invoke_workflow Doubling")]
    assert inputs[1] == '{"n":3}'
    assert inputs[0] in ('{"n":3}', '{"args[0]":3}')


class Static(dspy.Module):
    @staticmethod
    def forward(n: int) -> Any:
        return _static(n)


class OfClass(dspy.Module):
    @classmethod
    def forward(cls, n: int) -> Any:
        return _static(n)


class NotSelf(dspy.Module):
    def forward(this, n: int) -> Any:  # legal, and seen in the wild
        return _static(n)


class Starred(dspy.Module):
    def forward(*args: Any, **kwargs: Any) -> Any:
        return _static(args[1])


@pytest.mark.parametrize("cls", [Static, OfClass, NotSelf, Starred], ids=lambda cls: cls.__name__)
def test_forward_of_another_shape(cls: type[dspy.Module]) -> None:
    """A static `forward`, a class method, a first parameter of another name, or none at all."""
    trace = same(lambda server: cls()(3))
    assert trace.one(f"invoke_workflow {cls.__name__}").attributes["input.value"] in ('{"n":3}', '{"args[0]":3}')


@pytest.mark.parametrize("name", ["kwargs", "args", "wrapped", "call", "reader", "context", "span", "error"])
def test_an_input_field_may_have_any_name(name: str) -> None:
    """No wrapper takes a parameter of a name that a field of the program may have."""
    trace = same(lambda server: dspy.ChainOfThought(f"{name} -> answer")(**{name: "x"}))
    assert trace.one("invoke_workflow ChainOfThought").attributes["input.value"] == f'{{"{name}":"x"}}'


@pytest.mark.parametrize("name", ["self", "instance", "fn"])
def test_a_name_that_dspy_itself_refuses_is_refused_in_the_same_way(name: str) -> None:
    """DSPy's own `TypeError`, word for word."""

    def program(server: ScriptedLM) -> Any:
        try:
            return dspy.Predict(f"{name} -> answer")(**{name: "x"})
        except TypeError as error:
            return error

    same(program)


def test_signature_given_as_text_at_the_call() -> None:
    """`signature=` is an argument of DSPy's, a string or a class, and no input."""

    def program(server: ScriptedLM) -> Any:
        predict = dspy.Predict(QA)
        other = dspy.Signature("topic -> poem", "Write.")
        return predict(signature="topic -> poem", topic="sea"), predict(signature=other, topic="sea")

    trace = same(program)
    assert trace.tree("dspy.signature", "input.value", events=False).count("""input.value='{"topic":"sea"}'""") >= 2


def _odd_results() -> list[Any]:
    loop: dict[str, Any] = {"name": "loop"}
    loop["self"] = loop
    items: list[Any] = []
    items.append(items)
    return [{1: "a", None: "b", (1, 2): "c", 2.5: "d", b"e": "f"}, loop, items, {frozenset({1}): {1, 2}}]


@pytest.mark.parametrize("index", range(4), ids=["keys", "loop", "list in itself", "sets"])
def test_tool_results_of_any_shape(index: int) -> None:
    """Keys that are no strings, values that hold themselves: the tool's result is the same object."""
    result = _odd_results()[index]

    def program(server: ScriptedLM) -> Any:
        return dspy.Tool(lambda: result, name="f")() is result

    trace = same(program)
    assert trace.tree() == "\nexecute_tool f\n"
    assert trace.one("execute_tool f").attributes["gen_ai.tool.call.result"]


@pytest.mark.parametrize("index", range(4), ids=["keys", "loop", "list in itself", "sets"])
def test_an_agent_goes_on_after_such_a_result(index: int) -> None:
    """What DSPy writes of the result into the next prompt is the same."""

    def program(server: ScriptedLM) -> Any:
        server.answer = in_turn(
            lambda body: fill(body, next_tool_name="f", next_tool_args={}),
            lambda body: fill(body, next_tool_name="finish", next_tool_args={}),
        )
        return dspy.ReAct(QA, tools=[dspy.Tool(lambda: _odd_results()[index], name="f")])(question="?")

    same(program)


@dataclasses.dataclass
class Unhashable(dspy.Module):
    """A dataclass compares by value, and so has no hash; nor has any `Tool`."""

    factor: int = 2

    def forward(self, n: int) -> Any:
        return dspy.Prediction(n=n * self.factor)


def test_unhashable_modules_and_tools() -> None:
    """Nothing is kept by a module's or a tool's hash."""

    class Holding(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = [Unhashable(2), Unhashable(2)]
            self.tool = dspy.Tool(self.parts[0], name="double", args={"n": {"type": "integer"}}, arg_types={"n": int})

        def forward(self, n: int) -> Any:
            return [part(n=n) for part in self.parts], self.tool(n=n)

    with pytest.raises(TypeError):
        hash(Unhashable())
    trace = same(lambda server: Holding()(n=1))
    assert (
        trace.tree()
        == """
invoke_workflow Holding
  Unhashable parts[0]
  Unhashable parts[1]
  execute_tool double
    Unhashable parts[0]
"""
    )


def test_forward_is_never_read_from_outside(scripted_lm: ScriptedLM, caplog: pytest.LogCaptureFixture) -> None:
    """DSPy warns of whoever reads `module.forward` outside of `__call__`, also where arguments are positional."""
    with record(detail="full", capture_content=True), dspy.context(lm=scripted_lm.lm()):
        Doubling()(3)
        NotSelf()(3)
        dspy.ChainOfThought(QA)(question="?")
    assert not [record for record in caplog.records if "discouraged" in record.getMessage()]


def test_dspys_walk_over_modules_is_not_used(scripted_lm: ScriptedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """`named_sub_modules` descends into the history of all calls made so far: no call may cost that."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("named_sub_modules was called")

    monkeypatch.setattr(BaseModule, "named_sub_modules", refuse)
    monkeypatch.setattr(BaseModule, "named_parameters", refuse)
    with record(detail="full", capture_content=True) as trace, dspy.context(lm=scripted_lm.lm()):
        dspy.ChainOfThought(QA)(question="?")
    assert trace.tree(events=False).splitlines()[2] == "  Predict predict"


def test_what_dspy_compares_by_identity_is_left_alone(scripted_lm: ScriptedLM) -> None:
    """A wrapped `LM.forward` would turn off cache, retries and engine: it is DSPy's own, and all three work."""
    names = ("forward", "aforward")
    before = [vars(dspy.LM)[name] for name in names] + [vars(dspy.BaseLM)[name] for name in names]
    with record() as trace:
        assert [vars(dspy.LM)[name] for name in names] + [vars(dspy.BaseLM)[name] for name in names] == before
        scripted_lm.lm(engine="lm15")("hello")
    assert trace.one("chat gpt-4o-mini").attributes["dspy.lm.engine"] == "lm15"


def test_two_compiles_in_one_run() -> None:
    """Each is a trace of its own, by the same optimizer or by another, one within the other included."""
    examples = [dspy.Example(question=f"q{i}", answer="a").with_inputs("question") for i in range(2)]

    class Twice(dspy.LabeledFewShot):
        def compile(self, student: Any, *, trainset: Any) -> Any:
            inner = dspy.LabeledFewShot(k=1).compile(student, trainset=trainset)
            return super().compile(inner, trainset=trainset)

    def program(server: ScriptedLM) -> Any:
        optimizer = Twice(k=2)
        return [optimizer.compile(dspy.Predict(QA), trainset=examples) for _ in range(2)]

    assert same(program).tree() == "\n" + 2 * "compile Twice\n  compile LabeledFewShot\n"


class Watching(BaseCallback):
    """Keeps the instances that DSPy shows to a callback, in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.seen.append(("module", instance))

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.seen.append(("lm", instance))

    def on_tool_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.seen.append(("tool", instance))

    def on_adapter_format_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.seen.append(("adapter", instance))


def test_a_users_callback_gets_each_call_once_and_the_very_objects(scripted_lm: ScriptedLM) -> None:
    """DSPy's callbacks are the user's: we add none, hide none, and stand between none and its objects."""
    watching, lm, adapter = Watching(), scripted_lm.lm(), dspy.ChatAdapter()
    program = dspy.ChainOfThought(QA)
    tool = dspy.Tool(lambda: program(question="?"), name="f")
    with record(detail="full") as trace, dspy.context(lm=lm, adapter=adapter, callbacks=[watching]):
        tool()
        assert dspy.settings.callbacks == [watching]
    expected = [("tool", tool), ("module", program), ("module", program.predict), ("adapter", adapter), ("lm", lm)]
    assert [kind for kind, _ in watching.seen] == [kind for kind, _ in expected]
    assert all(got is wanted for (_, got), (_, wanted) in zip(watching.seen, expected, strict=True))
    assert trace.one("chat gpt-4o-mini")

"""Classes that are defined while DSPy is patched: after undo they are what they would have been, and they can die."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import dspy
import pytest
from dspy.teleprompt.teleprompt import Teleprompter
from dspy.utils.callback import BaseCallback

from dspy_trace.observing.wrapping import Observed
from dspy_trace.testing import record
from tests.host import left_on_dspy, run
from tests.host_programs_more import Log, refined
from tests.parts.scripted_lm import ScriptedLM


@pytest.fixture(autouse=True)
def young_garbage_only() -> Iterator[None]:
    """Let the collector look at what the test makes, and not at all that the suite has imported."""
    gc.freeze()
    yield
    gc.unfreeze()


EXAMPLES = [dspy.Example(question="q", answer="a").with_inputs("question")]


def module() -> type[dspy.Module]:
    class Own(dspy.Module):
        def __call__(self, **kwargs: Any) -> Any:
            return super().__call__(**kwargs)

        def forward(self, question: str) -> Any:
            return dspy.Prediction(answer=question)

    return Own


def predict() -> type[dspy.Predict]:
    class Own(dspy.Predict):
        async def acall(self, **kwargs: Any) -> Any:
            return await super().acall(**kwargs)

    return Own


def adapter_that_inherits_all() -> type[dspy.Adapter]:
    """DSPy decorates the inherited `format` and `parse` anew for every subclass."""

    class Own(dspy.ChatAdapter):
        pass

    return Own


def adapter_of_an_adapter() -> type[dspy.Adapter]:
    class Own(adapter_that_inherits_all()):  # type: ignore[misc]  # a class all the same
        def parse(self, *args: Any, **kwargs: Any) -> Any:
            return super().parse(*args, **kwargs)

    return Own


def adapter_that_overrides() -> type[dspy.Adapter]:
    class Own(dspy.ChatAdapter):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

        def format(self, *args: Any, **kwargs: Any) -> Any:
            return super().format(*args, **kwargs)

    return Own


def optimizer() -> type[Teleprompter]:
    class Own(dspy.LabeledFewShot):
        def compile(self, *args: Any, **kwargs: Any) -> Any:
            return super().compile(*args, **kwargs)

    return Own


def optimizer_that_inherits() -> type[Teleprompter]:
    class Own(dspy.LabeledFewShot):
        pass

    return Own


def lm() -> type[dspy.BaseLM]:
    class Own(dspy.BaseLM):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return ["[[ ## answer ## ]]\nfine\n[[ ## completed ## ]]"]

    return Own


def tool() -> type[dspy.Tool]:
    class Own(dspy.Tool):
        def __call__(self, **kwargs: Any) -> Any:
            return super().__call__(**kwargs)

    return Own


KINDS = [module, predict, adapter_that_inherits_all, adapter_of_an_adapter, adapter_that_overrides, optimizer]
KINDS += [optimizer_that_inherits, lm, tool]


def shape(cls: type) -> dict[str, list[str]]:
    """Return what stands on a class: each attribute's layers of decoration, by file and name of their code."""
    return {name: _layers(value) for name, value in vars(cls).items() if not name.startswith(("_abc", "__pydantic"))}


def _layers(value: Any) -> list[str]:
    layers = []
    while value is not None and len(layers) < 20:
        code = getattr(value, "__code__", None)
        layers.append(f"{type(value).__name__} {code.co_filename} {code.co_name}" if code else type(value).__name__)
        value = getattr(value, "__wrapped__", None)
    return layers


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_a_class_defined_while_patched_is_afterwards_as_one_defined_before(make: Callable[[], type]) -> None:
    """Layer by layer of each attribute: nothing of ours is on it, and DSPy's decorations are there, each once."""
    expected = shape(make())
    with record(detail="full"):
        cls = make()
        assert any(type(value) is Observed for value in vars(cls).values()) or "inherits" in make.__name__
    assert shape(cls) == expected
    assert left_on_dspy() == []


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("when", ["while", "after"])
def test_a_class_defined_while_patched_dies(make: Callable[[], type], when: str) -> None:
    """Refine defines a class for each attempt: none is kept, neither while we are there nor afterwards."""

    def defined() -> weakref.ref[type]:
        return weakref.ref(make())

    with record(detail="full"):
        ref = defined()
        if when == "while":
            gc.collect()
            assert ref() is None
    gc.collect()
    assert ref() is None


def _seen(cls: type[dspy.Adapter]) -> list[str]:
    """Return what a user's callback sees of a call through the adapter."""
    log = Log()
    with dspy.context(adapter=cls(), lm=lm()("own"), callbacks=[log]):
        dspy.Predict("question -> answer")(question="?")
    return log.seen


@pytest.mark.parametrize("make", [adapter_that_inherits_all, adapter_of_an_adapter, adapter_that_overrides])
def test_a_users_callback_sees_each_step_of_such_an_adapter_as_often_as_untraced(make: Callable[[], type]) -> None:
    """While patched and afterwards: DSPy's decorator stands on the class exactly as often as it would."""
    expected = _seen(make())
    assert "on_adapter_format_start Own" in expected
    with record(detail="full") as trace:
        cls = make()
        assert _seen(cls) == expected
    assert trace.tree() == "\ninvoke_workflow Predict\n  Own.format\n  chat own\n  Own.parse\n"
    assert _seen(cls) == expected
    assert len(trace.spans) == 4


def test_a_users_callback_sees_a_compile_of_such_an_optimizer_as_often_as_untraced() -> None:
    """An override that calls `super().compile`, with DSPy's decorator on both."""

    class Compiles(BaseCallback):
        seen = 0

        def on_compile_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            self.seen += 1

    def compiles(cls: type[Any]) -> int:
        log = Compiles()
        with dspy.context(callbacks=[log]):
            cls(k=1).compile(dspy.Predict("question -> answer"), trainset=EXAMPLES)
        return log.seen

    expected = compiles(optimizer()), compiles(optimizer_that_inherits())
    with record() as trace:
        classes = optimizer(), optimizer_that_inherits()
        assert (compiles(classes[0]), compiles(classes[1])) == expected
    assert trace.tree() == "\ncompile Own\ncompile Own\n"
    assert (compiles(classes[0]), compiles(classes[1])) == expected


def test_refine_leaves_no_adapter_class_behind() -> None:
    """The class that Refine makes for each attempt dies as it does untraced."""

    def adapters() -> int:
        gc.collect()
        return sum(cls.__name__ == "WrapperAdapter" for cls in type.__subclasses__(dspy.ChatAdapter))

    run(refined)
    bare = adapters()
    with record(detail="full") as trace:
        run(refined)
        assert adapters() == bare
    assert trace.named("WrapperAdapter.format") or trace.named("ChatAdapter.format")
    assert adapters() == bare


def test_a_class_from_an_earlier_cycle_is_observed_in_the_next(scripted_lm: ScriptedLM) -> None:
    """Classes defined while patched are patched again, once."""
    with record(detail="full"):
        cls, adapter = module(), adapter_of_an_adapter()
    for _ in range(2):
        with record(detail="full") as trace, dspy.context(lm=scripted_lm.lm(), adapter=adapter()):
            cls()(question="?")
            dspy.Predict("question -> answer")(question="?")
        assert (
            trace.tree()
            == """
invoke_workflow Own
invoke_workflow Predict
  Own.format
  chat gpt-4o-mini
  Own.parse
"""
        )

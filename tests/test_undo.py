"""Promise 2: after `uninstrument()` DSPy is what it was, object by object, as far as others' patches allow."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import dspy
import dspy.experimental
import pytest
import wrapt
from dspy.adapters.base import Adapter
from dspy.clients import execution

from dspy_trace import DSPyInstrumentor
from dspy_trace.observing.wrapping import Observed
from dspy_trace.testing import record
from tests.host import left_on_dspy
from tests.parts.scripted_lm import ScriptedLM


@pytest.fixture(autouse=True)
def young_garbage_only() -> Iterator[None]:
    """Let the collector look at what the test makes, and not at all that the suite has imported."""
    gc.freeze()
    yield
    gc.unfreeze()


LEVELS = ("minimal", "standard", "full")


def snapshot() -> dict[tuple[str, str], Any]:
    """Return every attribute of every module and class of DSPy, and of every subclass of one, as objects."""
    found: dict[tuple[str, str], Any] = {}
    classes: dict[int, type] = {}
    for name, module in list(sys.modules.items()):
        if name == "dspy" or name.startswith("dspy."):
            for attribute, value in list(vars(module).items()):
                found[name, attribute] = value
                if isinstance(value, type):
                    classes[id(value)] = value
    for cls in classes.values():
        for each in [cls, *_below(cls)]:
            owner = f"{each.__module__}.{each.__qualname__} {id(each)}"
            found.update({(owner, name): value for name, value in vars(each).items()})
            found[owner, ""] = each
    return found


def _below(cls: type) -> Iterator[type]:
    if cls.__module__.startswith("dspy."):
        for subclass in type.__subclasses__(cls):
            yield subclass
            yield from _below(subclass)


def differences(before: dict[tuple[str, str], Any], after: dict[tuple[str, str], Any]) -> list[tuple[str, str]]:
    """Return what is not the same object; classes that came or went in between are the program's own affair."""
    owners = {owner for owner, _ in before} & {owner for owner, _ in after}
    keys = [key for key in before.keys() | after.keys() if key[0] in owners]
    return [key for key in keys if before.get(key) is not after.get(key)]


def use(server: ScriptedLM) -> None:
    """Call something of every kind."""
    with dspy.context(lm=server.lm()):
        program = dspy.ChainOfThought("question -> answer")
        program(question="?")
        evaluate = dspy.Evaluate(devset=[dspy.Example(question="q").with_inputs("question")], metric=lambda e, p: 1.0)
        evaluate(program, num_threads=1)
        dspy.LabeledFewShot(k=1).compile(program, trainset=evaluate.devset)
        dspy.Tool(lambda: 1, name="f")()


@pytest.mark.parametrize("detail", LEVELS)
def test_every_attribute_is_the_identical_object_again(detail: str, scripted_lm: ScriptedLM) -> None:
    """Of every class and module of DSPy, after one cycle and after another, used or not."""
    use(scripted_lm)
    before = snapshot()
    for level in (detail, *LEVELS):
        with record(detail=level) as trace:
            assert differences(before, snapshot())
            use(scripted_lm)
        assert trace.spans
        assert differences(before, snapshot()) == []
    assert left_on_dspy() == []


def test_nothing_of_ours_stays_in_memory(scripted_lm: ScriptedLM) -> None:
    """Once the garbage is collected there is no wrapper more than before."""

    def wrappers() -> int:
        gc.collect()
        return sum(type(found) is Observed for found in gc.get_objects())

    before = wrappers()
    with record(detail="full") as trace:
        use(scripted_lm)
        assert wrappers() > before + 20
    assert trace.spans
    assert wrappers() == before


def _on_top(seen: list[str]) -> Callable[..., Any]:
    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        seen.append(type(instance).__name__)
        return wrapped(*args, **kwargs)

    return wrapper


def _bottom(top: Any) -> Any:
    while isinstance(top, wrapt.BaseObjectProxy):
        assert not isinstance(top, Observed)
        top = top.__wrapped__
    return top


TARGETS = [
    (dspy.Module, "__call__"),
    (dspy.Predict, "__call__"),
    (dspy.BaseLM, "__call__"),
    (dspy.ChatAdapter, "parse"),
]
TARGETS += [(Adapter, "__call__"), (dspy.ChatAdapter, "format"), (execution, "finalize")]


def by_wrapt(owner: Any, name: str, seen: list[str]) -> None:
    wrapt.wrap_function_wrapper(owner, name, _on_top(seen))


def by_getattr(owner: Any, name: str, seen: list[str]) -> None:
    setattr(owner, name, wrapt.FunctionWrapper(getattr(owner, name), _on_top(seen)))


@pytest.mark.parametrize("put", [by_wrapt, by_getattr])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("owner", "name"), TARGETS, ids=lambda value: getattr(value, "__name__", value))
def test_a_wrapt_wrapper_on_top_stays_and_ours_is_taken_out(
    owner: Any, name: str, layers: int, put: Any, scripted_lm: ScriptedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Theirs works on, straight on DSPy's own object; and below it we may come and go again."""
    original, seen = vars(owner)[name], list[str]()
    monkeypatch.setattr(owner, name, original)  # restored at the end
    with record(detail="full"):
        for _ in range(layers):
            put(owner, name, seen)
        top = vars(owner)[name]
        with dspy.context(lm=scripted_lm.lm(), adapter=dspy.ChatAdapter()):
            dspy.Predict("question -> answer")(question="?")
    traced = len(seen)
    assert traced >= layers
    assert vars(owner)[name] is top
    assert _bottom(top) is original
    with dspy.context(lm=scripted_lm.lm(), adapter=dspy.ChatAdapter()):
        dspy.Predict("question -> answer")(question="?")
    assert len(seen) == 2 * traced
    with record(detail="full"):
        pass
    assert vars(owner)[name] is top
    assert left_on_dspy() == []


def test_a_plain_closure_on_top_is_reported_until_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours cannot be taken out from beneath: it passes calls through, and `leftovers()` names the attribute."""
    original = vars(dspy.Module)["__call__"]
    monkeypatch.setattr(dspy.Module, "__call__", original)

    class Leaf(dspy.Module):
        def forward(self) -> int:
            return 1

    with record() as trace:
        ours = dspy.Module.__call__

        def closure(self: Any, *args: Any, **kwargs: Any) -> Any:
            return ours(self, *args, **kwargs)

        dspy.Module.__call__ = closure
    for _ in range(2):
        assert vars(dspy.Module)["__call__"] is closure
        assert Leaf()() == 1
        assert trace.tree() == "\n"
        assert left_on_dspy() == ["Module.__call__"]
        with record() as again:
            assert Leaf()() == 1
        assert again.tree() == "\ninvoke_workflow Leaf\n"
    dspy.Module.__call__ = original
    assert left_on_dspy() == []


def test_what_runs_while_tracing_ends_goes_on() -> None:
    """A call, a stream and a thread that began traced return what they return, and their spans end."""
    entered, leave = threading.Event(), threading.Event()

    class Waiting(dspy.Module):
        def forward(self) -> str:
            entered.set()
            assert leave.wait(10)
            return "waited"

    class Counting(dspy.Module):
        def forward(self) -> Iterator[int]:
            yield from range(3)

    results: list[str] = []
    with record() as trace:
        stream = Counting()()
        assert next(stream) == 0
        thread = threading.Thread(target=lambda: results.append(Waiting()()))
        thread.start()
        assert entered.wait(10)
    leave.set()
    thread.join(10)
    assert results == ["waited"]
    assert list(stream) == [1, 2]
    assert trace.tree() == "\ninvoke_workflow Counting\ninvoke_workflow Waiting\n"
    Counting()()
    assert len(trace.spans) == 2


def test_undoing_twice_or_first_is_no_error() -> None:
    """`uninstrument` without `instrument`, and again."""
    before = snapshot()
    DSPyInstrumentor().uninstrument()
    with record():
        DSPyInstrumentor().uninstrument()
        DSPyInstrumentor().uninstrument()
        assert differences(before, snapshot()) == []


def test_a_failure_while_patching_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that this DSPy lacks is skipped; the rest is patched and undone as ever."""
    monkeypatch.delattr(execution, "checked_stream")
    before = snapshot()
    with record() as trace:
        dspy.Tool(lambda: 1, name="f")()
    assert trace.tree() == "\nexecute_tool f\n"
    assert differences(before, snapshot()) == []
